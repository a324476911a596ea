//! The indices of the k largest scores of each row.
//!
//! # Contract
//! Scores are f32, f16 or bf16 ([`element`]), row `r` at `scores + r * pitch`, aligned to a score. Its valid
//! prefix has `clamp(lengths, 0, max_len)` elements; of what lies behind it, up to `max_len`, nothing is selected,
//! whatever it is. The output row has k entries: the indices of the `min(k, len)` largest elements, each once, then
//! -1. Of equal scores any may be taken, or those with the lowest indices; the order is any, or that of the indices
//! ([`Options`]). On request the scores at these indices are written, too, then -inf. NaN ranks below every number;
//! -0.0 equals +0.0. The result is exact for every input.
//!
//! # The paths
//! | rows with | path | blocks per row | reads of the row |
//! |---|---|---|---|
//! | `len <= k` | [`trivial`] | 1 | none |
//! | `len <= 16,377` | [`resident`] | 1 | one, kept in registers |
//! | more | [`sampled`] | one or several | one |
//! | `len` above 8,192, in a launch of clusters | [`mod@cluster`] | a cluster | one, kept in registers |
//! | slices above 16,384 there | [`sampled_cluster`] | a cluster | one |
//!
//! Each row takes its path on the device, from its own length ([`auto`]). [`division`] says which blocks work on
//! it. Launches of rows that are all short have a kernel of their own ([`short`]), and so have launches of clusters: for
//! few rows of up to 262,144 elements, or so many longer ones that their clusters keep the device busy; the host's plan
//! decides. Each of these kernels there is for rows in any order and for those in the order of the indices, those
//! of clusters also for slices that are held and for slices that are streamed (`entries.rs` says why). The paths of
//! vLLM's persistent top-k (PR 37421), [`decode`], [`medium`] and [`large`], are kept for comparison ([`origin`]).
//! The algorithms are described in their files.

pub mod ahead;
pub mod ascending;
pub mod auto;
pub mod bins;
pub mod candidates;
pub mod cluster;
pub mod coarse;
pub mod crowded;
pub mod decode;
pub mod division;
pub mod element;
pub mod half;
pub mod histogram;
pub mod key;
pub mod large;
pub mod list;
pub mod medium;
pub mod origin;
pub mod output;
pub mod prefix;
pub mod radix;
pub mod refine;
pub mod resident;
pub mod row;
pub mod runs;
pub mod sampled;
pub mod sampled_cluster;
pub mod schedule;
pub mod scores;
pub mod short;
pub mod slab;
pub mod source;
pub mod state;
pub mod stream;
pub mod team;
pub mod trivial;

mod entries;

#[cfg(not(target_arch = "nvptx64"))]
pub use entries::ENTRIES;
pub use entries::*;

use dsa_simt::{Global, opaque};

use element::Element;

/// What the output holds behind the last index of a row.
pub const EMPTY: i32 = -1;
/// Largest k.
pub const MAX_K: u32 = 4096;

/// Longest row that is kept in registers wherever it starts; if that is at an address aligned to 16 bytes, it
/// may be [`RESIDENT_PLACES`] long.
pub const RESIDENT_MAX_LEN: u32 = RESIDENT_PLACES - 7;
/// Elements of the vectors that a block keeps in registers.
pub const RESIDENT_PLACES: u32 = 16_384;
/// A row has at most one slice for each so many elements: a tile of two vectors for each thread, if they are f32.
pub const MIN_SLICE: u32 = 4096;

/// What an output row is like, beyond being right. The order is that of the entry point, and known to the compiler.
#[derive(Clone, Copy)]
pub struct Options {
    bits: u32,
    is_ascending: bool,
}

impl Options {
    /// Of equal scores, those with the lowest indices are selected.
    pub const LOWEST_INDICES: u32 = 1;

    /// Indices in any order, and the options that are set in `bits`.
    #[inline(always)]
    pub const fn any_order(bits: u32) -> Self {
        Self { bits, is_ascending: false }
    }

    /// Indices that ascend, and the options that are set in `bits`.
    #[inline(always)]
    pub const fn ascending(bits: u32) -> Self {
        Self { bits, is_ascending: true }
    }

    /// Whether [`LOWEST_INDICES`](Self::LOWEST_INDICES) is set.
    #[inline(always)]
    pub const fn lowest_indices(self) -> bool {
        self.bits & Self::LOWEST_INDICES != 0
    }

    /// Whether, of equal scores, any may be taken, and in any order.
    #[inline(always)]
    pub const fn are_none(self) -> bool {
        !self.is_ascending && !self.lowest_indices()
    }

    /// Whether indices ascend.
    #[inline(always)]
    pub const fn is_ascending(self) -> bool {
        self.is_ascending
    }
}

/// The rows of a launch.
///
/// What is said of the fields is what a launcher promises, with two things more: nothing but the launch
/// writes any of the memory while it runs, and the launch has the grid, block and shared memory that its
/// entry point asks for.
#[derive(Clone, Copy)]
pub struct Batch<E: Element> {
    /// First element of the first row, aligned to an element. `max_len` elements of each row are readable.
    pub scores: *const E::Raw,
    /// Distance between rows, in elements; at least `max_len`.
    pub pitch: u64,
    /// `i32[ceil(rows / next_n)]`, aligned to 4 bytes, with any contents: lengths, or sequence lengths if
    /// `next_n` or `compress_ratio` is above 1.
    pub lengths: *const i32,
    /// `i32[rows, k]`, aligned to 4 bytes.
    pub out: *mut i32,
    /// Scores `[rows, k]`, aligned to an element; or null.
    pub values: *mut E::Raw,
    /// Number of rows, at most `i32::MAX`.
    pub rows: u32,
    /// Longest valid prefix, at most `i32::MAX`; longer lengths are clamped.
    pub max_len: u32,
    /// Elements wanted of each row, `1..=`[`MAX_K`].
    pub k: u32,
    /// Rows per sequence, at least 1: row `s * next_n + j` has `lengths[s] - next_n + 1 + j` elements.
    pub next_n: u32,
    /// What that length is divided by, at least 1.
    pub compress_ratio: u32,
}

impl<E: Element> Batch<E> {
    /// The valid length of a row.
    #[inline(always)]
    pub fn len(&self, row: u32) -> u32 {
        self.valid(row, self.length(row))
    }

    /// What is in `lengths` for a row.
    #[inline(always)]
    fn length(&self, row: u32) -> i32 {
        self.length_of(self.sequence(row))
    }

    /// The sequence of a row: where its length is in `lengths`.
    #[inline(always)]
    fn sequence(&self, row: u32) -> u32 {
        // At least 1, as promised; said again, or the compiler would have the division by it checked.
        let next_n = self.next_n.max(1);
        if next_n == 1 { row } else { row / next_n }
    }

    /// What is in `lengths` for a sequence.
    #[inline(always)]
    fn length_of(&self, sequence: u32) -> i32 {
        let next_n = self.next_n.max(1);
        // SAFETY: the launcher promises a length for every row.
        let lengths = unsafe { Global::from_raw(self.lengths, self.rows.div_ceil(next_n) as usize) };
        // Not `get_readonly`: what is known not to change, the assembler may read ahead of the wait for the launch that
        // writes it.
        lengths.get(sequence as usize)
    }

    /// The valid length of a row for which `length` is in `lengths`.
    #[inline(always)]
    fn valid(&self, row: u32, length: i32) -> u32 {
        // As in `sequence`.
        let (next_n, compress_ratio) = (self.next_n.max(1), self.compress_ratio.max(1));
        if next_n == 1 && compress_ratio == 1 {
            return (length.max(0).cast_unsigned()).min(self.max_len);
        }
        // 64 bits: a length near the ends of i32 must not wrap.
        let len = i64::from(length) - i64::from(next_n) + 1 + i64::from(row % next_n);
        let len = len.clamp(0, i64::from(u32::MAX)) as u32 / compress_ratio;
        len.min(self.max_len)
    }

    /// The first `len` scores of a row, its valid length.
    #[inline(always)]
    fn scores(&self, row: u32, len: u32) -> E::Array {
        self.scores_at(self.row_start(row), len)
    }

    /// The address of the first score of a row.
    #[inline(always)]
    fn row_start(&self, row: u32) -> *const E::Raw {
        // SAFETY: the launcher promises `max_len` readable elements of every row.
        unsafe { self.scores.add(row as usize * self.pitch as usize) }
    }

    /// [`scores`](Self::scores) of the row that begins at `start`.
    #[inline(always)]
    fn scores_at(&self, start: *const E::Raw, len: u32) -> E::Array {
        // SAFETY: the launcher promises `max_len` readable elements of every row, and `len` is at most that;
        // nothing writes them during the launch.
        unsafe { E::array(start, len as usize) }
    }

    /// The output of a row.
    #[inline(always)]
    fn out_row(&self, row: u32) -> Global<i32> {
        // SAFETY: the launcher promises room for k indices for every row.
        unsafe { Global::from_raw(self.out.add(row as usize * self.k as usize), self.k as usize) }
    }

    /// The place for the selected scores of a row, if they are asked for.
    #[inline(always)]
    fn values_row(&self, row: u32) -> Option<E::Array> {
        if self.values.is_null() {
            return None;
        }
        // SAFETY: the launcher promises room for k scores for every row.
        Some(unsafe { E::array(self.values.add(row as usize * self.k as usize), self.k as usize) })
    }
}

/// A length that is not looked at before what comes before this is on its way, and is on its own way before what comes after.
#[inline(always)]
fn opaque_length(length: i32) -> i32 {
    opaque(length.cast_unsigned()).cast_signed()
}

/// The condition of a branch whose code is to lie behind that of the other one, because it is rare. The assembler puts what
/// follows `else` first, unless the optimiser turns the condition round: so it is none that it can see through.
#[inline(always)]
fn comes_last(condition: bool) -> bool {
    const YES: u32 = 2;
    opaque(if condition { YES } else { 0 }) >= YES
}
