//! The right answer of a compression: float64, one token at a time, dense state. It knows nothing of the kernels.
//!
//! What is kept of a token is rounded as the contract says: `s = score + ape` in f32, then `kv` and `s` to the
//! type of the state. The softmax over what is kept is computed in float64.
//!
//! # How exact an output must be
//! An f32 output is right when it is within [`TOLERANCE`] times the softmax-weighted mean of `|kv|` of the
//! reference. The output itself is no measure: where weighted values cancel, it may be of any size below that
//! mean. A bf16 output is right when it is what a right f32 output is rounded to, to nearest even: the reference
//! rounded, or, if that is near the middle of two numbers, its neighbour. That is within one bf16 ulp of the rounded
//! reference, but where values cancel so that an ulp is less than the tolerance.

use std::collections::BTreeMap;

use approx::abs_diff_eq;
use dsa_kernels::topk::ScoreType;
use dsa_kernels_gpu::compress::number::NumberType;

use crate::scores;

/// Largest error of an output, relative to the softmax-weighted mean of the magnitudes.
pub const TOLERANCE: f64 = 4e-6;

/// What is compressed: the ratio, the sizes, the types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Tokens of a window: 4, and windows overlap, or any other number, and they do not.
    pub ratio: usize,
    /// Channels of an output row.
    pub head_dim: usize,
    /// Type of the rows of new tokens.
    pub kv: NumberType,
    /// Type of the state.
    pub state: NumberType,
    /// Type of the output.
    pub output: NumberType,
}

impl Shape {
    /// Whether a window's softmax has the tokens of the window before in it, too.
    pub fn overlaps(&self) -> bool {
        self.ratio == 4
    }

    /// Columns of a state row.
    pub fn width(&self) -> usize {
        if self.overlaps() { 2 * self.head_dim } else { self.head_dim }
    }

    /// Windows that close when tokens `start..len` come.
    pub fn closing(&self, start: usize, len: usize) -> std::ops::Range<usize> {
        start / self.ratio..len / self.ratio
    }

    /// The positions whose state a request reads or writes when tokens `start..len` come.
    pub fn touched(&self, start: usize, len: usize) -> std::ops::Range<usize> {
        let closing = self.closing(start, len);
        let first = match closing.is_empty() {
            true => start,
            false if self.overlaps() => (closing.start * self.ratio).saturating_sub(self.ratio),
            false => closing.start * self.ratio,
        };
        first..len
    }
}

/// The type of scores that has the same numbers.
pub fn as_scores(kind: NumberType) -> ScoreType {
    match kind {
        NumberType::F32 => ScoreType::F32,
        NumberType::Bf16 => ScoreType::Bf16,
    }
}

/// `value` rounded to a type, to nearest even.
pub fn rounded(kind: NumberType, value: f32) -> f32 {
    scores::rounded(as_scores(kind), value)
}

/// Numbers as they lie in memory.
pub fn to_bytes(kind: NumberType, values: &[f32]) -> Vec<u8> {
    scores::to_bytes(as_scores(kind), values)
}

/// Numbers that lie in memory as `bytes`.
pub fn of_bytes(kind: NumberType, bytes: &[u8]) -> Vec<f32> {
    let kind = as_scores(kind);
    scores::bits_of_bytes(kind, bytes).into_iter().map(|bits| scores::value(kind, bits)).collect()
}

/// A softmax-weighted mean, one value at a time.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    max: f64,
    sum: f64,
    weighted: f64,
    magnitude: f64,
}

/// A finished one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pooled {
    /// The weighted mean of the values.
    pub value: f64,
    /// That of their magnitudes.
    pub magnitude: f64,
}

impl Default for Softmax {
    fn default() -> Self {
        Self { max: f64::NEG_INFINITY, sum: 0.0, weighted: 0.0, magnitude: 0.0 }
    }
}

impl Softmax {
    /// Adds a value with its score. A score of -inf adds nothing.
    pub fn push(&mut self, score: f32, value: f32) {
        let (score, value) = (f64::from(score), f64::from(value));
        if score == f64::NEG_INFINITY {
            return;
        }
        let max = self.max.max(score);
        let (old, new) = ((self.max - max).exp(), (score - max).exp());
        self.max = max;
        self.sum = self.sum * old + new;
        self.weighted = self.weighted * old + new * value;
        self.magnitude = self.magnitude * old + new * value.abs();
    }

    /// The mean; 0 when no score was above -inf.
    pub fn pooled(&self) -> Pooled {
        if self.sum == 0.0 {
            return Pooled { value: 0.0, magnitude: 0.0 };
        }
        Pooled { value: self.weighted / self.sum, magnitude: self.magnitude / self.sum }
    }
}

/// What is kept of a token, in numbers of the state's type.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its values.
    pub kv: Vec<f32>,
    /// Its scores with their bias.
    pub score: Vec<f32>,
}

impl Kept {
    /// What is kept of the token at `position`, whose row is `[kv (W) | score (W)]`.
    pub fn of(shape: &Shape, ape: &[f32], position: usize, row: &[f32]) -> Self {
        let width = shape.width();
        let bias = &ape[position % shape.ratio * width..][..width];
        let score = row[width..].iter().zip(bias).map(|(score, bias)| rounded(shape.state, score + bias));
        let kv = row[..width].iter().map(|&kv| rounded(shape.state, kv));
        Self { kv: kv.collect(), score: score.collect() }
    }
}

/// The kept tokens of one request, by position.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// The tokens.
    pub tokens: BTreeMap<usize, Kept>,
}

impl Sequence {
    /// The output row of window `window`.
    ///
    /// # Panics
    /// If one of its tokens is not there.
    pub fn window(&self, shape: &Shape, window: usize) -> Vec<Pooled> {
        let first = window * shape.ratio;
        let token = |position: usize| {
            self.tokens.get(&position).unwrap_or_else(|| panic!("token {position} was never written"))
        };
        let mut channels = vec![Softmax::default(); shape.head_dim];
        let mut push = |position: usize, columns: usize| {
            let Kept { kv, score } = token(position);
            for (channel, softmax) in channels.iter_mut().enumerate() {
                softmax.push(score[columns + channel], kv[columns + channel]);
            }
        };
        if shape.overlaps() {
            if window > 0 {
                (first - shape.ratio..first).for_each(|position| push(position, 0));
            }
            (first..first + shape.ratio).for_each(|position| push(position, shape.head_dim));
        } else {
            (first..first + shape.ratio).for_each(|position| push(position, 0));
        }
        channels.iter().map(Softmax::pooled).collect()
    }
}

/// A channel of an output row is wrong.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("channel {channel} is {got:e} ({bits:#010x}), not {value:e} (mean magnitude {magnitude:e})")]
pub struct WrongChannel {
    /// The first wrong channel.
    pub channel: usize,
    /// What is there.
    pub got: f32,
    /// Its bits.
    pub bits: u32,
    /// What should be.
    pub value: f64,
    /// The mean of the magnitudes, which the tolerance is relative to.
    pub magnitude: f64,
}

/// Whether `got` is right where the reference is `pooled`.
pub fn is_right(kind: NumberType, pooled: &Pooled, got: f32) -> bool {
    // Where magnitudes are below what f32 can divide by, its smallest normal number is exact enough.
    let epsilon = TOLERANCE * pooled.magnitude + f64::from(f32::MIN_POSITIVE);
    match kind {
        NumberType::F32 => abs_diff_eq!(f64::from(got), pooled.value, epsilon = epsilon),
        NumberType::Bf16 => {
            let nearest = |value: f64| rounded(kind, value as f32);
            (nearest(pooled.value - epsilon)..=nearest(pooled.value + epsilon)).contains(&got)
        }
    }
}

/// Checks an output row.
///
/// # Errors
/// The first wrong channel.
pub fn check_row(kind: NumberType, expected: &[Pooled], got: &[f32]) -> Result<(), WrongChannel> {
    assert_eq!(expected.len(), got.len(), "one number for each channel");
    let wrong =
        expected.iter().zip(got).enumerate().find(|(_, (pooled, got))| !is_right(kind, pooled, **got));
    wrong.map_or(Ok(()), |(channel, (&Pooled { value, magnitude }, &got))| {
        Err(WrongChannel { channel, got, bits: got.to_bits(), value, magnitude })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const LONG: Shape = Shape {
        ratio: 128,
        head_dim: 3,
        kv: NumberType::F32,
        state: NumberType::F32,
        output: NumberType::F32,
    };
    const SHORT: Shape = Shape { ratio: 4, ..LONG };

    /// Tokens `0..count` with random rows.
    fn sequence(shape: &Shape, ape: &[f32], count: usize) -> Sequence {
        let mut random = Random::new(5);
        let mut sequence = Sequence::default();
        for position in 0..count {
            let row: Vec<_> = (0..2 * shape.width()).map(|_| random.normal()).collect();
            sequence.tokens.insert(position, Kept::of(shape, ape, position, &row));
        }
        sequence
    }

    /// The softmax as a textbook has it.
    fn textbook(entries: &[(f32, f32)]) -> f64 {
        let max = entries.iter().map(|e| e.0).fold(f32::NEG_INFINITY, f32::max);
        let weight = |score: f32| f64::from(score - max).exp();
        let sum: f64 = entries.iter().map(|e| weight(e.0)).sum();
        entries.iter().map(|e| weight(e.0) * f64::from(e.1)).sum::<f64>() / sum
    }

    #[test]
    fn a_long_window_has_its_own_tokens() {
        let sequence = sequence(&LONG, &[0.25; 3 * 128], 300);
        let row = sequence.window(&LONG, 1);
        for (channel, pooled) in row.iter().enumerate() {
            let entries: Vec<_> = (128..256)
                .map(|t| (sequence.tokens[&t].score[channel], sequence.tokens[&t].kv[channel]))
                .collect();
            approx::assert_relative_eq!(pooled.value, textbook(&entries), max_relative = 1e-6);
        }
    }

    #[test]
    fn a_short_window_has_the_one_before_too_but_the_first_has_not() {
        let sequence = sequence(&SHORT, &[0.0; 24], 12);
        let entry =
            |t: usize, column: usize| (sequence.tokens[&t].score[column], sequence.tokens[&t].kv[column]);
        for channel in 0..3 {
            let first: Vec<_> = (0..4).map(|t| entry(t, 3 + channel)).collect();
            let third: Vec<_> =
                (4..8).map(|t| entry(t, channel)).chain((8..12).map(|t| entry(t, 3 + channel))).collect();
            let value = |window| sequence.window(&SHORT, window)[channel].value;
            approx::assert_relative_eq!(value(0), textbook(&first), max_relative = 1e-6);
            approx::assert_relative_eq!(value(2), textbook(&third), max_relative = 1e-6);
        }
    }

    #[test]
    fn the_bias_goes_by_the_position_in_the_window_and_is_added_before_rounding() {
        let shape = Shape { head_dim: 1, state: NumberType::Bf16, ..LONG };
        let ape: Vec<_> = (0..128).map(|r| r as f32).collect();
        let kept = Kept::of(&shape, &ape, 3 * 128 + 7, &[1.003, 0.004]);
        assert_eq!((kept.kv[0], kept.score[0]), (1.0, 7.0));
        let kept = Kept::of(&shape, &ape, 7, &[1.0, 0.02]);
        assert_eq!(kept.score[0], 7.03125, "7.02, rounded to a multiple of 2^-5");
    }

    #[test]
    fn windows_close_and_state_is_touched_where_the_contract_says() {
        assert_eq!((LONG.closing(126, 128), LONG.touched(126, 128)), (0..1, 0..128));
        assert_eq!((LONG.closing(128, 255), LONG.touched(128, 255)), (1..1, 128..255));
        assert_eq!((SHORT.closing(7, 13), SHORT.touched(7, 13)), (1..3, 0..13));
        assert_eq!((SHORT.closing(1, 4), SHORT.touched(1, 4)), (0..1, 0..4));
        assert_eq!(SHORT.touched(9, 11), 9..11);
    }

    #[test]
    fn scores_of_minus_infinity_weigh_nothing_and_huge_ones_do_not_overflow() {
        let mut softmax = Softmax::default();
        softmax.push(f32::NEG_INFINITY, 9.0);
        assert_eq!(softmax.pooled(), Pooled { value: 0.0, magnitude: 0.0 });
        for (score, value) in [(f32::NEG_INFINITY, 9.0), (1e4, 1.0), (1e4, 3.0), (-1e4, 100.0)] {
            softmax.push(score, value);
        }
        assert_eq!(softmax.pooled(), Pooled { value: 2.0, magnitude: 2.0 });
    }

    #[test]
    fn outputs_are_held_to_the_tolerance_of_their_type() {
        let pooled = Pooled { value: 0.5, magnitude: 1.0 };
        assert!(
            is_right(NumberType::F32, &pooled, 0.500_003) && !is_right(NumberType::F32, &pooled, 0.500_005)
        );
        assert!(
            !is_right(NumberType::F32, &pooled, f32::NAN) && !is_right(NumberType::Bf16, &pooled, f32::NAN)
        );
        // Between 0.5 and 0.50390625 lies the middle 0.501953125: near it, either is right.
        assert!(
            is_right(NumberType::Bf16, &pooled, 0.5) && !is_right(NumberType::Bf16, &pooled, 0.503_906_25)
        );
        let middle = Pooled { value: 0.501_953, magnitude: 1.0 };
        assert!(
            is_right(NumberType::Bf16, &middle, 0.5) && is_right(NumberType::Bf16, &middle, 0.503_906_25)
        );
        assert!(
            !is_right(NumberType::Bf16, &middle, 0.507_812_5) && !is_right(NumberType::Bf16, &middle, -0.5)
        );
        let cancelled = Pooled { value: 1e-7, magnitude: 1.0 };
        assert!(
            is_right(NumberType::Bf16, &cancelled, -1e-6) && !is_right(NumberType::Bf16, &cancelled, 1e-5)
        );
        let error = check_row(NumberType::F32, &[pooled, pooled], &[0.5, 0.6]).unwrap_err();
        assert_eq!(error.channel, 1);
    }
}
