//! The header and the library say the same.

use std::collections::BTreeSet;

use crate::status::Status;
use crate::version::VERSION;

const HEADER: &str = include_str!("../include/dsa_kernels.h");
const SOURCES: &[&str] = &[
    include_str!("status.rs"),
    include_str!("version.rs"),
    include_str!("device.rs"),
    include_str!("topk.rs"),
    include_str!("compress.rs"),
];

/// The names before an opening bracket that begin with `prefix`.
fn functions<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    text.lines()
        .filter_map(|line| {
            let (_, from_name) = line.split_once(prefix)?;
            from_name.split_once('(').map(|(name, _)| name)
        })
        .collect()
}

/// The number that the header gives a constant.
pub(crate) fn constant(name: &str) -> Option<i64> {
    HEADER.lines().find_map(|line| {
        let line = line.replace(['=', ',', '(', ')'], " ");
        let mut words = line.split_whitespace();
        words.find(|&word| word == name)?;
        words.next()?.parse().ok()
    })
}

#[test]
fn every_exported_function_is_declared_and_every_declared_one_is_exported() {
    let code = HEADER.split_once("extern \"C\" {").unwrap().1;
    let declared: BTreeSet<_> = code
        .lines()
        .filter(|line| line.starts_with("dsa_status dsa_") || line.starts_with("const char *dsa_"))
        .chain(code.lines().filter(|line| line.starts_with("uint32_t dsa_")))
        .filter_map(|line| line.split_once("dsa_").map(|(_, rest)| rest))
        .map(|rest| rest.trim_start_matches("status dsa_").split_once('(').unwrap().0)
        .collect();
    let exported: BTreeSet<_> =
        SOURCES.iter().flat_map(|source| functions(source, "extern \"C\" fn dsa_")).collect();
    assert_eq!(declared, exported);
    assert!(
        declared.contains("topk_enqueue")
            && declared.contains("compressor_create")
            && declared.contains("last_error"),
        "{declared:?}"
    );
}

#[test]
fn versions_and_status_codes_are_the_same() {
    let names = ["DSA_VERSION_MAJOR", "DSA_VERSION_MINOR", "DSA_VERSION_PATCH"];
    assert_eq!(names.map(constant), VERSION.map(|number| Some(i64::from(number))));
    for (name, status) in [
        ("DSA_OK", Status::Ok),
        ("DSA_INVALID_ARGUMENT", Status::InvalidArgument),
        ("DSA_NO_DEVICE", Status::NoDevice),
        ("DSA_OUT_OF_MEMORY", Status::OutOfMemory),
        ("DSA_WORKSPACE_TOO_SMALL", Status::WorkspaceTooSmall),
        ("DSA_DURING_CAPTURE", Status::DuringCapture),
        ("DSA_NO_KERNEL", Status::NoKernel),
        ("DSA_DEVICE_FAILED", Status::DeviceFailed),
        ("DSA_INTERNAL", Status::Internal),
    ] {
        assert_eq!(constant(name), Some(status as i64), "{name}");
    }
    assert_eq!(constant("DSA_CURRENT_CONTEXT"), Some(-1));
}
