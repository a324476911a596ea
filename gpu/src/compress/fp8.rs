//! Conversion to FP8 e4m3 (the format without infinities), in integer arithmetic: it runs below compute capability 8.9,
//! which has no instruction for it, and gives the same bits everywhere.
//!
//! A number is a sign, four bits of exponent with bias 7, and three of mantissa. The largest is 448 (`0x7e`), the
//! smallest normal number 2^-6, subnormal numbers are multiples of 2^-9, and `0x7f` is NaN. Values are rounded to
//! nearest, ties to even; what is beyond 448, infinities too, becomes 448 with its sign, as quantisation wants it.

/// Largest number.
pub const MAX: f32 = 448.0;

/// Bits of the code of [`MAX`], of NaN, and of the sign.
const MAX_CODE: u32 = 0x7e;
const NAN_CODE: u32 = 0x7f;
const SIGN: u32 = 0x80;
/// Bits of an f32: its infinity, and the smallest normal number of FP8.
const INFINITY: u32 = 0x7f80_0000;
const MIN_NORMAL: u32 = 0x3c80_0000;
/// An f32 of which one unit in the last place is 2^-9, a subnormal number's step: what is added to it is rounded to
/// that.
const STEPS: f32 = 16384.0;
/// Mantissa bits that an f32 has and FP8 has not, and what the exponents differ by.
const DROPPED: u32 = 20;
const BIAS: u32 = 127 - 7;

/// The code of the number nearest to `value`.
#[inline(always)]
pub fn e4m3(value: f32) -> u32 {
    let bits = value.to_bits();
    let magnitude = bits & !(1 << 31);
    let code = if magnitude > INFINITY {
        NAN_CODE
    } else if magnitude >= MAX.to_bits() {
        MAX_CODE
    } else if magnitude < MIN_NORMAL {
        (f32::from_bits(magnitude) + STEPS).to_bits() - STEPS.to_bits()
    } else {
        // Half a unit less one, and one more if the mantissa is odd: a carry rounds up, into the exponent if it must.
        let odd = (magnitude >> DROPPED) & 1;
        let rounded = magnitude + ((1 << (DROPPED - 1)) - 1) + odd;
        (rounded >> DROPPED) - (BIAS << 3)
    };
    code | (bits >> 24 & SIGN)
}

/// The codes of four values, the first in the lowest byte.
#[inline(always)]
pub fn e4m3_word(values: [f32; 4]) -> u32 {
    e4m3(values[0]) | e4m3(values[1]) << 8 | e4m3(values[2]) << 16 | e4m3(values[3]) << 24
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of a code.
    fn value(code: u32) -> f64 {
        let (exponent, mantissa) = ((code >> 3 & 15) as i32, f64::from(code & 7));
        let magnitude = match exponent {
            0 => mantissa / 512.0,
            15 if code & 7 == 7 => f64::NAN,
            _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
        };
        if code & SIGN == 0 { magnitude } else { -magnitude }
    }

    /// The nearest code, by trying all.
    fn nearest(value_: f32) -> u32 {
        if value_.is_nan() {
            return NAN_CODE | (value_.to_bits() >> 24 & SIGN);
        }
        let magnitude = f64::from(value_.abs()).min(448.0);
        let distance = |code: u32| (value(code) - magnitude).abs();
        let better = |best: u32, code: u32| {
            let even_tie = distance(code) == distance(best) && code.is_multiple_of(2);
            if distance(code) < distance(best) || even_tie { code } else { best }
        };
        (1..=MAX_CODE).fold(0, better) | (value_.to_bits() >> 24 & SIGN)
    }

    /// Compares with the search, for a value and its negative.
    fn check(value: f32) {
        for value in [value, -value] {
            let (got, right) = (e4m3(value), nearest(value));
            assert_eq!(got, right, "{value:e} ({:#010x}): {got:#04x}, not {right:#04x}", value.to_bits());
        }
    }

    #[test]
    fn every_number_is_its_own_nearest() {
        for code in 0..256 {
            let value = value(code) as f32;
            if !value.is_nan() {
                assert_eq!(e4m3(value), code, "{value}");
            }
        }
    }

    #[test]
    fn between_two_numbers_the_nearest_is_taken_and_the_even_one_from_the_middle() {
        for code in 0..MAX_CODE {
            let middle = ((value(code) + value(code + 1)) / 2.0) as f32;
            assert_eq!(e4m3(middle), code + code % 2, "{middle}");
            for offset in [-2, -1, 0, 1, 2] {
                check(f32::from_bits(middle.to_bits().wrapping_add_signed(offset)));
            }
        }
    }

    #[test]
    fn values_of_every_magnitude_agree_with_a_search() {
        // A stride that is odd and no power of two: the low bits take all kinds of values.
        for bits in (0..INFINITY).step_by(0x0001_0fff) {
            check(f32::from_bits(bits));
        }
    }

    #[test]
    fn what_is_too_large_is_the_largest_number_and_nan_stays_nan() {
        for value in [448.0, 463.9, 464.0, 480.0, 1e9, f32::MAX, f32::INFINITY] {
            assert_eq!((e4m3(value), e4m3(-value)), (0x7e, 0xfe), "{value}");
        }
        for bits in [0x7fc0_0000, 0x7f80_0001, 0x7fff_ffff] {
            let nan = f32::from_bits(bits);
            assert_eq!((e4m3(nan), e4m3(-nan)), (0x7f, 0xff), "{bits:#x}");
        }
        assert_eq!((e4m3(0.0), e4m3(-0.0)), (0, 0x80));
    }

    #[test]
    fn the_first_of_four_is_the_lowest_byte() {
        assert_eq!(e4m3_word([1.0, -1.0, 448.0, 0.0]), 0x007e_b838);
    }
}
