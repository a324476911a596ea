//! Stands in for rust-cuda's `cuda_std_macros`: the one attribute that the kernels use.

use proc_macro::{TokenStream, TokenTree};

/// Makes an unsafe function without a result an entry point, under its own name.
///
/// For stock `rustc`: where rust-cuda marks the function for its code generator, this gives it the ABI `ptx-kernel`.
#[proc_macro_attribute]
pub fn kernel(arguments: TokenStream, item: TokenStream) -> TokenStream {
    assert!(arguments.is_empty(), "the kernels pass no arguments to #[kernel]");
    let mut marked: TokenStream = "#[unsafe(no_mangle)]".parse().expect("an attribute");
    let abi: TokenStream = "extern \"ptx-kernel\"".parse().expect("an ABI");
    let (mut is_unsafe, mut is_function) = (false, false);
    for token in item {
        if let (TokenTree::Ident(word), false) = (&token, is_function) {
            is_unsafe |= word.to_string() == "unsafe";
            if word.to_string() == "fn" {
                is_function = true;
                marked.extend(abi.clone());
            }
        }
        marked.extend([token]);
    }
    assert!(is_function, "#[kernel] is for functions");
    assert!(is_unsafe, "a kernel is an unsafe function");
    marked
}
