//! Machine code as `cuobjdump -sass` prints it.

/// One function.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Function<'a> {
    /// Its symbol.
    pub(super) name: &'a str,
    /// The opcodes of its instructions, in order.
    pub(super) opcodes: Vec<&'a str>,
    /// How many of them are accesses by generic addresses with a constant added to them.
    pub(super) generic_sums: usize,
}

impl Function<'_> {
    /// How many opcodes satisfy `wanted`.
    pub(super) fn count(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.opcodes.iter().filter(|opcode| wanted(opcode)).count()
    }
}

/// Reads the functions out of the text.
pub(super) fn parse(text: &str) -> Vec<Function<'_>> {
    let mut functions: Vec<Function<'_>> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("Function : ") {
            functions.push(Function { name: name.trim(), ..Function::default() });
        } else if let (Some(function), Some(opcode)) = (functions.last_mut(), opcode(line)) {
            function.opcodes.push(opcode);
            let is_generic = GENERIC.iter().any(|generic| names(opcode, generic));
            function.generic_sums += usize::from(is_generic && adds_a_constant(line));
        }
    }
    functions
}

/// Instructions whose addresses may be of any memory: LDG, STG, ATOMG and REDG are for global memory, LDS, STS and ATOMS
/// for shared memory.
pub(super) const GENERIC: [&str; 4] = ["LD", "ST", "ATOM", "RED"];

/// Whether an opcode such as `LDG.E.128` is of the instruction `LDG`.
pub(super) fn names(opcode: &str, instruction: &str) -> bool {
    opcode.split('.').next() == Some(instruction)
}

/// Whether the address is a sum, as in `[R12+0x4000]`.
fn adds_a_constant(line: &str) -> bool {
    line.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .is_some_and(|(address, _)| address.contains('+'))
}

/// The opcode in `/*0060*/  @!P0 LDG.E.128.CONSTANT R4, desc[UR6][R4.64] ;  /* 0x0000000604047981 */`.
/// A line that holds nothing but the encoding has a space after `/*`.
fn opcode(line: &str) -> Option<&str> {
    let (offset, instruction) = line.strip_prefix("/*")?.split_once("*/")?;
    if offset.is_empty() || !offset.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut words = instruction.split_whitespace();
    let first = words.next()?;
    let opcode = if first.starts_with('@') { words.next()? } else { first };
    Some(opcode.trim_end_matches(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\n\tcode for sm_90\n\t\tFunction : one\n\t.headerflags\t@\"EF_CUDA_SM90\"\n\
        \x20       /*0000*/                   LDC R1, c[0x0][0x28] ;       /* 0x00000a00ff017b82 */\n\
        \x20                                                               /* 0x000fe20000000800 */\n\
        \x20       /*0060*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR6][R4.64] ; /* 0x0 */\n\
        \x20       /*1070*/               @P1 EXIT ;  /* 0x0 */\n\
        \t\t..........\n\n\t\tFunction : two\n\
        \x20       /*0000*/                   RET;  /* 0x0 */\n";

    #[test]
    fn opcodes_are_read_without_predicates_and_encodings() {
        let functions = parse(TEXT);
        assert_eq!(functions.len(), 2);
        assert_eq!(functions[0].name, "one");
        assert_eq!(functions[0].opcodes, ["LDC", "LDG.E.128.CONSTANT", "EXIT"]);
        assert_eq!(functions[1], Function { name: "two", opcodes: vec!["RET"], ..Function::default() });
    }

    #[test]
    fn constants_in_generic_addresses_are_counted() {
        let text = "\t\tFunction : one\n\
            \x20       /*0000*/                   LD.E R12, [R12+0x4000] ;  /* 0x0 */\n\
            \x20       /*0010*/              @!P0 ST.E [R8+0x40], R11 ;  /* 0x0 */\n\
            \x20       /*0020*/                   LD.E R12, [R12] ;  /* 0x0 */\n\
            \x20       /*0030*/                   LDS R12, [R12+0x40] ;  /* 0x0 */\n\
            \x20       /*0040*/                   LDG.E R4, desc[UR6][R4.64+0x8] ;  /* 0x0 */\n";
        assert_eq!(parse(text)[0].generic_sums, 2);
    }

    #[test]
    fn opcodes_are_counted() {
        let functions = parse(TEXT);
        assert_eq!(functions[0].count(|opcode| opcode.starts_with("LD")), 2);
        assert_eq!(functions[1].count(|opcode| opcode.starts_with("LD")), 0);
    }
}
