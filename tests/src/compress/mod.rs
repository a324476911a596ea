//! What the tests and the benchmark of the compressor share.
//!
//! | module | what |
//! |---|---|
//! | [`reference`](mod@reference) | the mathematics in float64, one token at a time, on dense state; the check of an output row |
//! | [`batch`] | requests in paged pools: what a launch is given, and what must be there afterwards |
//! | [`harness`] | runs launches on a device, with everything around them hostile, and checks every byte |
//! | [`post_reference`] | what is done to compressed rows, in float64 |
//! | [`raw`] | launches of kernels by their names |

pub mod batch;
pub mod harness;
pub mod post_reference;
pub mod raw;
pub mod reference;
