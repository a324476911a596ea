//! What an operator is built for, and what a launch is given.

use std::fmt;
use std::str::FromStr;

use crate::{Element, Error};

/// How rows are selected.
///
/// Each row takes its path on the device, by its own length; rows with at most k elements are always trivial.
/// `Auto` is the one to use; `Sampled` may be faster for batches of a few long rows among short ones. The others are for
/// study: the paths it chooses from, each alone, and the paths of
/// vLLM's persistent top-k (PR 37421), which it replaces; those have none of the options and f32 scores only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// The fastest for the row's length: trivial up to k, then resident, sampled or cluster, as the plan says.
    #[default]
    Auto,
    /// All elements of the row; needs `max_len <= k`.
    Trivial,
    /// One block, the row in registers; needs `max_len <= 16377`.
    Resident,
    /// One block or several that do not wait for each other, the row read once, what passes a threshold
    /// guessed from a sample listed; any length (rows that fit in registers are kept there).
    Sampled,
    /// A cluster of blocks for each row, which keep it in their registers together; needs compute capability 9.0. Any
    /// length, but beyond 16,384 elements for each block of the largest cluster it is read several times.
    Cluster,
    /// vLLM's decode path: one block of 1,024 threads, the row in registers; needs `max_len <= 8192`.
    Decode,
    /// vLLM's medium path: one block, the row read twice; any length.
    Medium,
    /// vLLM's large path: several blocks per row, which wait for each other; needs cooperative launches. Any length.
    Large,
}

/// A choice with names, for command lines and other languages.
macro_rules! named {
    ($type:ident, $argument:literal, $( $variant:ident = $name:literal ),+) => {
        impl $type {
            /// All choices.
            pub const ALL: &[Self] = &[ $( Self::$variant ),+ ];

            /// The name, which [`FromStr`] takes.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name ),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                Self::ALL.iter().copied().find(|choice| choice.name() == name).ok_or_else(|| {
                    let names = [ $( $name ),+ ].join(", ");
                    Error::argument($argument, name, format!("one of {names}"), "choose one of them")
                })
            }
        }
    };
}

/// Which of several equal scores are selected when not all of them are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ties {
    /// Any of them.
    #[default]
    Any,
    /// Those with the lowest indices.
    LowestIndex,
}

/// The order of the indices in an output row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Any order.
    #[default]
    Any,
    /// Ascending. With [`Ties::LowestIndex`] the output depends on the scores alone: it is the same from run
    /// to run, in every batch and on every device.
    AscendingIndex,
}

/// The type of the scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ScoreType {
    /// `f32`.
    #[default]
    F32,
    /// IEEE half precision, `half::f16`.
    F16,
    /// `half::bf16`.
    Bf16,
}

named!(
    Path,
    "path",
    Auto = "auto",
    Trivial = "trivial",
    Resident = "resident",
    Sampled = "sampled",
    Cluster = "cluster",
    Decode = "decode",
    Medium = "medium",
    Large = "large"
);
named!(Ties, "ties", Any = "any", LowestIndex = "lowest-index");
named!(Order, "order", Any = "any", AscendingIndex = "ascending-index");
named!(ScoreType, "score type", F32 = "f32", F16 = "f16", Bf16 = "bf16");

impl ScoreType {
    /// Bytes of a score.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A number that scores may be.
pub trait Score: Element + sealed::Sealed {
    /// Its type.
    const TYPE: ScoreType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! scores {
    ($($number:ty = $type:ident),+) => {$(
        impl sealed::Sealed for $number {}
        impl Score for $number {
            const TYPE: ScoreType = ScoreType::$type;
        }
    )+};
}
scores!(f32 = F32, half::f16 = F16, half::bf16 = Bf16);

/// What an operator is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Elements wanted of each row, `1..=4096`.
    pub k: u32,
    /// Most rows of a launch.
    pub max_rows: u32,
    /// Longest valid prefix of a row, in elements; longer lengths are clamped to it.
    pub max_len: u32,
    /// Rows per sequence (multi-token prediction), at least 1.
    ///
    /// Row `s * next_n + j` has the length `(lengths[s] - next_n + 1 + j) / compress_ratio`, rounded down.
    pub next_n: u32,
    /// What lengths are divided by, at least 1.
    pub compress_ratio: u32,
    /// The type of the scores.
    pub scores: ScoreType,
    /// Which of several equal scores are selected.
    pub ties: Ties,
    /// The order of the output.
    pub order: Order,
    /// Whether launches also write the selected scores: the very bits of the score at each index, then -inf.
    pub values: bool,
    /// How rows are selected.
    pub path: Path,
    /// Most multiprocessors that a launch may take; `None` for all.
    pub max_sms: Option<u32>,
    /// Whether launches may start while the launch before them on the stream is still running. They wait for
    /// its end before they touch device memory: results are the same, launches follow each other faster.
    /// Where that is possible, see [`LaunchConfig::overlap`](crate::LaunchConfig::overlap). Kernels of others that
    /// are launched with programmatic serialization on the same stream must execute the wait, too: one that does
    /// not would let a later launch of this operator start before an earlier one has ended.
    pub overlap: bool,
}

impl Limits {
    /// What an operator is built for unless something else is said: `k` of rows of up to 131,072 f32 scores,
    /// one row at a time.
    pub const fn of(k: u32) -> Self {
        Self {
            k,
            max_rows: 1,
            max_len: 131_072,
            next_n: 1,
            compress_ratio: 1,
            scores: ScoreType::F32,
            ties: Ties::Any,
            order: Order::Any,
            values: false,
            path: Path::Auto,
            max_sms: None,
            overlap: true,
        }
    }
}

/// The arguments of one launch, as device addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopKArgs {
    /// Scores of the operator's type, `[rows, pitch]`, aligned to a score. Of row `r`, at least `max_len` from
    /// score `r * pitch` on are readable.
    pub scores: u64,
    /// Distance between rows in elements, at least `max_len`.
    pub pitch: u64,
    /// Number of rows, a multiple of `next_n`.
    pub rows: u32,
    /// `i32[rows / next_n]`, aligned to 4 bytes.
    pub lengths: u64,
    /// `i32[rows, k]`, aligned to 4 bytes.
    pub out: u64,
    /// `[rows, k]` of the operator's type, aligned to a score, if the operator was built with values; else 0.
    pub values: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_by_their_names() {
        for path in Path::ALL {
            assert_eq!(path.name().parse::<Path>().unwrap(), *path);
        }
        assert!("fast".parse::<Path>().unwrap_err().to_string().contains("auto, trivial"));
    }
}
