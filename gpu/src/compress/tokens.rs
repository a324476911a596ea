//! The tokens of a request: where their rows come from, new or kept, and where they are kept.

use core::marker::PhantomData;

use dsa_simt::Global;

use super::number::{Channels, MAX_CHANNELS, Number, each_channel, load_f32};
use super::pool::Pool;
use super::request::Request;
use super::{Batch, width};

/// A thread's share of a token's row, as the state keeps it.
#[derive(Clone, Copy)]
pub struct Entry {
    /// A vector of values.
    pub kv: [u32; 4],
    /// A vector of scores with their bias.
    pub score: [u32; 4],
}

impl Entry {
    /// One that has no weight.
    #[inline(always)]
    pub fn nothing<S: Number>() -> Self {
        Self { kv: [0; 4], score: S::rounded([f32::NEG_INFINITY; MAX_CHANNELS]) }
    }
}

/// The physical pages of a token.
#[derive(Clone, Copy)]
pub struct Pages {
    kv: i32,
    score: i32,
}

impl Pages {
    /// Those that are in no pool.
    pub const NONE: Self = Self { kv: -1, score: -1 };
}

/// The tokens of a request, of type `K` when they are new, and `S` as they are kept.
#[derive(Clone, Copy)]
pub struct Tokens<K, S> {
    batch: Batch,
    /// The request.
    pub request: Request,
    ratio: u32,
    types: PhantomData<(K, S)>,
}

impl<K: Number, S: Number> Tokens<K, S> {
    /// The tokens of `request`, in windows of `ratio`.
    #[inline(always)]
    pub fn new(batch: Batch, request: Request, ratio: u32) -> Self {
        // At least 1, as promised; said again, or the compiler would have each division by it checked.
        let batch = Batch { page: batch.page.max(1), ..batch };
        Self { batch, request, ratio, types: PhantomData }
    }

    /// Columns of a kept row.
    #[inline(always)]
    fn width(&self) -> u32 {
        width(self.batch.head_dim, self.ratio)
    }

    /// The pages of the token at `position`: its logical page is in the tables.
    #[inline(always)]
    pub fn pages(&self, position: u32) -> Pages {
        self.pages_at(position / self.batch.page)
    }

    #[inline(always)]
    fn pages_at(&self, logical: u32) -> Pages {
        let page_of = |pool: &Pool| pool.page_of(self.request.number, logical);
        Pages { kv: page_of(&self.batch.kv), score: page_of(&self.batch.score) }
    }

    /// Whether these pages are in their pools.
    #[inline(always)]
    pub fn holds(&self, pages: Pages) -> bool {
        self.batch.kv.holds(pages.kv) & self.batch.score.holds(pages.score)
    }

    /// Whether any page of the tokens `from..to` is not in its pool, of those that this one of `threads` threads looks at:
    /// the request is bad if any of them says so.
    #[inline(always)]
    pub fn misses_pages(&self, from: u32, to: u32, thread: u32, threads: u32) -> bool {
        let mut missing = false;
        let mut logical = from / self.batch.page + thread;
        while logical < to.div_ceil(self.batch.page) {
            missing |= !self.holds(self.pages_at(logical));
            logical += threads;
        }
        missing
    }

    /// A vector of the token at `position`, which earlier launches kept in `pages`, from column `column` on.
    #[inline(always)]
    pub fn kept(&self, position: u32, pages: Pages, column: u32) -> Entry {
        let batch = &self.batch;
        let place =
            |pool: &Pool, page| pool.row_of_page(page, position % batch.page, self.width()) + column as usize;
        Entry {
            kv: S::vector(self.kv_pool(), place(&batch.kv, pages.kv)),
            score: S::vector(self.score_pool(), place(&batch.score, pages.score)),
        }
    }

    /// A vector of the new token at `position`, from column `column` on, as it is going to be kept.
    #[inline(always)]
    pub fn fresh(&self, position: u32, column: u32) -> Entry {
        let batch = &self.batch;
        let token = self.request.token + (position - self.request.start);
        // SAFETY: the launcher promises the rows, and the request's are among them; nothing writes them meanwhile.
        let rows = unsafe { K::array(batch.kv_score, batch.tokens as usize * batch.kv_score_pitch as usize) };
        let start = token as usize * batch.kv_score_pitch as usize + column as usize;
        let kv = K::load(rows, start, S::PER_VECTOR);
        let score = K::load(rows, start + self.width() as usize, S::PER_VECTOR);

        // SAFETY: the launcher promises `[R, W]` numbers, which nothing writes meanwhile.
        let ape = unsafe { Global::from_raw(batch.ape, (self.ratio * self.width()) as usize) };
        let bias = load_f32(ape, ((position % self.ratio) * self.width() + column) as usize, S::PER_VECTOR);
        let mut biased: Channels = [0.0; MAX_CHANNELS];
        each_channel!(S, c => {
            biased[c] = score[c] + bias[c];
        });
        Entry { kv: S::rounded(kv), score: S::rounded(biased) }
    }

    /// Keeps a vector of the new token at `position` in `pages`.
    #[inline(always)]
    pub fn keep(&self, position: u32, pages: Pages, column: u32, entry: Entry) {
        let batch = &self.batch;
        let place =
            |pool: &Pool, page| pool.row_of_page(page, position % batch.page, self.width()) + column as usize;
        S::set_vector(self.kv_pool(), place(&batch.kv, pages.kv), entry.kv);
        S::set_vector(self.score_pool(), place(&batch.score, pages.score), entry.score);
    }

    #[inline(always)]
    fn kv_pool(&self) -> S::Array {
        // SAFETY: the launcher promises the pool; of its rows, those of earlier tokens are only read, and each new one is
        // written by one thread, and not read.
        unsafe { S::array(self.batch.kv.start, self.batch.kv.elements()) }
    }

    #[inline(always)]
    fn score_pool(&self) -> S::Array {
        // SAFETY: as for the other pool.
        unsafe { S::array(self.batch.score.start, self.batch.score.elements()) }
    }
}
