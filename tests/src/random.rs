//! A small generator of pseudo-random numbers (SplitMix64) whose sequences never change with a dependency.

use std::f32::consts::TAU;

/// A sequence of pseudo-random numbers, fixed by its seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The sequence of `seed` for item `item`: independent of those of other items.
    pub fn for_item(seed: u64, item: u64) -> Self {
        let mut mixed = Self::new(seed ^ 0x6a09_e667_f3bc_c909);
        mixed.state = mixed.bits() ^ item.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self::new(mixed.bits())
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..limit`; `limit` is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Two independent standard normal values (Box and Muller).
    pub fn normal_pair(&mut self) -> (f32, f32) {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (TAU * self.unit()).sin_cos();
        (radius * cos, radius * sin)
    }

    /// A standard normal value.
    pub fn normal(&mut self) -> f32 {
        self.normal_pair().0
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn items_of_one_seed_have_different_sequences_and_repeat() {
        let first: Vec<u64> = (0..100).map(|item| Random::for_item(7, item).bits()).collect();
        let again: Vec<u64> = (0..100).map(|item| Random::for_item(7, item).bits()).collect();
        assert_eq!(first, again);
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), first.len());
    }

    #[test]
    fn normal_values_have_mean_zero_and_variance_one() {
        let mut random = Random::new(1);
        let values: Vec<f32> = (0..20_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        approx::assert_abs_diff_eq!(mean, 0.0, epsilon = 0.03);
        approx::assert_abs_diff_eq!(variance, 1.0, epsilon = 0.05);
    }
}
