//! What `ptxas -v` says of the functions it assembles.

use std::fmt;

/// 32-bit registers of a multiprocessor, on every architecture since 5.0.
const REGISTERS: u32 = 65536;
/// Most registers a thread can have.
const MOST_PER_THREAD: u32 = 255;
/// Registers are given to a thread in units of this.
const UNIT: u32 = 8;

/// One function, entry point or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Function {
    /// Its symbol.
    pub(super) name: String,
    /// Registers of a thread; `None` for what is no entry point.
    pub(super) registers: Option<u32>,
    /// Bytes of local memory of a thread.
    pub(super) stack: u32,
    /// Bytes written to local memory because registers ran out.
    pub(super) spill_stores: u32,
    /// Bytes read back.
    pub(super) spill_loads: u32,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, registers, stack, spill_stores, spill_loads } = self;
        write!(f, "{name}: ")?;
        if let Some(registers) = registers {
            write!(f, "{registers} registers, ")?;
        }
        write!(f, "stack {stack} B, spills {spill_stores} B out and {spill_loads} B in")
    }
}

impl Function {
    /// What is wrong with it, given the most registers its launch bounds allow.
    pub(super) fn findings(&self, register_limit: Option<u32>) -> Vec<String> {
        let mut findings = Vec::new();
        if self.spill_stores > 0 || self.spill_loads > 0 {
            findings.push(format!(
                "{}: spills: {} bytes of stores, {} of loads",
                self.name, self.spill_stores, self.spill_loads
            ));
        }
        if self.stack > 0 {
            findings.push(format!("{}: a stack frame of {} bytes", self.name, self.stack));
        }
        if let (Some(registers), Some(limit)) = (self.registers, register_limit)
            && registers > limit
        {
            findings.push(format!("{}: {registers} registers, its launch bounds allow {limit}", self.name));
        }
        findings
    }
}

/// The most registers a thread may have for `min_blocks` blocks of `max_threads` threads on one
/// multiprocessor of this architecture.
pub(super) fn register_limit(max_threads: u32, min_blocks: u32, arch: u32) -> u32 {
    // A multiprocessor that cannot hold so many threads holds fewer blocks.
    let threads_per_multiprocessor = if matches!(arch, 80 | 90 | 100) { 2048 } else { 1536 };
    let warps = max_threads.div_ceil(32).max(1);
    let blocks = min_blocks.min(threads_per_multiprocessor / (32 * warps)).max(1);
    (REGISTERS / (blocks * warps * 32) / UNIT * UNIT).min(MOST_PER_THREAD)
}

/// Reads the functions out of the text.
pub(super) fn parse(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    // The entry point being compiled, and the function that the next properties belong to.
    let (mut entry, mut current) = (None, None);
    for line in text.lines() {
        if let Some(name) = quoted_after(line, "Compiling entry function ") {
            entry = Some(index_of(&mut functions, name));
            current = entry;
        } else if let Some(name) = line.split("Function properties for ").nth(1) {
            current = Some(index_of(&mut functions, name.trim()));
        } else if line.contains("bytes stack frame") {
            if let Some(function) = current.and_then(|index| functions.get_mut(index)) {
                function.stack = number_before(line, " bytes stack frame").unwrap_or_default();
                function.spill_stores = number_before(line, " bytes spill stores").unwrap_or_default();
                function.spill_loads = number_before(line, " bytes spill loads").unwrap_or_default();
            }
        } else if let Some(function) = entry.and_then(|index| functions.get_mut(index))
            && line.contains("Used ")
        {
            function.registers = number_before(line, " registers").or(function.registers);
        }
    }
    functions
}

/// The place of the function called `name`, appended if it is new.
fn index_of(functions: &mut Vec<Function>, name: &str) -> usize {
    functions.iter().position(|function| function.name == name).unwrap_or_else(|| {
        functions.push(Function { name: name.to_string(), ..Function::default() });
        functions.len() - 1
    })
}

fn quoted_after<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.split(prefix).nth(1)?.strip_prefix('\'')?.split('\'').next()
}

fn number_before(line: &str, unit: &str) -> Option<u32> {
    line.split(unit)
        .next()
        .filter(|before| before.len() < line.len())?
        .rsplit([' ', ','])
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'grid' for 'sm_90'\n\
        ptxas info    : Function properties for grid\n\
        \x20   16 bytes stack frame, 12 bytes spill stores, 24 bytes spill loads\n\
        ptxas info    : Used 64 registers, used 1 barriers, 16 bytes cumulative stack size\n\
        ptxas info    : Compile time = 8.7 ms\n\
        ptxas info    : Compiling entry function 'block' for 'sm_90'\n\
        ptxas info    : Function properties for block\n\
        \x20   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 72 registers, used 1 barriers, 420 bytes cmem[0]\n\
        ptxas info    : Function properties for helper\n\
        \x20   8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";

    #[test]
    fn registers_stack_and_spills_are_read() {
        let functions = parse(TEXT);
        let spilling = Function {
            name: "grid".into(),
            registers: Some(64),
            stack: 16,
            spill_stores: 12,
            spill_loads: 24,
        };
        assert_eq!(functions[0], spilling);
        assert_eq!(
            functions[1],
            Function { name: "block".into(), registers: Some(72), ..Function::default() }
        );
        assert_eq!(functions[2], Function { name: "helper".into(), stack: 8, ..Function::default() });
        assert_eq!(functions.len(), 3);
    }

    #[test]
    fn spills_stack_frames_and_too_many_registers_are_findings() {
        let functions = parse(TEXT);
        let found = |index: usize| functions[index].findings(Some(64)).join("\n");
        assert!(found(0).contains("12 bytes of stores, 24 of loads"), "{}", found(0));
        assert!(found(0).contains("stack frame of 16 bytes"), "{}", found(0));
        assert_eq!(found(1), "block: 72 registers, its launch bounds allow 64");
        assert_eq!(found(2), "helper: a stack frame of 8 bytes");
        assert_eq!(functions[1].findings(Some(72)), Vec::<String>::new());
    }

    #[test]
    fn launch_bounds_limit_registers() {
        assert_eq!(register_limit(1024, 1, 90), 64);
        assert_eq!(register_limit(1024, 2, 90), 32);
        assert_eq!(register_limit(512, 3, 90), 40);
        assert_eq!(register_limit(64, 0, 80), 255);
        // 2048 threads do not fit there: one block is all there can be.
        assert_eq!(register_limit(1024, 2, 120), 64);
    }
}
