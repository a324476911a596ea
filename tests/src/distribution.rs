//! Named generators of score rows, reproducible from a seed.
//!
//! Each is here because some top-k kernel got it wrong or slow: crowded bins, ties at the threshold,
//! values outside fp16, orderings that put all maxima into one block's slice.

use std::fmt;
use std::str::FromStr;

use crate::data::{self, DataError};
use crate::random::Random;

/// A way to fill score rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Standard normal.
    Normal,
    /// Uniform in [0, 1).
    Uniform,
    /// 10 + 0.001 u: few fp16 values, so few coarse bins.
    Narrow,
    /// One value everywhere.
    AllEqual,
    /// Two values, one in 64 the larger: the threshold is in a huge tie on either side.
    TwoValues,
    /// Strictly increasing.
    SortedUp,
    /// Strictly decreasing.
    SortedDown,
    /// Normal, rounded to multiples of 1/8.
    Quantised,
    /// Normal below its mean of -0.5 cut to zero: about 69 % zeros.
    ReluZeros,
    /// Normal with one in 16 each +inf and -inf, and values above fp16's range.
    Infinities,
    /// Normal with one in 8 a NaN of either sign and any payload.
    NanMixed,
    /// Only NaN, of either sign and any payload.
    NanOnly,
    /// -0.0 and +0.0 at random, one in 512 a small number of either sign.
    SignedZeros,
    /// Subnormal numbers of either sign.
    Denormals,
    /// Cauchy: spans most of the exponents of f32.
    HeavyTail,
    /// Normal, with the last 4096 (or half) elements 16 higher: all winners in the last slice.
    MaximaAtEnd,
    /// Repeats every 1024 elements: all threads of a strided loop see the same values.
    StridePeriod,
    /// 1 + u/1024: all values within one fp16 step of each other.
    OneHalfBin,
    /// Random bits: every class of numbers, both signs.
    RandomBits,
    /// The rows of a real model in `tests/data`, one after the other, repeated where longer.
    Real,
}

/// The period of [`Distribution::StridePeriod`]: the threads of the largest block.
const PERIOD: usize = 1024;

impl Distribution {
    /// Every distribution.
    pub const ALL: &'static [Self] = &[
        Self::Normal,
        Self::Uniform,
        Self::Narrow,
        Self::AllEqual,
        Self::TwoValues,
        Self::SortedUp,
        Self::SortedDown,
        Self::Quantised,
        Self::ReluZeros,
        Self::Infinities,
        Self::NanMixed,
        Self::NanOnly,
        Self::SignedZeros,
        Self::Denormals,
        Self::HeavyTail,
        Self::MaximaAtEnd,
        Self::StridePeriod,
        Self::OneHalfBin,
        Self::RandomBits,
        Self::Real,
    ];

    /// Its name in reports and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Uniform => "uniform",
            Self::Narrow => "narrow",
            Self::AllEqual => "all-equal",
            Self::TwoValues => "two-values",
            Self::SortedUp => "sorted-up",
            Self::SortedDown => "sorted-down",
            Self::Quantised => "quantised",
            Self::ReluZeros => "relu-zeros",
            Self::Infinities => "infinities",
            Self::NanMixed => "nan-mixed",
            Self::NanOnly => "nan-only",
            Self::SignedZeros => "signed-zeros",
            Self::Denormals => "denormals",
            Self::HeavyTail => "heavy-tail",
            Self::MaximaAtEnd => "maxima-at-end",
            Self::StridePeriod => "stride-period",
            Self::OneHalfBin => "one-half-bin",
            Self::RandomBits => "random-bits",
            Self::Real => "real",
        }
    }

    /// Fills `out` with row `row` of the set that `seed` fixes.
    ///
    /// # Errors
    /// Only [`Distribution::Real`] fails: when the stored rows cannot be read.
    pub fn fill(self, seed: u64, row: usize, out: &mut [f32]) -> Result<(), DataError> {
        let mut random = Random::for_item(seed, row as u64);
        let len = out.len();
        let random = &mut random;
        match self {
            Self::Normal => normal(random, out),
            Self::Uniform => out.fill_with(|| random.unit()),
            Self::Narrow => out.fill_with(|| 10.0 + 0.001 * random.unit()),
            Self::AllEqual => out.fill(random.normal()),
            Self::TwoValues => out.fill_with(|| if random.chance(1.0 / 64.0) { 1.5 } else { -0.25 }),
            Self::SortedUp => sorted(random, out),
            Self::SortedDown => {
                sorted(random, out);
                out.reverse();
            }
            Self::Quantised => {
                normal(random, out);
                out.iter_mut().for_each(|v| *v = (*v * 8.0).round() / 8.0);
            }
            Self::ReluZeros => {
                normal(random, out);
                out.iter_mut().for_each(|v| *v = (*v - 0.5).max(0.0));
            }
            Self::Infinities => out.fill_with(|| match random.below(16) {
                0 => f32::INFINITY,
                1 => f32::NEG_INFINITY,
                2 => 1e30 * random.normal(),
                _ => random.normal(),
            }),
            Self::NanMixed => {
                out.fill_with(|| if random.below(8) == 0 { nan(random) } else { random.normal() })
            }
            Self::NanOnly => out.fill_with(|| nan(random)),
            Self::SignedZeros => out.fill_with(|| match random.below(512) {
                0 => 1e-3 * random.normal(),
                even if even % 2 == 0 => 0.0,
                _ => -0.0,
            }),
            Self::Denormals => out.fill_with(|| {
                let bits = random.bits();
                f32::from_bits((bits as u32 & 0x007f_ffff) | ((bits >> 32) as u32 & 0x8000_0000))
            }),
            Self::HeavyTail => out.fill_with(|| {
                let (a, b) = random.normal_pair();
                a / (b + f32::MIN_POSITIVE)
            }),
            Self::MaximaAtEnd => {
                normal(random, out);
                let high = (len / 2).min(4096);
                out[len - high..].iter_mut().for_each(|v| *v += 16.0);
            }
            Self::StridePeriod => {
                let mut cycle = [0.0; PERIOD];
                normal(random, &mut cycle);
                out.iter_mut().zip(cycle.iter().cycle()).for_each(|(v, c)| *v = *c);
            }
            Self::OneHalfBin => out.fill_with(|| 1.0 + random.unit() / 1024.0),
            Self::RandomBits => out.fill_with(|| f32::from_bits(random.bits() as u32)),
            Self::Real => {
                let rows = data::rows()?;
                let source = rows.iter().cycle().skip((row + seed as usize % rows.len()) % rows.len());
                let scores = source.flat_map(|row| row.columns.iter());
                out.iter_mut().zip(scores).for_each(|(v, s)| *v = *s);
            }
        }
        Ok(())
    }
}

fn normal(random: &mut Random, out: &mut [f32]) {
    for pair in out.chunks_mut(2) {
        let (a, b) = random.normal_pair();
        pair[0] = a;
        if let Some(second) = pair.get_mut(1) {
            *second = b;
        }
    }
}

/// Increasing by 2^-8 per element, from a random start that puts zero into the middle.
fn sorted(random: &mut Random, out: &mut [f32]) {
    let start = -(out.len() as f32) / 512.0 + random.unit();
    out.iter_mut().enumerate().for_each(|(i, v)| *v = start + i as f32 / 256.0);
}

fn nan(random: &mut Random) -> f32 {
    let bits = random.bits() as u32;
    f32::from_bits(0x7f80_0000 | (bits & 0x807f_ffff) | 1)
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name is not that of a distribution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown distribution {name:?}; known are {}", names())]
pub struct UnknownDistribution {
    /// The name that was given.
    pub name: String,
}

fn names() -> String {
    Distribution::ALL.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Distribution {
    type Err = UnknownDistribution;

    fn from_str(name: &str) -> Result<Self, UnknownDistribution> {
        let found = Self::ALL.iter().find(|d| d.name() == name);
        found.copied().ok_or_else(|| UnknownDistribution { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(distribution: Distribution, len: usize) -> Vec<f32> {
        let mut out = vec![0.0; len];
        distribution.fill(3, 1, &mut out).unwrap();
        out
    }

    #[test]
    fn names_are_distinct_and_parse_back() {
        for &distribution in Distribution::ALL {
            assert_eq!(distribution.name().parse(), Ok(distribution));
        }
        let error = "gaussian".parse::<Distribution>().unwrap_err().to_string();
        assert!(error.contains("gaussian") && error.contains("normal, uniform"), "{error}");
    }

    #[test]
    fn a_row_is_fixed_by_its_seed_and_number() {
        for &distribution in Distribution::ALL {
            let bits = |seed, row| {
                let mut out = vec![0.0; 3000];
                distribution.fill(seed, row, &mut out).unwrap();
                out.iter().map(|v: &f32| v.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(bits(5, 2), bits(5, 2), "{distribution}");
            assert_ne!(bits(5, 2), bits(5, 3), "{distribution}");
        }
    }

    #[test]
    fn each_distribution_is_what_its_name_says() {
        use Distribution as D;
        let share =
            |row: &[f32], p: fn(f32) -> bool| row.iter().filter(|&&v| p(v)).count() as f32 / row.len() as f32;
        let n = 20_000;
        assert!(share(&row(D::ReluZeros, n), |v| v == 0.0) > 0.5);
        assert!(row(D::NanOnly, n).iter().all(|v| v.is_nan()));
        assert!(row(D::NanOnly, n).iter().any(|v| v.is_sign_negative()));
        let mixed = share(&row(D::NanMixed, n), f32::is_nan);
        assert!((0.1..0.15).contains(&mixed), "{mixed}");
        assert!(row(D::Denormals, n).iter().all(|v| v.is_subnormal() || *v == 0.0));
        assert!(row(D::SortedUp, n).is_sorted());
        assert!(row(D::SortedDown, n).iter().rev().is_sorted());
        let zeros = row(D::SignedZeros, n);
        assert!(share(&zeros, |v| v == 0.0) > 0.99);
        assert!(zeros.iter().any(|v| v.to_bits() == 0) && zeros.iter().any(|v| v.to_bits() == 0x8000_0000));
        assert!(share(&row(D::Infinities, n), f32::is_infinite) > 0.1);
        assert!(
            row(D::StridePeriod, n).chunks_exact(PERIOD).all(|c| c == &row(D::StridePeriod, n)[..PERIOD])
        );
        let bins = |row: Vec<f32>, shift: u32| {
            let mut bins: Vec<u16> = row.iter().map(|&v| half::f16::from_f32(v).to_bits() >> shift).collect();
            bins.sort_unstable();
            bins.dedup();
            bins.len()
        };
        assert!(bins(row(D::OneHalfBin, n), 5) == 1);
        assert!(bins(row(D::Narrow, n), 5) <= 2);
        assert!(bins(row(D::HeavyTail, n), 5) > 300);
        let end = row(D::MaximaAtEnd, n);
        let (low, high) = end.split_at(n - 4096);
        let largest_low = low.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!(high.iter().all(|&v| v > largest_low));
    }

    #[test]
    fn the_real_distribution_begins_with_a_stored_row() {
        let rows = data::rows().unwrap();
        let mut out = vec![0.0; 200_000];
        Distribution::Real.fill(0, 3, &mut out).unwrap();
        let first = &rows[3].columns;
        assert_eq!(&out[..first.len()], &first[..]);
    }
}
