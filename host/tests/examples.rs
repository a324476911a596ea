//! Every example prints what its documentation says: on the emulator, and with `DSA_BACKEND=gpu` on a GPU.
//!
//! This program is all examples in one, so that they can be run on a machine without cargo: `examples run 01_topk`. Each
//! is tested in a process of its own, by what it prints there.

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// An example.
struct Example {
    file: &'static str,
    text: &'static str,
    main: fn() -> Result<(), Box<dyn std::error::Error>>,
}

/// The examples as modules, and the list of them.
macro_rules! examples {
    ($($module:ident = $path:literal),+ $(,)?) => {
        $(
            #[path = $path]
            mod $module;
        )+
        const EXAMPLES: &[Example] =
            &[$(Example { file: $path, text: include_str!($path), main: $module::main }),+];
    };
}
examples! {
    topk = "../examples/01_topk.rs",
    cuda_graph = "../examples/02_cuda_graph.rs",
    shared_workspace = "../examples/03_shared_workspace.rs",
    bring_your_own_driver = "../examples/04_bring_your_own_driver.rs",
    mtp_batches = "../examples/05_mtp_batches.rs",
    compressor = "../examples/06_compressor.rs",
}

impl Example {
    /// The name of the program.
    fn name(&self) -> &'static str {
        self.file.trim_start_matches("../examples/").trim_end_matches(".rs")
    }

    /// What it prints, by its documentation: the first block of text.
    fn documented(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        let block = lines.skip_while(|line| *line != " ```text").skip(1).take_while(|line| *line != " ```");
        block.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
    }

    /// Runs it in a process of its own, and compares.
    fn check(&self, on_gpu: bool) -> Result<(), Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", self.name()]);
        if !on_gpu {
            command.env("CUDA_VISIBLE_DEVICES", "");
        }
        let output = command.output()?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        if !output.status.success() {
            return Err(format!("{}\n{stderr}", output.status).into());
        }
        if stderr.contains("on the emulator:") == on_gpu {
            return Err(format!("asked for a GPU: {on_gpu}, but the example says {stderr:?}").into());
        }
        if stdout != self.documented() {
            let documented = self.documented();
            return Err(format!("it prints\n{stdout}\nits documentation says\n{documented}").into());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [run, name] = &words[..]
        && run == "run"
    {
        return match EXAMPLES.iter().find(|example| example.name() == name).map(|example| (example.main)()) {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
            None => {
                let names: Vec<_> = EXAMPLES.iter().map(Example::name).collect();
                eprintln!("error: the example is {name:?}, but must be one of {}", names.join(", "));
                ExitCode::FAILURE
            }
        };
    }
    let on_gpu = match std::env::var("DSA_BACKEND").as_deref() {
        Err(_) | Ok("" | "emulator") => false,
        Ok("gpu") => true,
        Ok(other) => {
            eprintln!("error: DSA_BACKEND is {other:?}; set it to emulator or gpu");
            return ExitCode::FAILURE;
        }
    };
    let every_file_is_listed = Trial::test("every_example_is_tested", || {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
        // There are no sources where programs are staged.
        let Ok(files) = std::fs::read_dir(folder) else { return Ok(()) };
        for file in files {
            let name = file?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".rs") && !EXAMPLES.iter().any(|example| example.file.ends_with(&name)) {
                return Err(format!("{name} is not in the list of this test").into());
            }
        }
        Ok(())
    });
    let tests = EXAMPLES.iter().map(|example| Trial::test(example.name(), move || example.check(on_gpu)));
    libtest_mimic::run(&Arguments::from_args(), tests.chain([every_file_is_listed]).collect()).exit_code()
}
