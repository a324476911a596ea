//! The version of the library.

use std::ffi::{CStr, c_char};

const fn number(digits: &str) -> u32 {
    let (digits, mut value, mut at) = (digits.as_bytes(), 0, 0);
    while at < digits.len() {
        value = 10 * value + (digits[at] - b'0') as u32;
        at += 1;
    }
    value
}

/// Major, minor and patch version.
pub const VERSION: [u32; 3] = [
    number(env!("CARGO_PKG_VERSION_MAJOR")),
    number(env!("CARGO_PKG_VERSION_MINOR")),
    number(env!("CARGO_PKG_VERSION_PATCH")),
];

const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => panic!("a version holds no NUL"),
};

/// `10000 * major + 100 * minor + patch`.
#[unsafe(no_mangle)]
pub extern "C" fn dsa_version() -> u32 {
    10_000 * VERSION[0] + 100 * VERSION[1] + VERSION[2]
}

/// As in `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn dsa_version_string() -> *const c_char {
    TEXT.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_and_the_text_agree() {
        let [major, minor, patch] = VERSION;
        assert_eq!(TEXT.to_str().unwrap(), format!("{major}.{minor}.{patch}"));
        assert_eq!(dsa_version(), major * 10_000 + minor * 100 + patch);
        assert_eq!(number("1207"), 1207);
    }
}
