//! What the machine code of each kernel must look like.

use dsa_kernels_gpu::compress::{
    self,
    configuration::{Configuration, Mode},
    number::NumberType,
};

use super::sass::{Function, GENERIC, names};

/// The promises of one kernel. All kernels promise to use no local memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// Name of the entry point.
    entry: &'static str,
    /// Global loads of 16 bytes that there must be at least.
    wide_loads: usize,
    /// Copies of 16 bytes from global to shared memory that there must be at least.
    wide_copies: usize,
    /// Native shared atomics that there must be at least.
    shared_atomics: usize,
    /// Whether it reaches the shared memory of other blocks, which takes generic instructions.
    remote_shared: bool,
    /// Whether it waits for earlier launches, if its PTX is for an architecture that can.
    waits: bool,
    /// Whether no check of the compiler's has a path to a trap. Where there is one that the threads of a warp might take
    /// apart, the assembler no longer knows that they are together, and its loops take up to twice the time.
    never_traps: bool,
}

/// The first architecture whose PTX can wait for earlier launches.
const FIRST_WAITING: u32 = 90;

const NOTHING: Expected = Expected {
    entry: "",
    wide_loads: 0,
    wide_copies: 0,
    shared_atomics: 0,
    remote_shared: false,
    waits: false,
    never_traps: false,
};

/// Of all kernels that select.
const SELECTING: Expected = Expected { never_traps: true, ..NOTHING };

/// Of those for clusters.
const IN_CLUSTERS: Expected = Expected { waits: true, remote_shared: true, ..SELECTING };

/// The kernels that promise more than the rest. Those for ordered rows promise what those for rows in any order do.
const EXPECTED: [Expected; 24] = [
    // Rows are read 16 bytes at a time and binned in shared memory. The numbers are 80 % of what CUDA 13.5
    // makes (85, 42, 42, 36 and 36 loads; 161, 173, 173, 148 and 156 atomics): fewer means that batches of loads
    // or unrolled loops were lost. The copies are those of a thread's share of a tile, when a stream begins and when
    // it goes on, of a tile that is whole and of one that is not.
    Expected {
        entry: "topk_f32",
        wide_loads: 68,
        wide_copies: 8,
        shared_atomics: 128,
        waits: true,
        ..SELECTING
    },
    Expected {
        entry: "topk_f16",
        wide_loads: 33,
        wide_copies: 8,
        shared_atomics: 138,
        waits: true,
        ..SELECTING
    },
    Expected {
        entry: "topk_bf16",
        wide_loads: 33,
        wide_copies: 8,
        shared_atomics: 138,
        waits: true,
        ..SELECTING
    },
    // The first four loads of f32, or two of 16 bits, are on their way together.
    Expected { entry: "topk_f32_short", wide_loads: 4, waits: true, ..SELECTING },
    Expected { entry: "topk_f16_short", wide_loads: 2, waits: true, ..SELECTING },
    Expected { entry: "topk_bf16_short", wide_loads: 2, waits: true, ..SELECTING },
    // All loads of a slice that is held are on their way together, too; of the copies, as above.
    Expected { entry: "topk_f32_cluster", wide_loads: 4, ..IN_CLUSTERS },
    Expected { entry: "topk_f16_cluster", wide_loads: 2, ..IN_CLUSTERS },
    Expected { entry: "topk_bf16_cluster", wide_loads: 2, ..IN_CLUSTERS },
    Expected { entry: "topk_f32_cluster_streamed", wide_copies: 8, ..IN_CLUSTERS },
    Expected { entry: "topk_f16_cluster_streamed", wide_copies: 8, ..IN_CLUSTERS },
    Expected { entry: "topk_bf16_cluster_streamed", wide_copies: 8, ..IN_CLUSTERS },
    Expected { entry: "topk_f32_block", wide_loads: 29, shared_atomics: 118, ..SELECTING },
    Expected { entry: "topk_f32_grid", wide_loads: 29, shared_atomics: 125, ..SELECTING },
    // Rows of 512: four loads of f32, or two of bf16, and four of weights.
    Expected { entry: "post", wide_loads: 10, waits: true, ..NOTHING },
    // The floors of the benchmark.
    Expected { entry: "read_all", wide_loads: 1, ..NOTHING },
    Expected { entry: "copy_all", wide_loads: 1, ..NOTHING },
    // One plain, one read-only.
    Expected { entry: "probe_load", wide_loads: 2, ..NOTHING },
    Expected { entry: "probe_store", wide_loads: 1, ..NOTHING },
    Expected { entry: "probe_shared_atomic", shared_atomics: 1, ..NOTHING },
    Expected { entry: "probe_overlapping", waits: true, ..NOTHING },
    Expected { entry: "probe_cluster2", remote_shared: true, ..NOTHING },
    Expected { entry: "probe_cluster4", remote_shared: true, ..NOTHING },
    Expected { entry: "probe_cluster_atomic", ..NOTHING },
];

/// The promises of a kernel.
pub(super) fn of(entry: &str) -> Expected {
    let any_order = entry.strip_suffix("_ordered").unwrap_or(entry);
    let expected = EXPECTED.into_iter().find(|expected| expected.entry == any_order);
    expected.or_else(|| compressor(entry)).unwrap_or(NOTHING)
}

/// The promises of a kernel of the compressor that is one of its configurations: a thread's vectors of both pools are all
/// on their way before the first is used.
fn compressor(entry: &str) -> Option<Expected> {
    let configuration = compress::CONFIGURATIONS.iter().find(|configuration| configuration.entry == entry)?;
    let tokens_at_once = match configuration {
        Configuration { mode: Mode::Running, .. } => 1,
        Configuration { ratio: compress::OVERLAPPING, .. } => 2 * compress::OVERLAPPING,
        Configuration { mode: Mode::Decode | Mode::DecodeStore, warps: 8, .. } => 4,
        Configuration { mode: Mode::Decode | Mode::DecodeStore, .. } => 1,
        Configuration { mode: Mode::Prefill, state: NumberType::F32, .. } => 4,
        Configuration { mode: Mode::Prefill, state: NumberType::Bf16, .. } => 2,
    };
    let wide_loads = 2 * tokens_at_once as usize;
    Some(Expected { entry: configuration.entry, wide_loads, waits: true, ..NOTHING })
}

impl Expected {
    /// The promises that a kernel's machine code, from PTX for `ptx_arch`, does not keep.
    pub(super) fn findings(&self, function: &Function<'_>, ptx_arch: u32) -> Vec<String> {
        let mut findings = Vec::new();
        let mut report = |finding: String| findings.push(format!("{}: {finding}", function.name));
        for local in ["LDL", "STL"] {
            let count = function.count(|opcode| names(opcode, local));
            if count > 0 {
                report(format!("{count} x {local}: it uses local memory"));
            }
        }
        // What is left when the assembler does not know the space.
        for generic in GENERIC {
            let count = function.count(|opcode| names(opcode, generic));
            if count > 0 && !self.remote_shared {
                report(format!(
                    "{count} x {generic}: accesses whose memory space the assembler does not know"
                ));
            }
        }
        // Remote shared memory is addressed in 32 bits, where a sum may wrap; in a generic address it does not.
        if function.generic_sums > 0 {
            report(format!("{} generic accesses with a constant in their address", function.generic_sums));
        }
        let wide = function.count(|opcode| opcode.starts_with("LDG.E.128"));
        if wide < self.wide_loads {
            report(format!("{wide} 16-byte global loads, at least {} are promised", self.wide_loads));
        }
        let copies = function.count(|opcode| names(opcode, "LDGSTS") && opcode.ends_with(".128"));
        if copies < self.wide_copies {
            report(format!("{copies} 16-byte copies, at least {} are promised", self.wide_copies));
        }
        let atomics = function.count(|opcode| names(opcode, "ATOMS"));
        if atomics < self.shared_atomics {
            report(format!(
                "{atomics} native shared atomics (ATOMS), at least {} are promised",
                self.shared_atomics
            ));
        }
        let waits = function.opcodes.iter().position(|opcode| names(opcode, "ACQBULK"));
        if waits.is_none() && self.waits && ptx_arch >= FIRST_WAITING {
            report("no ACQBULK: it does not wait for earlier launches".into());
        }
        let traps = function.count(|opcode| names(opcode, "BPT"));
        if traps > 0 && self.never_traps {
            report(format!(
                "{traps} x BPT: a path to a trap, such as that of a division by what may be zero"
            ));
        }
        // Before the wait, an earlier launch may still use the memory.
        for opcode in &function.opcodes[..waits.unwrap_or(0)] {
            if ["LDG", "STG", "ATOMG", "REDG", "LDGSTS"].iter().any(|global| names(opcode, global)) {
                report(format!("{opcode} before ACQBULK: it does not wait for earlier launches first"));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(entry: &'static str, opcodes: &[&'static str]) -> Vec<String> {
        of(entry).findings(&Function { name: entry, opcodes: opcodes.to_vec(), ..Function::default() }, 80)
    }

    #[test]
    fn every_promise_is_of_a_kernel_that_exists() {
        let known: Vec<&str> =
            crate::ptx::units().iter().flat_map(|unit| unit.entries).map(|e| e.name).collect();
        for expected in EXPECTED {
            assert!(known.contains(&expected.entry), "no kernel {}", expected.entry);
        }
    }

    #[test]
    fn kernels_of_the_compressor_promise_by_their_configuration() {
        assert_eq!(of("decode_bf16_f32_r128_w8").wide_loads, 8);
        assert!(findings("decode_bf16_f32_r128_w8", &["LDG.E.128"; 7])[0].contains("at least 8"));
        assert!(compress::CONFIGURATIONS.iter().all(|c| of(c.entry).waits));
    }

    #[test]
    fn a_kernel_that_keeps_its_promises_has_no_findings() {
        let expected = of("topk_f32_block");
        let mut good = vec!["STG.E", "REDG.E.ADD.STRONG.GPU", "RET"];
        good.extend(["LDG.E.128.CONSTANT"].repeat(expected.wide_loads));
        good.extend(["ATOMS.POPC.INC.32"].repeat(expected.shared_atomics));
        assert_eq!(findings("topk_f32_block", &good), Vec::<String>::new());
        assert_eq!(findings("null", &["EXIT"]), Vec::<String>::new());
    }

    #[test]
    fn narrow_loads_and_too_few_shared_atomics_are_found() {
        let found = findings("topk_f32_block", &["LDG.E", "LDG.E.64", "LDG.E.128", "ATOMS.ADD"]).join("\n");
        assert!(found.contains("1 16-byte global loads, at least 29"), "{found}");
        assert!(found.contains("1 native shared atomics (ATOMS), at least 118"), "{found}");
    }

    #[test]
    fn too_few_copies_of_16_bytes_are_found() {
        let found = findings("topk_f32", &["LDGSTS.E.BYPASS.128", "LDGSTS.E.64"]).join("\n");
        assert!(found.contains("1 16-byte copies, at least 8 are promised"), "{found}");
    }

    #[test]
    fn global_accesses_before_the_wait_for_earlier_launches_and_a_missing_wait_are_found() {
        let findings = |opcodes: &[&'static str], ptx_arch| {
            let function =
                Function { name: "probe_overlapping", opcodes: opcodes.to_vec(), ..Function::default() };
            of("probe_overlapping").findings(&function, ptx_arch)
        };
        assert_eq!(findings(&["S2R", "ACQBULK", "PREEXIT", "LDG.E", "STG.E"], 90), Vec::<String>::new());
        assert_eq!(findings(&["LDG.E", "STG.E"], 80), Vec::<String>::new());
        assert!(findings(&["LDG.E", "STG.E"], 90)[0].contains("no ACQBULK"));
        let early = findings(&["LDG.E.CONSTANT", "ACQBULK", "STG.E"], 90);
        assert_eq!(early.len(), 1, "{early:?}");
        assert!(early[0].contains("LDG.E.CONSTANT before ACQBULK"), "{early:?}");
    }

    #[test]
    fn local_memory_is_found_in_any_kernel() {
        let found = findings("null", &["LDL.64", "STL", "STL"]);
        assert_eq!(found, ["null: 1 x LDL: it uses local memory", "null: 2 x STL: it uses local memory"]);
    }

    #[test]
    fn paths_to_a_trap_are_found_in_kernels_that_select() {
        for entry in ["topk_f32_grid", "topk_bf16_short_ordered", "topk_f16_cluster_streamed_ordered"] {
            let found = findings(entry, &["BPT.TRAP", "EXIT"]).join("\n");
            assert!(found.contains("1 x BPT: a path to a trap"), "{found}");
        }
        assert_eq!(findings("probe_load", &["LDG.E.128", "LDG.E.128", "BPT.TRAP"]), Vec::<String>::new());
    }

    #[test]
    fn generic_accesses_are_found_except_where_remote_shared_memory_needs_them() {
        let found = findings("probe_shared_atomic", &["ATOM.E.ADD.STRONG.GPU", "ATOMS.ADD"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("1 x ATOM:"), "{found:?}");
        assert_eq!(findings("probe_cluster2", &["ATOM.E.ADD.STRONG.GPU", "LD.E"]), Vec::<String>::new());
        let sums = Function { name: "probe_cluster2", opcodes: vec!["LD.E"], generic_sums: 1 };
        let found = of(sums.name).findings(&sums, 80).join("\n");
        assert!(found.contains("1 generic accesses with a constant"), "{found}");
    }
}
