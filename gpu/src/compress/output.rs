//! The output of a compression: `[rows, D]`, f32 or bf16.

use dsa_simt::{Global, Halves, bf16_pair};

use super::Batch;

impl Batch {
    /// Writes a number of the output. `row` is one of a request's, and no other thread writes it there.
    #[inline(always)]
    pub fn write(&self, row: u32, column: u32, number: f32) {
        let (index, len) = self.element(row, column);
        if self.out_bf16 {
            // SAFETY: the launcher promises `rows` rows, of which this is one; one thread writes each number.
            let out = unsafe { Halves::from_raw(self.out.cast(), len) };
            out.set(index, bf16_pair(number, 0.0) as u16);
        } else {
            // SAFETY: as above.
            let out = unsafe { Global::from_raw(self.out.cast::<f32>(), len) };
            out.set(index, number);
        }
    }

    /// [`write`](Self::write) for four numbers, from a column on that four divides.
    #[inline(always)]
    pub fn write4(&self, row: u32, column: u32, [a, b, c, d]: [f32; 4]) {
        let (index, len) = self.element(row, column);
        if self.out_bf16 {
            // SAFETY: as above.
            let out = unsafe { Halves::from_raw(self.out.cast(), len) };
            out.set4(index, [bf16_pair(a, b), bf16_pair(c, d)]);
        } else {
            // SAFETY: as above.
            let out = unsafe { Global::from_raw(self.out.cast::<f32>(), len) };
            out.set4(index, [a, b, c, d]);
        }
    }

    /// The element of the output that is a column of a row, and how many there are.
    #[inline(always)]
    fn element(&self, row: u32, column: u32) -> (usize, usize) {
        let pitch = self.out_pitch as usize;
        (row as usize * pitch + column as usize, self.rows as usize * pitch)
    }
}
