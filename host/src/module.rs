//! Modules: kernels with the PTX that holds them.

use std::borrow::Cow;
use std::path::Path;

use dsa_simt::Entry;

use crate::Error;

/// PTX for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ptx {
    /// The lowest compute capability it runs on, as in `80` for 8.0; it also runs on every later one.
    pub arch: u32,
    /// The text.
    pub text: Cow<'static, str>,
}

impl Ptx {
    /// PTX that is part of the program.
    pub const fn embedded(arch: u32, text: &'static str) -> Self {
        Self { arch, text: Cow::Borrowed(text) }
    }

    /// The text without the kernels other than `name`: compiling all of them takes a driver many times as long. The whole
    /// text if it has no such kernel, or variables in device memory, which its kernels may share, or what this does not
    /// understand.
    ///
    /// ```
    /// use dsa_kernels::Module;
    ///
    /// let module = Module::topk();
    /// let ptx = module.ptx_for((9, 0))?;
    /// let kernel = ptx.text_of("topk_f32");
    /// assert!(kernel.contains(".entry topk_f32(") && !kernel.contains(".entry topk_f16("));
    /// assert!(kernel.len() < ptx.text.len() / 10);
    /// # Ok::<(), dsa_kernels::Error>(())
    /// ```
    pub fn text_of(&self, name: &str) -> Cow<'_, str> {
        cut_to(&self.text, name).map_or(Cow::Borrowed(&self.text), Cow::Owned)
    }
}

/// The text of a module without the kernels other than `name`, if it can be cut.
fn cut_to(module: &str, name: &str) -> Option<String> {
    let (mut text, mut is_found) = (String::new(), false);
    // Whether a line belongs to another kernel, and the blocks that it is in.
    let (mut is_other, mut depth) = (false, 0_usize);
    for line in module.split_inclusive('\n') {
        if depth == 0 {
            match Declaration::of(line) {
                Some(Declaration::Shared) => return None,
                Some(Declaration::Kernel(kernel)) => {
                    is_other = kernel != name;
                    is_found |= !is_other;
                }
                None => {}
            }
        }
        if !is_other {
            text.push_str(line);
        }
        let (opened, closed) = braces(line)?;
        depth = (depth + opened).checked_sub(closed)?;
        is_other &= depth > 0 || opened + closed == 0;
    }
    (is_found && depth == 0).then_some(text)
}

/// What a line of PTX declares outside of all blocks.
enum Declaration<'a> {
    /// A kernel of this name.
    Kernel(&'a str),
    /// What kernels may share: a variable in device memory, or what a debugger wants.
    Shared,
}

impl<'a> Declaration<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let is_linkage = |word: &&str| matches!(*word, ".visible" | ".weak" | ".extern" | ".common");
        let mut words = line.split_whitespace().skip_while(is_linkage);
        match words.next()? {
            ".entry" => Some(Self::Kernel(words.next()?.split('(').next()?)),
            ".global" | ".section" => Some(Self::Shared),
            _ => None,
        }
    }
}

/// How many braces a line opens and closes, but for those in comments to its end and in strings; `None` for a comment that
/// may go on.
fn braces(line: &str) -> Option<(usize, usize)> {
    let code = line.split("//").next().unwrap_or(line);
    if code.contains("/*") {
        return None;
    }
    // What is between quotes is every other part.
    let count = |brace| code.split('"').step_by(2).map(|part| part.matches(brace).count()).sum();
    Some((count('{'), count('}')))
}

/// Kernels, known by their entry points (for the emulator and for checks) and as PTX (for GPUs).
#[derive(Clone, Debug)]
pub struct Module {
    name: Cow<'static, str>,
    entries: &'static [Entry],
    ptx: Cow<'static, [Ptx]>,
}

static TOPK_PTX: [Ptx; 2] = [
    Ptx::embedded(80, include_str!("../ptx/topk.sm_80.ptx")),
    Ptx::embedded(90, include_str!("../ptx/topk.sm_90.ptx")),
];

static COMPRESS_PTX: [Ptx; 2] = [
    Ptx::embedded(80, include_str!("../ptx/compress.sm_80.ptx")),
    Ptx::embedded(90, include_str!("../ptx/compress.sm_90.ptx")),
];

impl Module {
    /// The kernels of [`compress`](crate::compress).
    pub const fn compress() -> Self {
        Self {
            name: Cow::Borrowed("compress"),
            entries: dsa_kernels_gpu::compress::ENTRIES,
            ptx: Cow::Borrowed(&COMPRESS_PTX),
        }
    }

    /// The kernels of [`topk`](crate::topk).
    pub const fn topk() -> Self {
        Self {
            name: Cow::Borrowed("topk"),
            entries: dsa_kernels_gpu::topk::ENTRIES,
            ptx: Cow::Borrowed(&TOPK_PTX),
        }
    }

    /// A module of the caller's own kernels. `ptx` may be empty: such a module runs on the emulator only.
    pub fn from_ptx(
        name: impl Into<Cow<'static, str>>,
        ptx: impl Into<Vec<Ptx>>,
        entries: &'static [Entry],
    ) -> Self {
        Self { name: name.into(), entries, ptx: Cow::Owned(ptx.into()) }
    }

    /// The same kernels with PTX that is not part of the program: the files `NAME.sm_ARCH.ptx` in `directory`, where NAME
    /// is the module's [`name`](Self::name), one for each architecture that the module has PTX for.
    ///
    /// This is how PTX of another compiler is used, such as rust-cuda's (`cargo xtask ptx --backend rust-cuda` writes
    /// it to `target/ptx/rust-cuda`): `Module::topk().with_ptx_from("target/ptx/rust-cuda")`, to be passed to
    /// [`TopKBuilder::build_with`](crate::topk::TopKBuilder::build_with). Both may be used in one process.
    ///
    /// # Errors
    /// [`Error::PtxFile`].
    pub fn with_ptx_from(self, directory: impl AsRef<Path>) -> Result<Self, Error> {
        let read = |ptx: &Ptx| {
            let path = directory.as_ref().join(format!("{}.sm_{}.ptx", self.name, ptx.arch));
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Ptx { arch: ptx.arch, text: text.into() }),
                Err(source) => Err(Error::PtxFile { path, source }),
            }
        };
        let ptx: Result<Vec<_>, _> = self.ptx.iter().map(read).collect();
        Ok(Self { ptx: Cow::Owned(ptx?), ..self })
    }

    /// Name of the module, for messages and files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kernels.
    pub fn entries(&self) -> &'static [Entry] {
        self.entries
    }

    /// The kernel called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownKernel`].
    pub fn entry(&self, name: &str) -> Result<&'static Entry, Error> {
        self.entries.iter().find(|entry| entry.name == name).ok_or_else(|| Error::UnknownKernel {
            module: self.name.to_string(),
            kernel: name.to_string(),
            available: self.entries.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The PTX to use on a device of this compute capability `(major, minor)`: the one for the highest
    /// architecture that is not above it.
    ///
    /// # Errors
    /// [`Error::NoPtx`].
    pub fn ptx_for(&self, compute_capability: (u32, u32)) -> Result<&Ptx, Error> {
        let runs = |ptx: &&Ptx| self::compute_capability(ptx.arch) <= compute_capability;
        self.ptx.iter().filter(runs).max_by_key(|ptx| ptx.arch).ok_or_else(|| {
            let archs: Vec<_> = self.ptx.iter().map(|ptx| format!("sm_{}", ptx.arch)).collect();
            Error::NoPtx {
                module: self.name.to_string(),
                found: compute_capability,
                available: if archs.is_empty() { "no architecture".into() } else { archs.join(", ") },
            }
        })
    }
}

/// The compute capability `(major, minor)` of an architecture, as in `(8, 0)` for 80.
pub(crate) const fn compute_capability(arch: u32) -> (u32, u32) {
    (arch / 10, arch % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(archs: &[u32]) -> Module {
        let ptx: Vec<_> = archs.iter().map(|&arch| Ptx { arch, text: format!("{arch}").into() }).collect();
        Module::from_ptx("test", ptx, &[])
    }

    #[test]
    fn the_highest_architecture_not_above_the_device_is_chosen() {
        let module = module(&[80, 90]);
        for (device, arch) in [
            ((8, 0), 80),
            ((8, 9), 80),
            ((9, 0), 90),
            ((10, 0), 90),
            ((12, 1), 90),
            ((u32::MAX, u32::MAX), 90),
        ] {
            assert_eq!(module.ptx_for(device).unwrap().arch, arch, "on {device:?}");
        }
    }

    #[test]
    fn a_device_below_every_architecture_is_refused_by_name() {
        let error = module(&[80, 90]).ptx_for((7, 5)).unwrap_err();
        assert!(matches!(error, Error::NoPtx { found: (7, 5), .. }));
        assert!(error.to_string().contains("sm_80, sm_90"), "{error}");
        assert!(error.to_string().contains("7.5"), "{error}");
    }

    #[test]
    fn ptx_of_a_directory_takes_the_place_of_what_is_part_of_the_program() {
        let directory = std::env::temp_dir().join(format!("dsa-kernels-ptx-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for arch in [80, 90] {
            std::fs::write(directory.join(format!("topk.sm_{arch}.ptx")), format!("other {arch}")).unwrap();
        }
        let module = Module::topk().with_ptx_from(&directory).unwrap();
        assert_eq!(module.ptx_for((8, 6)).unwrap().text, "other 80");
        assert_eq!(module.ptx_for((9, 0)).unwrap().text, "other 90");
        assert_eq!(module.entries().len(), Module::topk().entries().len());
        let error = Module::compress().with_ptx_from(&directory).unwrap_err().to_string();
        std::fs::remove_dir_all(directory).unwrap();
        assert!(error.contains("compress.sm_80.ptx"), "{error}");
    }

    #[test]
    fn the_text_of_a_kernel_has_no_other_one() {
        let bodies = "\
            .version 8.0\n.extern .shared .b8 shared[];\n\
            .visible .entry first(\n\t.param .u32 a\n)\n{\n\tret;\n}\n\
            .func helper()\n{\n\tret;\n}\n\
            .entry second()\n{\n\tld.global.b32 %r1, [%rd1];\n}\n";
        let text_of = |text: &'static str, name| Ptx::embedded(80, text).text_of(name).into_owned();
        let second = text_of(bodies, "second");
        assert!(
            second.starts_with(".version 8.0\n.extern .shared .b8 shared[];\n.func helper()"),
            "{second}"
        );
        assert!(second.ends_with(".entry second()\n{\n\tld.global.b32 %r1, [%rd1];\n}\n"), "{second}");
        let first = text_of(bodies, "first");
        assert!(first.contains("first(\n\t.param .u32 a\n)\n{\n\tret;\n}\n.func helper()"), "{first}");
        assert!(!first.contains("second"), "{first}");
        assert_eq!(text_of(bodies, "third"), bodies);
        // As assembly of several lines is printed.
        let nested = ".entry first()\n{\n\t{\n.reg .b32 %a;\n}\n\tmov.b64 {%r1, %r2}, %rd1; // }\n}\n\
            .entry second() { ret; }\n.file 1 \"{\"\n.entry third()\n{\n\t{\n}\n}\n";
        assert_eq!(text_of(nested, "second"), ".entry second() { ret; }\n.file 1 \"{\"\n");
        assert!(text_of(nested, "third").starts_with(".file 1 \"{\"\n.entry third()"));
        assert!(text_of(nested, "first").ends_with("// }\n}\n.file 1 \"{\"\n"));
        for unclear in [".entry first()\n{\n}\n}\n", ".entry first()\n{\n", ".entry first()\n{ /* } */\n}\n"]
        {
            assert_eq!(text_of(unclear, "first"), unclear);
        }
        let sharing = ".visible .global .align 4 .u32 shared;\n.entry first()\n{\n}\n.entry second()\n{\n}\n";
        assert_eq!(text_of(sharing, "first"), sharing);
    }

    #[test]
    fn the_kernels_of_a_module_have_a_text_each() {
        for (module, arch) in [(Module::topk(), 80), (Module::topk(), 90), (Module::compress(), 90)] {
            let ptx = module.ptx_for(compute_capability(arch)).unwrap();
            for entry in module.entries().iter().filter(|entry| entry.min_arch <= arch) {
                let text = ptx.text_of(entry.name);
                assert_eq!(text.matches(".entry ").count(), 1, "{} for sm_{arch}", entry.name);
                assert!(text.contains(&format!(".entry {}(", entry.name)), "{} for sm_{arch}", entry.name);
                assert!(text.trim_end().ends_with('}'), "{} for sm_{arch}", entry.name);
            }
        }
    }

    #[test]
    fn an_unknown_kernel_is_answered_with_the_names_there_are() {
        let error = Module::topk().entry("no_such_kernel").unwrap_err().to_string();
        assert!(error.contains("no_such_kernel"), "{error}");
        assert!(error.contains(dsa_kernels_gpu::topk::ENTRIES[0].name), "{error}");
    }
}
