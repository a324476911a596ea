//! Scores of the types that operators take, seen from f32: rounding, bits, bytes.
//!
//! Numbers are rounded by the crate `half`. NaN is narrowed and widened by its bits, because conversions of
//! floats may set the bit that makes it quiet: sign, signalling and the payload's high bits stay as they were.

use dsa_kernels::topk::ScoreType;
use half::{bf16, f16};

/// Bits of the payload of a NaN that f32 has and the 16-bit type has not; the latter's exponent, all ones.
const fn layout(scores: ScoreType) -> (u32, u32) {
    match scores {
        ScoreType::F32 => (0, 0x7f80_0000),
        ScoreType::F16 => (13, 0x7c00),
        ScoreType::Bf16 => (16, 0x7f80),
    }
}

/// The bits of `value`, rounded to the nearest score of the type (ties to even).
pub fn bits(scores: ScoreType, value: f32) -> u32 {
    let wide = value.to_bits();
    match scores {
        ScoreType::F32 => wide,
        ScoreType::F16 | ScoreType::Bf16 if value.is_nan() => {
            let (dropped, infinity) = layout(scores);
            let payload = ((wide & 0x007f_ffff) >> dropped).max(1);
            (wide >> 16 & 0x8000) | infinity | payload
        }
        ScoreType::F16 => f16::from_f32(value).to_bits().into(),
        ScoreType::Bf16 => bf16::from_f32(value).to_bits().into(),
    }
}

/// The score of these bits. Exact: every score of every type is a number of f32.
pub fn value(scores: ScoreType, bits: u32) -> f32 {
    let (dropped, infinity) = layout(scores);
    match scores {
        ScoreType::F32 => f32::from_bits(bits),
        ScoreType::F16 | ScoreType::Bf16 if bits & 0x7fff > infinity => {
            f32::from_bits((bits & 0x8000) << 16 | 0x7f80_0000 | (bits & (infinity ^ 0x7fff)) << dropped)
        }
        ScoreType::F16 => f16::from_bits(bits as u16).to_f32(),
        ScoreType::Bf16 => bf16::from_bits(bits as u16).to_f32(),
    }
}

/// The score of the type that is nearest to `value`.
pub fn rounded(scores: ScoreType, value: f32) -> f32 {
    self::value(scores, bits(scores, value))
}

/// Values as they lie in device memory.
pub fn to_bytes(scores: ScoreType, values: &[f32]) -> Vec<u8> {
    match scores {
        ScoreType::F32 => values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
        _ => values.iter().flat_map(|&value| (bits(scores, value) as u16).to_ne_bytes()).collect(),
    }
}

/// The bits of scores that lie in device memory as `bytes`.
pub fn bits_of_bytes(scores: ScoreType, bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(scores.bytes() as usize);
    words
        .map(|word| match *word {
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
            [a, b] => u16::from_ne_bytes([a, b]).into(),
            _ => unreachable!("scores have 2 or 4 bytes"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_16_bits_is_the_same_after_widening_and_rounding() {
        for scores in [ScoreType::F16, ScoreType::Bf16] {
            for pattern in 0..=u32::from(u16::MAX) {
                let wide = value(scores, pattern);
                assert_eq!(bits(scores, wide), pattern, "{scores} {pattern:#06x} {wide:e}");
                let reference = match scores {
                    ScoreType::F16 => f16::from_bits(pattern as u16).to_f32(),
                    _ => bf16::from_bits(pattern as u16).to_f32(),
                };
                assert!(wide == reference || wide.is_nan() && reference.is_nan(), "{scores} {pattern:#06x}");
            }
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_ties_to_even() {
        let step = f32::EPSILON; // 2^-23
        for (scores, below) in [(ScoreType::F16, 2f32.powi(-11)), (ScoreType::Bf16, 2f32.powi(-8))] {
            assert_eq!(rounded(scores, 1.0 + below), 1.0);
            assert_eq!(rounded(scores, 1.0 + below + step), 1.0 + 2.0 * below);
            assert_eq!(rounded(scores, 1.0 + 3.0 * below), 1.0 + 4.0 * below);
            assert_eq!(rounded(scores, f32::MAX), f32::INFINITY);
            assert_eq!(bits(scores, -0.0), 0x8000);
        }
        assert_eq!(rounded(ScoreType::F16, 65_519.9), 65_504.0);
        assert_eq!(rounded(ScoreType::F16, 65_520.0), f32::INFINITY);
        assert_eq!(rounded(ScoreType::F32, 1.0 + step), 1.0 + step);
    }

    #[test]
    fn nan_stays_nan_with_its_sign_even_if_only_its_low_bits_are_set() {
        for scores in ScoreType::ALL.iter().copied() {
            for pattern in [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffc0_0000] {
                let nan = rounded(scores, f32::from_bits(pattern));
                assert!(nan.is_nan(), "{scores} {pattern:#x}");
                assert_eq!(nan.is_sign_negative(), pattern >> 31 == 1, "{scores} {pattern:#x}");
            }
        }
    }

    #[test]
    fn bytes_hold_the_bits_of_each_score() {
        let values = [1.0, -2.5, f32::NEG_INFINITY];
        for (scores, expected) in [
            (ScoreType::F32, [0x3f80_0000, 0xc020_0000, 0xff80_0000]),
            (ScoreType::F16, [0x3c00, 0xc100, 0xfc00]),
            (ScoreType::Bf16, [0x3f80, 0xc020, 0xff80]),
        ] {
            let bytes = to_bytes(scores, &values);
            assert_eq!(bytes.len(), 3 * scores.bytes() as usize);
            assert_eq!(bits_of_bytes(scores, &bytes), expected);
        }
    }
}
