//! The cells of the compressor.
//!
//! | module | what |
//! |---|---|
//! | [`cells`] | what is run, in lists |
//! | [`sets`] | the device memory of a cell, as often as launches are to find it cold |
//! | [`operator`] | the launches of a cell, and the proof of what they did |
//! | [`run`] | on a GPU times hot and cold, beside the bandwidth of a copy; on the emulator exactness alone |

pub mod cells;
pub mod operator;
pub mod run;
pub mod sets;
