//! A softmax in progress, for each of a thread's channels: the largest score so far, the sum of the weights relative to
//! it, and the sum of the values times their weights.
//!
//! Weights are `exp2((score - largest) log2(e))`: the difference first. Folding the factor into the score saves an
//! instruction, but then the rounding of a large score is an error of the weight. A score of -inf has weight 0; if all
//! scores are, so is the result. A score of NaN or +inf makes it NaN.

use dsa_simt::{exp2, fma, warp};

use super::number::{Channels, MAX_CHANNELS, Number, each_channel};
use super::tokens::Entry;

/// The softmax of a thread's channels.
#[derive(Clone, Copy)]
pub struct Softmax {
    /// Largest score.
    pub largest: Channels,
    /// Sum of the weights.
    pub sum: Channels,
    /// Sum of the weighted values.
    pub value: Channels,
}

/// What weights are relative to: the largest score, if any entry has weight.
#[inline(always)]
pub fn base(largest: f32) -> f32 {
    if largest == f32::NEG_INFINITY { 0.0 } else { largest }
}

/// The weight of a score.
#[inline(always)]
pub fn weight(score: f32, base: f32) -> f32 {
    exp2((score - base) * core::f32::consts::LOG2_E)
}

/// The weighted mean: 0 if nothing has weight.
#[inline(always)]
pub fn mean(value: f32, sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { value / sum }
}

impl Softmax {
    /// That of no entries.
    pub const EMPTY: Self = Self {
        largest: [f32::NEG_INFINITY; MAX_CHANNELS],
        sum: [0.0; MAX_CHANNELS],
        value: [0.0; MAX_CHANNELS],
    };

    /// That of some entries.
    #[inline(always)]
    pub fn of<S: Number, const N: usize>(entries: &[Entry; N]) -> Self {
        let mut softmax = Self::EMPTY;
        each_channel!(S, c => {
            let mut largest = S::number(entries[0].score, c);
            let mut e = 1;
            while e < N {
                largest = largest.max(S::number(entries[e].score, c));
                e += 1;
            }
            let base = base(largest);
            let mut sum = weight(S::number(entries[0].score, c), base);
            let mut value = sum * S::number(entries[0].kv, c);
            let mut e = 1;
            while e < N {
                let weight = weight(S::number(entries[e].score, c), base);
                sum += weight;
                value = fma(weight, S::number(entries[e].kv, c), value);
                e += 1;
            }
            softmax.largest[c] = largest;
            softmax.sum[c] = sum;
            softmax.value[c] = value;
        });
        softmax
    }

    /// Adds entries: the largest score of all of them first, so that what was there is rescaled once.
    #[inline(always)]
    pub fn add<S: Number, const N: usize>(&mut self, entries: &[Entry; N]) {
        each_channel!(S, c => {
            let mut largest = self.largest[c];
            let mut e = 0;
            while e < N {
                largest = largest.max(S::number(entries[e].score, c));
                e += 1;
            }
            let base = base(largest);
            let scale = weight(self.largest[c], base);
            let (mut sum, mut value) = (self.sum[c] * scale, self.value[c] * scale);
            let mut e = 0;
            while e < N {
                let weight = weight(S::number(entries[e].score, c), base);
                sum += weight;
                value = fma(weight, S::number(entries[e].kv, c), value);
                e += 1;
            }
            self.largest[c] = largest;
            self.sum[c] = sum;
            self.value[c] = value;
        });
    }

    /// Merges the softmaxes of the lanes whose numbers are the same modulo `stride`, a power of two. All lanes get it.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn merge_lanes<S: Number>(&mut self, stride: u32) {
        if stride == warp::SIZE {
            return;
        }
        each_channel!(S, c => {
            let mut largest = self.largest[c];
            let mut bits = stride;
            while bits < warp::SIZE {
                largest = largest.max(warp::shuffle_xor(warp::ALL, largest, bits));
                bits *= 2;
            }
            let scale = weight(self.largest[c], base(largest));
            let (mut sum, mut value) = (self.sum[c] * scale, self.value[c] * scale);
            let mut bits = stride;
            while bits < warp::SIZE {
                sum += warp::shuffle_xor(warp::ALL, sum, bits);
                value += warp::shuffle_xor(warp::ALL, value, bits);
                bits *= 2;
            }
            self.largest[c] = largest;
            self.sum[c] = sum;
            self.value[c] = value;
        });
    }
}
