//! The tokens of a request: where their rows come from, new or kept, and where they are kept.

use core::marker::PhantomData;

use dsa_simt::{Global, warp};

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

/// Where a token is kept: its physical page in each pool, and its row in both.
#[derive(Clone, Copy)]
pub struct Place {
    kv: i32,
    score: i32,
    row: u32,
}

impl Place {
    /// One that is in no pool.
    pub const NONE: Self = Self { kv: -1, score: -1, row: 0 };

    /// The place that lane `lane` has. Collective over the warp.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn of_lane(self, lane: u32) -> Self {
        let page = |page: i32| warp::shuffle(warp::ALL, page.cast_unsigned(), lane).cast_signed();
        Self { kv: page(self.kv), score: page(self.score), row: warp::shuffle(warp::ALL, self.row, lane) }
    }
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

    /// Where the token at `position` is kept: its logical page is in the tables.
    #[inline(always)]
    pub fn place(&self, position: u32) -> Place {
        self.place_in(position / self.batch.page, position % self.batch.page)
    }

    #[inline(always)]
    fn place_in(&self, logical: u32, row: u32) -> Place {
        let page_of = |pool: &Pool| pool.page_of(self.request.number, logical);
        Place { kv: page_of(&self.batch.kv), score: page_of(&self.batch.score), row }
    }

    /// Whether a place is in the pools.
    #[inline(always)]
    pub fn holds(&self, place: Place) -> bool {
        self.batch.kv.holds(place.kv) & self.batch.score.holds(place.score)
    }

    /// Whether any page of the tokens `from..to` is not in its pool, of those that this one of `threads` threads looks at:
    /// the request is bad if any of them says so.
    #[inline(always)]
    pub fn misses_pages(&self, from: u32, to: u32, thread: u32, threads: u32) -> bool {
        let mut missing = false;
        let mut logical = from / self.batch.page + thread;
        while logical < to.div_ceil(self.batch.page) {
            missing |= !self.holds(self.place_in(logical, 0));
            logical += threads;
        }
        missing
    }

    /// A vector of the token that earlier launches kept at `place`, from column `column` on.
    #[inline(always)]
    pub fn kept(&self, place: Place, column: u32) -> Entry {
        let (kv, score) = self.elements(place, column);
        Entry { kv: S::vector(self.kv_pool(), kv), score: S::vector(self.score_pool(), score) }
    }

    /// A vector of the new token at `position`, from column `column` on, as it is going to be kept.
    #[inline(always)]
    pub fn fresh(&self, position: u32, column: u32) -> Entry {
        let (kv, score) = self.new_row(position, column);
        let bias = self.bias(position, column);
        let mut biased: Channels = [0.0; MAX_CHANNELS];
        each_channel!(S, c => {
            biased[c] = score[c] + bias[c];
        });
        Entry { kv: S::rounded(kv), score: S::rounded(biased) }
    }

    /// Begins to bring what [`fresh`](Self::fresh) reads of a new token's row to the second-level cache.
    #[inline(always)]
    pub fn prefetch(&self, position: u32, column: u32) {
        let (rows, start) = self.new_element(position, column);
        K::prefetch(rows, start);
        K::prefetch(rows, start + self.width() as usize);
    }

    /// Values and scores of the new token at `position`, from column `column` on.
    #[inline(always)]
    pub fn new_row(&self, position: u32, column: u32) -> (Channels, Channels) {
        let (rows, start) = self.new_element(position, column);
        (K::load(rows, start, S::PER_VECTOR), K::load(rows, start + self.width() as usize, S::PER_VECTOR))
    }

    /// The rows of new tokens, and the element of them that is column `column` of the token at `position`.
    #[inline(always)]
    fn new_element(&self, position: u32, column: u32) -> (K::Array, usize) {
        let batch = &self.batch;
        let token = self.request.token + (position - self.request.start);
        // SAFETY: the launcher promises the rows, and the request's are among them; nothing writes them meanwhile.
        let rows = unsafe { K::array(batch.kv_score, batch.tokens as usize * batch.kv_score_pitch as usize) };
        (rows, token as usize * batch.kv_score_pitch as usize + column as usize)
    }

    /// What the scores of the token at `position` are biased by, from column `column` on.
    #[inline(always)]
    pub fn bias(&self, position: u32, column: u32) -> Channels {
        // SAFETY: the launcher promises `[R, W]` numbers, which nothing writes meanwhile.
        let ape = unsafe { Global::from_raw(self.batch.ape, (self.ratio * self.width()) as usize) };
        load_f32(ape, ((position % self.ratio) * self.width() + column) as usize, S::PER_VECTOR)
    }

    /// Keeps a vector of a new token at `place`.
    #[inline(always)]
    pub fn keep(&self, place: Place, column: u32, entry: Entry) {
        let (kv, score) = self.elements(place, column);
        S::set_vector(self.kv_pool(), kv, entry.kv);
        S::set_vector(self.score_pool(), score, entry.score);
    }

    /// The elements of the two pools that are column `column` of a place in them.
    #[inline(always)]
    fn elements(&self, place: Place, column: u32) -> (usize, usize) {
        let element = |pool: &Pool, page| pool.row_of_page(page, place.row, self.width()) + column as usize;
        (element(&self.batch.kv, place.kv), element(&self.batch.score, place.score))
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
