//! The indices of the k largest scores of each row, exactly, in one fixed launch.
//!
//! [`Plan`] turns limits and device properties into a launch, without CUDA; [`TopK`] is the operator that
//! owns what a launch needs and enqueues it. See [`TopK`] for the contract.

mod clusters;
mod limits;
mod operator;
mod plan;

pub use limits::{Limits, Order, Path, Score, ScoreType, Ties, TopKArgs};
pub use operator::{TopK, TopKBuilder};
pub use plan::Plan;

pub use crate::Slots;
