//! The types of numbers in device memory: how a thread's share of a row is read, rounded and written.

use dsa_simt::{Global, Halves, bf16_pair};

/// Consecutive numbers of a row that a thread works on: as many as a vector of the state's type has, then zeros.
pub type Channels = [f32; MAX_CHANNELS];
/// Most numbers of a vector.
pub const MAX_CHANNELS: usize = 8;

/// Runs a block of code for each number of a vector of the type, written out: the optimiser leaves a loop over so much as
/// a loop, and then the numbers are in local memory.
macro_rules! each_channel {
    ($number:ty, $channel:ident => $body:block) => {
        each_channel!(@written_out $channel, $body, 0 1 2 3);
        if <$number as $crate::compress::number::Number>::PER_VECTOR == 8 {
            each_channel!(@written_out $channel, $body, 4 5 6 7);
        }
    };
    (@written_out $channel:ident, $body:block, $($value:literal)*) => {
        $(
            {
                let $channel: usize = $value;
                $body
            }
        )*
    };
}
pub(super) use each_channel;

/// A type of numbers, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberType {
    /// IEEE single precision.
    F32,
    /// The upper half of an f32.
    Bf16,
}

impl NumberType {
    /// Bytes of a number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
impl std::fmt::Display for NumberType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A type of numbers.
pub trait Number: Copy {
    /// Its name.
    const TYPE: NumberType;
    /// Numbers in a vector of 16 bytes.
    const PER_VECTOR: usize;
    /// Numbers in device memory.
    type Array: Copy;

    /// The `len` numbers at `start`.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], but that `start` is aligned to a number.
    unsafe fn array(start: *const u8, len: usize) -> Self::Array;
    /// Begins to bring number `index` to the second-level cache, with the cache line that it is in.
    fn prefetch(array: Self::Array, index: usize);
    /// The vector that begins with number `index`, at an address aligned to 16, which no thread writes during the launch.
    fn vector(array: Self::Array, index: usize) -> [u32; 4];
    /// Writes the vector that begins with number `index`, at an address aligned to 16.
    fn set_vector(array: Self::Array, index: usize, vector: [u32; 4]);
    /// Number `place` of a vector.
    fn number(vector: [u32; 4], place: usize) -> f32;
    /// The vector of the first [`PER_VECTOR`](Self::PER_VECTOR) of `numbers`, rounded to nearest even.
    fn rounded(numbers: Channels) -> [u32; 4];
    /// The `count` numbers, 4 or 8, from number `index` on, at an address aligned to all of them or to 16, which no thread
    /// writes during the launch.
    fn load(array: Self::Array, index: usize, count: usize) -> Channels;
}

/// Eight numbers of f32, or four and zeros.
#[inline(always)]
pub fn load_f32(array: Global<f32>, index: usize, count: usize) -> Channels {
    let mut numbers = [0.0; MAX_CHANNELS];
    let mut done = 0;
    while done < count {
        let [a, b, c, d] = array.get4_readonly(index + done);
        numbers[done] = a;
        numbers[done + 1] = b;
        numbers[done + 2] = c;
        numbers[done + 3] = d;
        done += 4;
    }
    numbers
}

/// `f32`.
#[derive(Clone, Copy)]
pub struct F32;

impl Number for F32 {
    const TYPE: NumberType = NumberType::F32;
    const PER_VECTOR: usize = 4;
    type Array = Global<f32>;

    #[inline(always)]
    unsafe fn array(start: *const u8, len: usize) -> Global<f32> {
        // SAFETY: passed on to the caller.
        unsafe { Global::from_raw(start.cast(), len) }
    }
    #[inline(always)]
    fn prefetch(array: Global<f32>, index: usize) {
        array.prefetch(index);
    }
    #[inline(always)]
    fn vector(array: Global<f32>, index: usize) -> [u32; 4] {
        array.get4_readonly(index).map(f32::to_bits)
    }
    #[inline(always)]
    fn set_vector(array: Global<f32>, index: usize, vector: [u32; 4]) {
        array.set4(index, vector.map(f32::from_bits));
    }
    #[inline(always)]
    fn number(vector: [u32; 4], place: usize) -> f32 {
        f32::from_bits(vector[place])
    }
    #[inline(always)]
    fn rounded(numbers: Channels) -> [u32; 4] {
        [numbers[0].to_bits(), numbers[1].to_bits(), numbers[2].to_bits(), numbers[3].to_bits()]
    }
    #[inline(always)]
    fn load(array: Global<f32>, index: usize, count: usize) -> Channels {
        load_f32(array, index, count)
    }
}

/// The upper half of an f32.
#[derive(Clone, Copy)]
pub struct Bf16;

/// The two numbers of bf16 in a word.
#[inline(always)]
pub fn bf16s(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

impl Number for Bf16 {
    const TYPE: NumberType = NumberType::Bf16;
    const PER_VECTOR: usize = 8;
    type Array = Halves;

    #[inline(always)]
    unsafe fn array(start: *const u8, len: usize) -> Halves {
        // SAFETY: passed on to the caller.
        unsafe { Halves::from_raw(start.cast(), len) }
    }
    #[inline(always)]
    fn prefetch(array: Halves, index: usize) {
        array.prefetch(index);
    }
    #[inline(always)]
    fn vector(array: Halves, index: usize) -> [u32; 4] {
        array.get8_readonly(index)
    }
    #[inline(always)]
    fn set_vector(array: Halves, index: usize, vector: [u32; 4]) {
        array.set8(index, vector);
    }
    #[inline(always)]
    fn number(vector: [u32; 4], place: usize) -> f32 {
        bf16s(vector[place / 2])[place % 2]
    }
    #[inline(always)]
    fn rounded(numbers: Channels) -> [u32; 4] {
        [
            bf16_pair(numbers[0], numbers[1]),
            bf16_pair(numbers[2], numbers[3]),
            bf16_pair(numbers[4], numbers[5]),
            bf16_pair(numbers[6], numbers[7]),
        ]
    }
    #[inline(always)]
    fn load(array: Halves, index: usize, count: usize) -> Channels {
        let words = if count == Self::PER_VECTOR {
            array.get8_readonly(index)
        } else {
            let [low, high] = array.get4_readonly(index);
            [low, high, 0, 0]
        };
        let ([a, b], [c, d], [e, f], [g, h]) =
            (bf16s(words[0]), bf16s(words[1]), bf16s(words[2]), bf16s(words[3]));
        [a, b, c, d, e, f, g, h]
    }
}
