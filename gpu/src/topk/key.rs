//! Scores as unsigned keys whose order is the order of the selection.
//!
//! A key is the score's bits with all bits inverted for negative numbers and the sign bit set for the
//! others. Before that, -0.0 becomes +0.0. The keys below that of -inf are free: NaN takes one of them, so
//! that it ranks below every number, and "no element here" takes zero.

/// The key of a lane that holds no element. Lower than the key of any score.
pub const ABSENT: u32 = 0;
/// The key of NaN: lower than the key of any number.
pub const NAN: u32 = 1;
/// The key of -inf, the lowest of the numbers.
const NEGATIVE_INFINITY: u32 = 0x007f_ffff;
/// What the keys of the scores from zero on have set.
pub(super) const SIGN: u32 = 0x8000_0000;

/// The key of a score: `a < b` if and only if `key(a) < key(b)`; NaN is lowest, zeros are equal.
#[inline(always)]
pub fn key(score: f32) -> u32 {
    if score.is_nan() { NAN } else { number_key(score) }
}

/// The key of a score that is not NaN.
#[inline(always)]
pub fn number_key(score: f32) -> u32 {
    // The sum turns -0.0 into +0.0 and leaves every other number as it is.
    let bits = (score + 0.0).to_bits();
    let flip = (bits.cast_signed() >> 31).cast_unsigned() | SIGN;
    bits ^ flip
}

/// The score, or the lowest number in the place of NaN.
#[inline(always)]
pub fn number(score: f32) -> f32 {
    // The maximum of NaN and a number is the number.
    score.max(f32::NEG_INFINITY)
}

/// Scores that are not NaN as keys for comparing with the keys from `first` to `last`: scores of another sign than these get
/// other keys than [`number_key`]'s, below all of them or above as theirs are. The first key is not that of zero.
#[inline(always)]
pub fn number_keys_beside<const N: usize>((first, last): (u32, u32), scores: [f32; N]) -> [u32; N] {
    if first < SIGN && last >= SIGN {
        return scores.map(number_key);
    }
    let flip = if first >= SIGN { SIGN } else { u32::MAX };
    scores.map(|score| score.to_bits() ^ flip)
}

/// A score with this key; the inverse of [`key`]. For [`NAN`] and what is no score's key, a NaN.
#[inline(always)]
pub fn score(key: u32) -> f32 {
    f32::from_bits(if key & SIGN != 0 { key ^ SIGN } else { !key })
}

/// The 16-bit key of the score rounded to half precision. Monotone in `key`; NaN and absence give zero.
///
/// Scores beyond the range of half precision share the key of an infinity.
#[inline(always)]
pub fn half_key(key: u32) -> u32 {
    if key < NEGATIVE_INFINITY {
        return 0;
    }
    let negative = key & SIGN == 0;
    let bits = if negative { !key } else { key ^ SIGN };
    let half = u32::from(dsa_simt::f32_to_f16(f32::from_bits(bits)));
    if negative { !half & 0xffff } else { half | 0x8000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCENDING: [f32; 14] = [
        f32::NEG_INFINITY,
        f32::MIN,
        -70_000.0,
        -1.5,
        -1.0,
        -f32::MIN_POSITIVE,
        -1e-45,
        0.0,
        1e-45,
        f32::MIN_POSITIVE,
        1.0,
        70_000.0,
        f32::MAX,
        f32::INFINITY,
    ];

    #[test]
    fn keys_beside_a_range_are_below_it_in_it_or_above_it_as_the_keys_are() {
        let side = |key: u32, (first, last): (u32, u32)| (key >= first, key > last);
        for range in [(-70_000.0, -1.25), (-1.0, 1e-45), (0.5, 70_000.0), (f32::MAX, f32::INFINITY)] {
            let range = (number_key(range.0), number_key(range.1));
            let scores = ASCENDING.iter().copied().chain([-0.0, -1.25, 0.5, 0.75]);
            for score in scores {
                let [beside] = number_keys_beside(range, [score]);
                let is_inside = side(beside, range) == (true, false);
                assert_eq!(side(beside, range), side(number_key(score), range), "{score} beside {range:x?}");
                assert!(!is_inside || beside == number_key(score), "{score} in {range:x?}");
            }
        }
        assert_eq!(
            [number(f32::NAN), number(-f32::NAN), number(-1.5)],
            [f32::NEG_INFINITY, f32::NEG_INFINITY, -1.5]
        );
    }

    #[test]
    fn keys_order_like_the_scores() {
        for pair in ASCENDING.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
            assert!(half_key(key(pair[0])) <= half_key(key(pair[1])), "{pair:?}");
        }
    }

    #[test]
    fn every_score_comes_back_from_its_key() {
        for number in ASCENDING {
            assert_eq!(score(key(number)).to_bits(), number.to_bits());
        }
        assert!(score(NAN).is_nan() && score(key(f32::INFINITY) + 1).is_nan());
    }

    #[test]
    fn every_nan_is_below_every_number_and_above_absence() {
        for bits in [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff] {
            let nan = key(f32::from_bits(bits));
            assert_eq!(nan, NAN);
            assert!(ABSENT < nan && nan < key(f32::NEG_INFINITY));
            assert!(half_key(nan) < half_key(key(f32::NEG_INFINITY)));
        }
    }

    #[test]
    fn the_zeros_are_equal() {
        assert_eq!(key(-0.0), key(0.0));
    }

    #[test]
    fn half_keys_are_monotone_around_every_rounding_boundary() {
        for half in 0..=u16::MAX {
            let value = half_to_f32(half);
            if value.is_nan() {
                continue;
            }
            let middle = key(value);
            for distance in [1, 0xfff, 0x1000, 0x1001, 0x1fff] {
                assert!(half_key(middle.saturating_sub(distance)) <= half_key(middle));
                assert!(
                    half_key(middle) <= half_key(middle.saturating_add(distance).min(key(f32::INFINITY)))
                );
            }
        }
    }

    fn half_to_f32(bits: u16) -> f32 {
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from(bits >> 10 & 0x1f);
        let fraction = f32::from(bits & 0x3ff);
        match exponent {
            0 => sign * fraction * 2f32.powi(-24),
            31 if fraction == 0.0 => sign * f32::INFINITY,
            31 => f32::NAN,
            _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
        }
    }
}
