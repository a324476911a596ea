//! What the tests and the benchmark of dsa-kernels share: an oracle that knows nothing of the kernels,
//! named score distributions, named shapes, the real rows, and the harness that runs one batch on any
//! backend.
//!
//! | module | what |
//! |---|---|
//! | [`oracle`] | the right answer of a row, by sorting on the CPU, and the check of a result against it |
//! | [`scores`] | scores of each type: rounding, bits, bytes |
//! | [`distribution`] | named generators of score rows, reproducible from a seed |
//! | [`shapes`] | named lists of batches and lengths |
//! | [`data`] | the score rows of a real model in `tests/data` |
//! | [`npy`] | typed reading and writing of `.npy` files |
//! | [`backend`] | the device the suite runs on, chosen by `DSA_BACKEND` |
//! | [`batch`] | a batch of rows with pitch, offset, lengths and garbage |
//! | [`harness`] | runs a batch on a device with poisoned outputs and dirty scratch, and checks it |
//! | [`compress`] | the same for the compressor: reference, batches, harness |
//! | [`mod@bench`] | the parts of the benchmark: cells, timing, report, plot |
//! | [`c_compiler`] | the C compiler of this machine |
//! | [`compress`] | references and raw launches for the compressor |
//! | [`random`] | the generator of pseudo-random numbers behind the distributions |

pub mod backend;
pub mod batch;
pub mod bench;
pub mod c_compiler;
pub mod compress;
pub mod data;
pub mod distribution;
pub mod harness;
pub mod npy;
pub mod oracle;
pub mod random;
pub mod scores;
pub mod shapes;

/// The code in the README, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
