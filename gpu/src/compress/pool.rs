//! Paged memory: where the row of a token lies.

use dsa_simt::Global;

/// A pool of pages and the table that says which pages a request has.
#[derive(Clone, Copy)]
pub struct Pool {
    /// `[pages, page, W]`, aligned to 16 bytes.
    pub start: *mut u8,
    /// Distance between pages, in elements: at least `page * W`, a multiple of 16 bytes.
    pub page_pitch: u64,
    /// Pages.
    pub pages: u32,
    /// `i32[batch, max_blocks]`, aligned to 4 bytes, with any contents.
    pub blocks: *const i32,
    /// Distance between the rows of `blocks`, in elements; at least `max_blocks`.
    pub blocks_pitch: u64,
}

impl Pool {
    /// The physical page of logical page `logical`, which is below `max_blocks`, of a request.
    #[inline(always)]
    pub fn page_of(&self, request: u32, logical: u32) -> i32 {
        let row = u64::from(request) * self.blocks_pitch;
        // SAFETY: the launcher promises `max_blocks` entries for every request, and nothing writes them meanwhile.
        let blocks = unsafe { Global::from_raw(self.blocks.add(row as usize), logical as usize + 1) };
        blocks.get_readonly(logical as usize)
    }

    /// Whether a physical page is in the pool.
    #[inline(always)]
    pub fn holds(&self, page: i32) -> bool {
        // As unsigned numbers, what is below 0 is above every number of pages.
        page.cast_unsigned() < self.pages
    }

    /// Elements of the pool.
    #[inline(always)]
    pub fn elements(&self) -> usize {
        self.pages as usize * self.page_pitch as usize
    }
    /// The first element of row `row` of a physical page that is in the pool.
    #[inline(always)]
    pub fn row_of_page(&self, physical: i32, row: u32, width: u32) -> usize {
        physical as usize * self.page_pitch as usize + row as usize * width as usize
    }

    /// The first element of the row of a request's token at `position`, whose page is in the pool.
    #[inline(always)]
    pub fn row(&self, request: u32, position: u32, page: u32, width: u32) -> usize {
        self.row_of_page(self.page_of(request, position / page), position % page, width)
    }
}
