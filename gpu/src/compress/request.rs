//! A request of a launch: what the device's words say of it, checked.

use dsa_simt::Global;

use super::{Batch, report};

/// A request whose length and offsets were found to be right. Its pages were not looked at yet.
#[derive(Clone, Copy)]
pub struct Request {
    /// Its number.
    pub number: u32,
    /// Position of its first new token.
    pub start: u32,
    /// Its length after the new tokens: above `start`.
    pub len: u32,
    /// Row of its first new token.
    pub token: u32,
    /// Row of its first output.
    pub row: u32,
}

/// Where the words of a launch say that a request's tokens are, and what its rows are.
#[derive(Clone, Copy)]
pub struct Offsets {
    /// `i32[batch]`.
    pub kv_lens: *const i32,
    /// `i32[batch + 1]`.
    pub cu_new: *const i32,
    /// `i32[batch + 1]`.
    pub cu_out: *const i32,
    /// Requests.
    pub batch: u32,
    /// Rows of new tokens.
    pub tokens: u32,
    /// Rows of output.
    pub rows: u32,
    /// Most new tokens of a request.
    pub max_new: u32,
    /// Most tokens of a request at all.
    pub max_len: u32,
}

impl Batch {
    /// What requests are found by.
    #[inline(always)]
    pub fn offsets(&self) -> Offsets {
        Offsets {
            kv_lens: self.kv_lens,
            cu_new: self.cu_new,
            cu_out: self.cu_out,
            batch: self.batch,
            tokens: self.tokens,
            rows: self.rows,
            max_new: self.max_new,
            max_len: u64::min(u64::from(self.page) * u64::from(self.max_blocks), i32::MAX as u64) as u32,
        }
    }
}

impl Offsets {
    /// Request `number`, below `batch`; or the reasons why it is a bad one: 0 if it just has no new tokens.
    #[inline(always)]
    pub fn request(&self, number: u32, ratio: u32) -> Result<Request, u32> {
        let index = number as usize;
        // SAFETY: the launcher promises the words, and nothing writes them meanwhile.
        let (kv_lens, cu_new, cu_out) = unsafe {
            let batch = self.batch as usize;
            (
                Global::from_raw(self.kv_lens, batch),
                Global::from_raw(self.cu_new, batch + 1),
                Global::from_raw(self.cu_out, batch + 1),
            )
        };
        let len = kv_lens.get_readonly(index);
        let (token, end) = (cu_new.get_readonly(index), cu_new.get_readonly(index + 1));
        let (row, row_end) = (cu_out.get_readonly(index), cu_out.get_readonly(index + 1));

        if token == end {
            return Err(0);
        }
        // The difference of two numbers of which the lower is not negative does not wrap.
        if token < 0 || end < token || end.cast_unsigned() > self.tokens {
            return Err(report::TOKENS);
        }
        let new = (end - token).cast_unsigned();
        if new > self.max_new {
            return Err(report::TOKENS);
        }
        if len < 0 || len.cast_unsigned() < new || len.cast_unsigned() > self.max_len {
            return Err(report::LENGTH);
        }
        let len = len.cast_unsigned();
        let start = len - new;
        let emitted = len / ratio - start / ratio;
        if emitted > 0 {
            let fits = row >= 0
                && row_end >= row
                && row_end.cast_unsigned() <= self.rows
                && (row_end - row).cast_unsigned() >= emitted;
            if !fits {
                return Err(report::OUTPUT);
            }
        }
        Ok(Request { number, start, len, token: token.cast_unsigned(), row: row.cast_unsigned() })
    }
}

impl Request {
    /// The output row of window `number`, one of those that the new tokens close.
    #[inline(always)]
    pub fn row_of(&self, window: u32, ratio: u32) -> u32 {
        self.row + (window - self.start / ratio)
    }
}
