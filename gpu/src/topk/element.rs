//! The types of scores: how a row of them is read, compared and copied.
//!
//! Every score is selected by the number it stands for, as an f32: widening is exact and monotone, so that the
//! paths have one kind of key.

use dsa_simt::{
    Global, Halves, Shared, bf16_pair, bf16_pair_at_least, f16_to_f32, f32_to_f16, half_pair,
    half_pair_at_least,
};

/// Words of a vector: 16 bytes, the widest access.
pub const VECTOR_WORDS: u32 = 4;

/// A type of scores.
pub trait Element: Copy {
    /// What a kernel's pointer to scores points to.
    type Raw: Copy;
    /// Some scores in device memory.
    type Array: Copy;
    /// Scores in a 32-bit word, the first in the low bits.
    const PER_WORD: u32;
    /// Scores in a vector.
    const PER_VECTOR: u32 = VECTOR_WORDS * Self::PER_WORD;
    /// A word of NaN, which no comparison selects.
    const NO_SCORES: u32;
    /// The [keys](super::key) of different scores are at least so far apart: those of 16 bits end with as many bits that are
    /// all the same as an f32 has more of a fraction.
    const KEY_STEP: u32;

    /// The `len` scores at `start`.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], but that `start` is aligned to a score.
    unsafe fn array(start: *const Self::Raw, len: usize) -> Self::Array;
    /// Number of scores.
    fn len(array: Self::Array) -> u32;
    /// Byte address of the first score.
    fn address(array: Self::Array) -> usize;
    /// The vector that begins with score `index`, at an address aligned to 16.
    fn vector(array: Self::Array, index: u32) -> [u32; 4];
    /// The same; scores that were never written have any value.
    fn vector_ahead(array: Self::Array, index: u32) -> [u32; 4];
    /// Begins to copy that vector to the four words from `place` on of `to` ([`dsa_simt::copies`]).
    fn copy_vector(array: Self::Array, index: usize, to: Shared<u32>, place: u32);
    /// A word whose lowest score is score `index`.
    fn word(array: Self::Array, index: u32) -> u32;
    /// Score `number` of a word.
    fn score(word: u32, number: u32) -> f32;
    /// The least score of this type that is not below `score`, in each part of a word; NaN for NaN.
    fn bound(score: f32) -> u32;
    /// The scores of some vectors that are at least as large as a score whose [`bound`](Self::bound) this is, as bits:
    /// bit `i` is score `i`. Compared as they are, those of 16 bits in pairs.
    fn at_least<const M: usize>(vectors: &[[u32; 4]; M], bound: u32) -> u32;
    /// Pair `number` of the half-precision values of a vector's scores, made ready for ordering
    /// ([`half_pair`]).
    fn pair(vector: [u32; 4], number: u32) -> u32;
    /// Copies score `index` of `from` to place `position` of `to`.
    fn copy(from: Self::Array, index: u32, to: Self::Array, position: u32);
    /// Writes the negative infinity to place `position` of `to`.
    fn clear(to: Self::Array, position: u32);
}

/// `f32`.
#[derive(Clone, Copy)]
pub struct F32;

impl Element for F32 {
    type Raw = f32;
    type Array = Global<f32>;
    const PER_WORD: u32 = 1;
    const NO_SCORES: u32 = 0x7fc0_0000;
    const KEY_STEP: u32 = 1;

    #[inline(always)]
    unsafe fn array(start: *const f32, len: usize) -> Global<f32> {
        // SAFETY: passed on to the caller.
        unsafe { Global::from_raw(start, len) }
    }
    #[inline(always)]
    fn len(array: Global<f32>) -> u32 {
        array.len() as u32
    }
    #[inline(always)]
    fn address(array: Global<f32>) -> usize {
        array.address()
    }
    #[inline(always)]
    fn vector(array: Global<f32>, index: u32) -> [u32; 4] {
        array.get4_readonly(index as usize).map(f32::to_bits)
    }
    #[inline(always)]
    fn vector_ahead(array: Global<f32>, index: u32) -> [u32; 4] {
        array.get4_speculative(index as usize).map(f32::to_bits)
    }
    #[inline(always)]
    fn copy_vector(array: Global<f32>, index: usize, to: Shared<u32>, place: u32) {
        array.copy4(index, to, place);
    }
    #[inline(always)]
    fn word(array: Global<f32>, index: u32) -> u32 {
        array.get_readonly(index as usize).to_bits()
    }
    #[inline(always)]
    fn score(word: u32, _number: u32) -> f32 {
        f32::from_bits(word)
    }
    #[inline(always)]
    fn bound(score: f32) -> u32 {
        score.to_bits()
    }
    #[inline(always)]
    fn at_least<const M: usize>(vectors: &[[u32; 4]; M], bound: u32) -> u32 {
        const { assert!(M as u32 * Self::PER_VECTOR <= u32::BITS) };
        let mut bits = 0;
        for i in 0..4 * M {
            let is_at_least = f32::from_bits(vectors[i / 4][i % 4]) >= f32::from_bits(bound);
            bits |= u32::from(is_at_least) << i;
        }
        bits
    }
    #[inline(always)]
    fn pair(vector: [u32; 4], number: u32) -> u32 {
        let first = 2 * number as usize;
        half_pair(f32::from_bits(vector[first]), f32::from_bits(vector[first + 1]))
    }
    #[inline(always)]
    fn copy(from: Global<f32>, index: u32, to: Global<f32>, position: u32) {
        to.set(position as usize, from.get_readonly(index as usize));
    }
    #[inline(always)]
    fn clear(to: Global<f32>, position: u32) {
        to.set(position as usize, f32::NEG_INFINITY);
    }
}

/// Pair `number`, at most 7, of what [`bits_of_pairs`] takes: of a mask that has all ones in each half that is meant.
#[inline(always)]
pub fn pair_of(number: usize, mask: u32) -> u32 {
    // The first of a pair in the low half, the second in the high half of the word.
    mask & (0x2_0001 << (2 * number))
}

/// A bit for each number of up to eight pairs, together ([`pair_of`]).
#[inline(always)]
pub fn bits_of_pairs(pairs: u32) -> u32 {
    (pairs | pairs >> 16) & 0xffff
}

/// What the 16-bit types have in common: all but the bits of their numbers.
macro_rules! sixteen_bits {
    (
        $(#[doc = $doc:expr])* $name:ident, nan = $nan:literal, negative_infinity = $lowest:literal,
        fraction = $fraction:literal,
        score($word:ident, $number:ident) = $score:expr,
        nearest($value:ident) = $nearest:expr,
        pair_at_least = $pair_at_least:path
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy)]
        pub struct $name;

        impl Element for $name {
            type Raw = u16;
            type Array = Halves;
            const PER_WORD: u32 = 2;
            const NO_SCORES: u32 = $nan * 0x1_0001;
            const KEY_STEP: u32 = 1 << (f32::MANTISSA_DIGITS - 1 - $fraction);

            #[inline(always)]
            unsafe fn array(start: *const u16, len: usize) -> Halves {
                // SAFETY: passed on to the caller.
                unsafe { Halves::from_raw(start, len) }
            }
            #[inline(always)]
            fn len(array: Halves) -> u32 {
                array.len() as u32
            }
            #[inline(always)]
            fn address(array: Halves) -> usize {
                array.address()
            }
            #[inline(always)]
            fn vector(array: Halves, index: u32) -> [u32; 4] {
                array.get8_readonly(index as usize)
            }
            #[inline(always)]
            fn vector_ahead(array: Halves, index: u32) -> [u32; 4] {
                array.get8_speculative(index as usize)
            }
            #[inline(always)]
            fn copy_vector(array: Halves, index: usize, to: Shared<u32>, place: u32) {
                array.copy8(index, to, place);
            }
            #[inline(always)]
            fn word(array: Halves, index: u32) -> u32 {
                u32::from(array.get_readonly(index as usize))
            }
            #[inline(always)]
            fn score($word: u32, $number: u32) -> f32 {
                $score
            }
            #[inline(always)]
            fn bound($value: f32) -> u32 {
                let nearest: u32 = $nearest;
                let is_below = Self::score(nearest, 0) < $value;
                let next_up = if nearest < 0x8000 { nearest + 1 } else { nearest - 1 };
                (if is_below { next_up } else { nearest }) * 0x1_0001
            }
            #[inline(always)]
            fn at_least<const M: usize>(vectors: &[[u32; 4]; M], bound: u32) -> u32 {
                const { assert!(M as u32 * Self::PER_VECTOR <= u32::BITS) };
                let mut halves = [0; 2];
                for i in 0..4 * M {
                    halves[i / 8] |= pair_of(i % 8, $pair_at_least(vectors[i / 4][i % 4], bound));
                }
                let [first, second] = halves.map(bits_of_pairs);
                first | second << 16
            }
            #[inline(always)]
            fn pair(vector: [u32; 4], number: u32) -> u32 {
                let word = vector[number as usize];
                half_pair(Self::score(word, 0), Self::score(word, 1))
            }
            #[inline(always)]
            fn copy(from: Halves, index: u32, to: Halves, position: u32) {
                to.set(position as usize, from.get_readonly(index as usize));
            }
            #[inline(always)]
            fn clear(to: Halves, position: u32) {
                to.set(position as usize, $lowest);
            }
        }
    };
}

sixteen_bits! {
    /// IEEE half precision.
    F16, nan = 0x7e00, negative_infinity = 0xfc00, fraction = 10,
    score(word, number) = f16_to_f32((word >> (16 * number)) as u16),
    nearest(value) = u32::from(f32_to_f16(value)),
    pair_at_least = half_pair_at_least
}

sixteen_bits! {
    /// The upper half of an f32.
    Bf16, nan = 0x7fc0, negative_infinity = 0xff80, fraction = 7,
    score(word, number) = f32::from_bits(if number == 0 { word << 16 } else { word & 0xffff_0000 }),
    nearest(value) = bf16_pair(value, 0.0) & 0xffff,
    pair_at_least = bf16_pair_at_least
}

#[cfg(test)]
mod tests {
    use super::super::key::key;
    use super::*;

    /// All numbers of 16 bits beside a bound at, just below and just above each of them.
    fn scores_are_compared_exactly<E: Element>() {
        for bits in 0..=0xffff {
            let score = E::score(bits, 0);
            let pairs = [bits << 16 | bits.wrapping_sub(1) & 0xffff, (bits + 1) << 16 | bits ^ 0x8000];
            let words = [pairs[0], pairs[1], E::NO_SCORES, !pairs[0]];
            for near in [score, score.next_up(), score.next_down()] {
                let found = E::at_least(&[words], E::bound(near));
                for i in 0..8 {
                    let is_at_least = E::score(words[i / 2], i as u32 % 2) >= near;
                    assert_eq!(found >> i & 1 != 0, is_at_least, "score {i} of {words:x?} beside {near}");
                }
            }
        }
    }

    /// Each score of `M` vectors has its bit.
    fn each_score_has_its_bit<E: Element, const M: usize>(high: u32) {
        let per_word = E::PER_WORD as usize;
        for i in 0..4 * M * per_word {
            let mut vectors = [[0; 4]; M];
            vectors[i / per_word / 4][i / per_word % 4] = high << (16 * (i % per_word));
            assert_eq!(E::at_least(&vectors, E::bound(1.0)), 1 << i, "score {i}");
        }
    }

    #[test]
    fn scores_are_compared_exactly_with_bounds_of_any_kind() {
        scores_are_compared_exactly::<F16>();
        scores_are_compared_exactly::<Bf16>();
        for score in [f32::NEG_INFINITY, -1.5, -0.0, 0.0, f32::MIN_POSITIVE, f32::INFINITY, f32::NAN] {
            let row = [-1.5, 0.0, f32::INFINITY, f32::NAN];
            let bits = F32::at_least(&[row.map(f32::to_bits)], F32::bound(score));
            for (i, element) in row.into_iter().enumerate() {
                assert_eq!(bits >> i & 1 != 0, element >= score, "{element} beside {score}");
            }
        }
    }

    /// Different scores of 16 bits have keys that are as far apart as is promised, and no farther.
    fn keys_are_a_step_apart<E: Element>() {
        let scores = (0..=0xffff).map(|bits| E::score(bits, 0)).filter(|score| !score.is_nan());
        let mut keys: Vec<u32> = scores.map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        let least = keys.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert_eq!(least, Some(E::KEY_STEP));
    }

    #[test]
    fn keys_of_different_scores_are_a_step_apart() {
        keys_are_a_step_apart::<F16>();
        keys_are_a_step_apart::<Bf16>();
    }

    #[test]
    fn each_score_of_some_vectors_has_its_bit() {
        each_score_has_its_bit::<F32, 2>(2.0_f32.to_bits());
        each_score_has_its_bit::<F32, 4>(2.0_f32.to_bits());
        each_score_has_its_bit::<F16, 2>(0x4000);
        each_score_has_its_bit::<F16, 4>(0x4000);
        each_score_has_its_bit::<Bf16, 2>(0x4000);
        each_score_has_its_bit::<Bf16, 4>(0x4000);
    }
}
