//! The header of a PTX file: what it was made by, and from what.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::{Backend, Unit, build, text};
use crate::device_toolchain::Version;

/// Rust's name of the target.
pub(super) const TARGET: &str = "nvptx64-nvidia-cuda";

/// The header of one file.
pub(super) fn write(backend: Backend, unit: &Unit, arch: u32, compiler: &Compiler, sources: &str) -> String {
    format!(
        "// Generated from {source} by `{command}`; not to be edited.\n\
         // compiler: {line}\n\
         // llvm: {llvm}\n\
         // target: {TARGET}, sm_{arch}\n\
         // flags: {flags}\n\
         // sources: {sources}\n",
        source = unit.source(),
        command = backend.command(),
        line = compiler.line,
        llvm = compiler.llvm,
        flags = backend.flags(arch).join(" "),
    )
}

/// What made a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiler {
    /// Its name and version.
    pub(super) line: String,
    /// Version of its LLVM.
    pub(super) llvm: String,
}

impl From<&Version> for Compiler {
    fn from(version: &Version) -> Self {
        Self { line: version.line.clone(), llvm: version.llvm.clone() }
    }
}

/// What a file's header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The compiler's first line of version.
    pub(super) compiler: String,
    /// Version of its LLVM.
    pub(super) llvm: String,
    /// Hash of the sources.
    pub(super) sources: String,
}

impl Recorded {
    /// Reads the header of a PTX file.
    pub(super) fn parse(ptx: &str) -> Result<Self> {
        let field = |name: &str| {
            let prefix = format!("// {name}: ");
            ptx.lines()
                .take_while(|line| line.starts_with("//"))
                .find_map(|line| line.strip_prefix(&prefix))
                .map(str::to_string)
                .with_context(|| format!("the header has no line `{}`", prefix.trim_end()))
        };
        Ok(Self { compiler: field("compiler")?, llvm: field("llvm")?, sources: field("sources")? })
    }

    /// Whether this compiler made the file.
    pub(super) fn made_by(&self, version: &Version) -> bool {
        self.compiler == version.line && self.llvm == version.llvm
    }
}

/// The hash of all that a file is made from, compiler apart: the sources of the SIMT machine (without the
/// emulator, which never reaches the device, and without other backends) and of the unit, what they take from the
/// workspace's manifest, the flags, and the version of the post-processing. The order of files is that of their paths;
/// names and contents count.
pub(super) fn source_hash(root: &Path, backend: Backend, unit: &Unit, arch: u32) -> Result<String> {
    let mut files = Vec::new();
    for directory in ["simt", unit.directory] {
        files.push(root.join(directory).join("Cargo.toml"));
    }
    collect_sources(&root.join("simt/src"), &mut files)?;
    let sources = root.join(unit.directory).join("src");
    match unit.module {
        Some(module) => {
            files.push(sources.join("lib.rs"));
            collect_sources(&sources.join(module), &mut files)?;
        }
        None => collect_sources(&sources, &mut files)?,
    }
    if backend != Backend::Stock {
        collect(&root.join("gpu/rust-cuda"), &["rs", "toml"], &mut files)?;
    }
    let mut named: Vec<(String, PathBuf)> = files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(root).expect("the file was found below the root");
            (name.to_string_lossy().replace('\\', "/"), file)
        })
        .filter(|(name, _)| !name.starts_with("simt/src/emu") && backend.owns(name) != Some(false))
        .collect();
    named.sort();

    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(format!("post-processing {}", text::VERSION).as_bytes());
    backend.flags(arch).iter().for_each(|flag| add(flag.as_bytes()));
    build::PROFILE.iter().for_each(|(name, value)| add(format!("{name}={value}").as_bytes()));
    add(unit.features(arch).as_bytes());
    manifest_parts(root)?.iter().for_each(|part| add(part.as_bytes()));
    for (name, file) in named {
        add(name.as_bytes());
        add(&std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{digits}"))
}

/// The parts of the workspace's manifest that reach the compiler: the edition and the release profile. All
/// else in it (members, versions, lints, other profiles) does not.
fn manifest_parts(root: &Path) -> Result<Vec<String>> {
    let file = root.join("Cargo.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let (mut table, mut parts, mut has_edition) = ("", Vec::new(), false);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            table = line;
        }
        let edition = table == "[workspace.package]"
            && line.split_once('=').is_some_and(|(key, _)| key.trim() == "edition");
        has_edition |= edition;
        if edition || table.starts_with("[profile.release") {
            parts.push(line.to_string());
        }
    }
    ensure!(has_edition, "{} has no edition in [workspace.package]", file.display());
    Ok(parts)
}

fn collect_sources(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    collect(directory, &["rs"], files)
}

/// The files of a directory, with those below it, whose names have one of these extensions.
fn collect(directory: &Path, extensions: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.ends_with("target") {
            // Of a cargo that was run there by hand.
            continue;
        }
        if path.is_dir() {
            collect(&path, extensions, files)?;
        } else if path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Unit =
        Unit { package: "p", directory: "gpu", module: None, output: "host/ptx/p", entries: &[] };

    fn version() -> Version {
        Version { line: "rustc 1.96.0 (abc 2026-05-25)".into(), release: (1, 96), llvm: "22.1.8".into() }
    }

    #[test]
    fn what_the_header_says_can_be_read_back() {
        let ptx = format!(
            "{}.version 7.8\n",
            write(Backend::Stock, &UNIT, 90, &Compiler::from(&version()), "sha256:00ff")
        );
        let recorded = Recorded::parse(&ptx).unwrap();
        assert!(recorded.made_by(&version()));
        assert_eq!(recorded.sources, "sha256:00ff");
        assert!(!recorded.made_by(&Version { llvm: "22.1.9".into(), ..version() }));
        assert!(!recorded.made_by(&Version { line: "rustc 1.97.0".into(), ..version() }));
    }

    #[test]
    fn a_file_without_a_header_is_refused_with_the_missing_line() {
        let error = Recorded::parse(".version 7.8\n// compiler: too late\n").unwrap_err();
        assert!(error.to_string().contains("// compiler:"), "{error}");
    }

    const MANIFEST: &str = "[workspace.package]\nversion = \"1.0.0\"\nedition = \"2021\"\n\n\
        [profile.dev]\nopt-level = 1\n\n[profile.release]\n# why\npanic = \"unwind\"\n";

    /// A tree with one file of each kind; removed on drop.
    struct Tree(PathBuf);

    impl Tree {
        /// `name` keeps tests apart that are threads of one process.
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-hash-{name}-{}", std::process::id()));
            for directory in ["simt/src/emu", "gpu/src/topk"] {
                std::fs::create_dir_all(root.join(directory)).unwrap();
            }
            for file in [
                "simt/Cargo.toml",
                "simt/src/lib.rs",
                "simt/src/emu/mod.rs",
                "gpu/Cargo.toml",
                "gpu/src/lib.rs",
            ] {
                std::fs::write(root.join(file), file).unwrap();
            }
            std::fs::write(root.join("Cargo.toml"), MANIFEST).unwrap();
            Self(root)
        }

        fn hash(&self, arch: u32) -> String {
            source_hash(&self.0, Backend::Stock, &UNIT, arch).unwrap()
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.0.join(file), text).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the directory was made by this test");
        }
    }

    #[test]
    fn the_hash_follows_what_reaches_the_device_and_nothing_else() {
        let tree = Tree::new("kinds");
        let first = tree.hash(80);
        assert_eq!(first.len(), "sha256:".len() + 64);
        assert_eq!(first, tree.hash(80));
        assert_ne!(first, tree.hash(90));

        tree.write("simt/src/emu/mod.rs", "changed");
        tree.write("gpu/src/notes.txt", "not a source");
        assert_eq!(first, tree.hash(80));

        let unrelated = MANIFEST
            .replace("1.0.0", "1.0.1")
            .replace("opt-level = 1", "opt-level = 2")
            .replace("# why\n", "");
        tree.write("Cargo.toml", &unrelated);
        assert_eq!(first, tree.hash(80));
        for (old, new) in [("2021", "2024"), ("unwind", "abort")] {
            tree.write("Cargo.toml", &MANIFEST.replace(old, new));
            assert_ne!(first, tree.hash(80), "{new}");
        }
        tree.write("Cargo.toml", "[workspace]\n");
        let error = source_hash(&tree.0, Backend::Stock, &UNIT, 80).unwrap_err().to_string();
        assert!(error.contains("no edition"), "{error}");
        tree.write("Cargo.toml", MANIFEST);

        tree.write("gpu/src/topk/mod.rs", "");
        let with_new_file = tree.hash(80);
        assert_ne!(first, with_new_file);
        tree.write("gpu/Cargo.toml", "changed");
        assert_ne!(with_new_file, tree.hash(80));
    }

    #[test]
    fn the_hash_follows_the_own_backend_and_no_other() {
        let tree = Tree::new("backends");
        std::fs::create_dir_all(tree.0.join("gpu/rust-cuda/stand-in")).unwrap();
        let hash = |backend| source_hash(&tree.0, backend, &UNIT, 80).unwrap();
        let all = || [Backend::Stock, Backend::RustCuda, Backend::StandIn].map(hash);
        for (file, changed) in [
            ("simt/src/ptx.rs", [true, false, false]),
            ("simt/src/rust_cuda.rs", [false, true, true]),
            ("gpu/rust-cuda/Cargo.toml", [false, true, false]),
            ("gpu/rust-cuda/stand-in/Cargo.toml", [false, false, true]),
        ] {
            let before = all();
            tree.write(file, "changed");
            let after = all();
            for i in 0..3 {
                assert_eq!(before[i] != after[i], changed[i], "{file}, backend {i}");
            }
        }
    }

    #[test]
    fn the_hash_of_a_module_follows_nothing_of_its_siblings() {
        let tree = Tree::new("siblings");
        let topk = Unit { module: Some("topk"), ..UNIT };
        let hash = || source_hash(&tree.0, Backend::Stock, &topk, 80).unwrap();
        let first = hash();
        tree.write("gpu/src/sibling.rs", "");
        assert_eq!(first, hash());
        tree.write("gpu/src/topk/mod.rs", "");
        let with_new_file = hash();
        assert_ne!(first, with_new_file);
        tree.write("gpu/src/lib.rs", "changed");
        assert_ne!(with_new_file, hash());
    }
}
