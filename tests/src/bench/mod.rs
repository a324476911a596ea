//! The benchmark of the operators: what is run, how it is timed, how it is reported.
//!
//! The binary `benches/topk.rs` only reads arguments and strings these parts together:
//!
//! | module | what |
//! |---|---|
//! | [`shapes`] | the cells, in lists that have names |
//! | [`inputs`] | scores for the cells, generated on all cores |
//! | [`operator`] | the operator built for one cell, with its buffers; proof of its answer |
//! | [`chain`] | chains of launches in graphs, and which input each launch reads |
//! | [`measure`], [`diversion`] | criterion over GPU events, without its chatter |
//! | [`timed`], [`emulated`] | the two ways to run the cells: times on a GPU, counted work on the emulator |
//! | [`rival`], [`rivalry`] | other implementations: loading them, and timing them on the same inputs |
//! | [`compress`] | the cells of the compressor |
//! | [`report`], [`plot`] | `report.json`, `report.md`, the table, the SVG |
//! | [`baseline`] | a run against an older one |

pub mod baseline;
pub mod chain;
pub mod compress;
pub mod diversion;
pub mod emulated;
pub mod inputs;
pub mod measure;
pub mod operator;
pub mod plot;
pub mod report;
pub mod rival;
pub mod rivalry;
pub mod shapes;
mod table;
pub mod timed;
