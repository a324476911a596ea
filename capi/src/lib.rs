//! The C ABI: `include/dsa_kernels.h`, which is its documentation, as a shared and a static library.
//!
//! | module | what |
//! |---|---|
//! | [`status`] | status codes, the last error message, and the guard that no panic passes |
//! | [`argument`] | checks of what C passes: pointers, ranges |
//! | [`device`] | devices and their memory: `dsa_device_*`, `dsa_buffer_*`, `dsa_stream_synchronize` |
//! | [`config`] | `dsa_topk_config` |
//! | [`topk`] | the operator: `dsa_topk_*` |
//! | [`compress`] | the operator: `dsa_compressor_*`, with its structs |
//! | [`versioned`] | structs that may grow |
//! | [`version`] | `dsa_version*` |
//!
//! A crate of its own, because the type of a crate cannot depend on a feature: as a part of `dsa-kernels`,
//! every build of that crate, also as a dependency of somebody else's program, would link a shared library,
//! and cargo gives libraries of this type no hash in their names, so that builds with different features
//! would overwrite each other. It uses the public interface of `dsa-kernels` only.
//!
//! Every function is `catch` around safe code that returns a `Result`; raw pointers are turned into
//! references in [`argument`] alone.

pub mod argument;
pub mod compress;
pub mod config;
pub mod device;
pub mod status;
pub mod topk;
pub mod version;
pub mod versioned;

#[cfg(test)]
mod header;
