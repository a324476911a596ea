//! What is stored for a compressed row, in f64, and how far from it a stored number may be.

use half::bf16;

/// Channels at the end of a row that are rotated.
pub const ROTATED: usize = 64;
/// What the computation in f32 may add to the rounding of what is stored, relative to the largest channel of the row.
const ARITHMETIC: f64 = 3e-6;

/// The angles of a position as 32 cosines, then 32 sines, with the base 10,000.
pub fn angles(position: usize) -> Vec<f32> {
    let angle = |pair: usize| position as f32 * 1e4f32.powf(-(pair as f32) / (ROTATED as f32 / 2.0));
    let pairs = 0..ROTATED / 2;
    pairs.clone().map(|pair| angle(pair).cos()).chain(pairs.map(|pair| angle(pair).sin())).collect()
}

/// What is done to a row before it is stored.
#[derive(Clone, Debug)]
pub struct Steps {
    /// What the channels are multiplied by after normalising.
    pub weight: Vec<f32>,
    /// What is added to the mean of the squares.
    pub epsilon: f32,
    /// Whether it is transformed.
    pub hadamard: bool,
}

impl Steps {
    /// The row before it is rounded; `angles` are 32 cosines and 32 sines.
    pub fn apply(&self, row: &[f32], angles: &[f32]) -> Vec<f64> {
        let x: Vec<f64> = row.iter().map(|&x| f64::from(bf16::from_f32(x))).collect();
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(self.epsilon)).sqrt();
        let mut x: Vec<f64> = x.iter().zip(&self.weight).map(|(x, &w)| x * scale * f64::from(w)).collect();
        let (cosines, sines) = angles.split_at(ROTATED / 2);
        let first = x.len() - ROTATED;
        for (pair, (&cosine, &sine)) in x[first..].chunks_exact_mut(2).zip(cosines.iter().zip(sines)) {
            let (a, b, cosine, sine) = (pair[0], pair[1], f64::from(cosine), f64::from(sine));
            pair[0] = a * cosine - b * sine;
            pair[1] = a * sine + b * cosine;
        }
        if self.hadamard { hadamard(&x) } else { x }
    }
}

/// The product with the Hadamard matrix in its natural order, times one over the root of its size.
fn hadamard(x: &[f64]) -> Vec<f64> {
    let scale = 1.0 / (x.len() as f64).sqrt();
    let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { scale } else { -scale };
    (0..x.len()).map(|i| x.iter().enumerate().map(|(j, x)| sign(i, j) * x).sum()).collect()
}

/// The number of a code of FP8 e4m3.
pub fn e4m3(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let magnitude = match exponent {
        0 => mantissa / 512.0,
        15 if code & 7 == 7 => f64::NAN,
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    };
    if code < 0x80 { magnitude } else { -magnitude }
}

/// The step between the numbers around `value` of a format with `mantissa` bits and the smallest normal number
/// `2^lowest`.
fn step(value: f64, mantissa: i32, lowest: i32) -> f64 {
    let exponent = value.abs().log2().floor().max(f64::from(lowest)) as i32;
    2f64.powi(exponent - mantissa)
}

/// The first channel whose stored bits are not those of a number next to `row`, and what is wrong with it.
pub fn first_wrong_bf16(row: &[f64], stored: &[u16]) -> Option<String> {
    let slack = ARITHMETIC * row.iter().fold(0.0, |most, x| f64::max(most, x.abs()));
    let wrong = |(right, bits): (&f64, &u16)| {
        let got = bf16::from_bits(*bits).to_f64();
        let bound = step(*right, 7, -126) / 2.0 + slack;
        ((got - right).abs() > bound || got.is_nan()).then(|| format!("{got}, not {right} +- {bound:e}"))
    };
    row.iter()
        .zip(stored)
        .enumerate()
        .find_map(|(i, pair)| wrong(pair).map(|text| format!("channel {i}: {text}")))
}

/// The same for FP8 codes of the row divided by `scale`.
pub fn first_wrong_fp8(row: &[f64], scale: f32, stored: &[u8]) -> Option<String> {
    let scale = f64::from(scale);
    let slack = ARITHMETIC * row.iter().fold(0.0, |most, x| f64::max(most, x.abs())) / scale;
    let wrong = |(right, code): (&f64, &u8)| {
        let right = (right / scale).clamp(-448.0, 448.0);
        let got = e4m3(*code);
        let bound = step(right, 3, -6) / 2.0 + slack;
        ((got - right).abs() > bound || got.is_nan())
            .then(|| format!("{got} ({code:#04x}), not {right} +- {bound:e}"))
    };
    row.iter()
        .zip(stored)
        .enumerate()
        .find_map(|(i, pair)| wrong(pair).map(|text| format!("channel {i}: {text}")))
}

/// What is wrong with the scale of a group of channels: it is the largest magnitude divided by 448, or 1 for zeros.
pub fn wrong_scale(group: &[f64], scale: f32) -> Option<String> {
    let most = group.iter().fold(0.0, |most, x| f64::max(most, x.abs()));
    let right = if most == 0.0 { 1.0 } else { most / 448.0 };
    let wrong = (f64::from(scale) / right - 1.0).abs() > 2.0 * ARITHMETIC || scale.is_nan();
    wrong.then(|| format!("scale {scale}, not {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transform_twice_is_none() {
        let x: Vec<f64> = (0..128).map(|i| f64::from(i * i % 37) - 11.5).collect();
        for (got, right) in hadamard(&hadamard(&x)).iter().zip(&x) {
            approx::assert_abs_diff_eq!(got, right, epsilon = 1e-12);
        }
    }

    #[test]
    fn a_number_next_to_the_right_one_passes_and_the_one_after_it_does_not() {
        let row = [1.1, -3.03, 0.02];
        let codes = [0x39, 0xc4, 0x0a];
        assert_eq!(first_wrong_fp8(&row, 1.0, &codes), None);
        for i in 0..3 {
            for code in [codes[i] + 1, codes[i] - 1, codes[i] ^ 0x80, 0x7f] {
                let mut wrong = codes;
                wrong[i] = code;
                let text = first_wrong_fp8(&row, 1.0, &wrong).unwrap();
                assert!(text.starts_with(&format!("channel {i}: ")), "{text}");
            }
        }
        let bits = row.map(|x| bf16::from_f64(x).to_bits());
        assert_eq!(first_wrong_bf16(&row, &bits), None);
        for i in 0..3 {
            for other in [bits[i] + 1, bits[i] - 1, bits[i] ^ 0x8000, 0x7fff] {
                let mut wrong = bits;
                wrong[i] = other;
                assert!(first_wrong_bf16(&row, &wrong).unwrap().starts_with(&format!("channel {i}: ")));
            }
        }
    }

    #[test]
    fn scales_are_of_the_largest_magnitude() {
        assert_eq!(wrong_scale(&[1.0, -2.0], 2.0 / 448.0), None);
        assert_eq!(wrong_scale(&[0.0, 0.0], 1.0), None);
        for (group, scale) in [([1.0, -2.0], 1.0 / 448.0), ([0.0, 0.0], 0.0), ([1.0, 1.0], f32::NAN)] {
            assert!(wrong_scale(&group, scale).is_some());
        }
    }
}
