//! What a launch tells the host about bad requests.
//!
//! Two words of device memory that the host zeroes when it has read them: the reasons, as bits, and the lowest request
//! that had one. They add up over launches.

use dsa_simt::{AtomicOp, Global};

/// Words of a report.
pub const WORDS: usize = 2;

/// A request's length is below the number of its new tokens, or beyond its table of pages.
pub const LENGTH: u32 = 1;
/// A page of a request, of those that would be read or written, is not in its pool.
pub const PAGE: u32 = 2;
/// A request's new tokens are not in the rows of new tokens, or too many.
pub const TOKENS: u32 = 4;
/// A request's output rows are not in the output.
pub const OUTPUT: u32 = 8;
/// A request's rows are at positions beyond the table of rotations.
pub const POSITION: u32 = 16;

/// The words that a launch reports in.
#[derive(Clone, Copy)]
pub struct Report(Global<u32>);

impl Report {
    /// The report at `words`.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], for [`WORDS`] words.
    #[inline(always)]
    pub unsafe fn from_raw(words: *mut u32) -> Self {
        // SAFETY: the caller's promise; all accesses are atomic.
        Self(unsafe { Global::from_raw(words, WORDS) })
    }

    /// Adds `reasons` for request `request`. One thread of those that decide is enough.
    #[inline(always)]
    pub fn add(self, request: u32, reasons: u32) {
        self.0.reduce(AtomicOp::Or, 0, reasons);
        // Of the complements the largest is that of the lowest request, and all are above 0, which says that there is
        // none.
        self.0.reduce(AtomicOp::Max, 1, !request);
    }

    /// [`add`](Self::add) for a request that is left out, unless it just has nothing new and there are no reasons;
    /// `speaks` for one thread of those that leave it out.
    #[inline(always)]
    pub fn refuse(self, request: u32, reasons: u32, speaks: bool) {
        if reasons != 0 && speaks {
            self.add(request, reasons);
        }
    }
}

/// The reasons and the lowest bad request that a report's words say, if there is one.
pub const fn read(words: [u32; WORDS]) -> Option<(u32, u32)> {
    if words[0] == 0 { None } else { Some((words[0], !words[1])) }
}
