//! Requests in paged pools: what a launch is given, and what must be there after it.
//!
//! [`Requests`] mirrors the pools of a device byte for byte. A [`Step`] has the words and rows that a launch reads;
//! [`Requests::apply`] says what the launch must do to outputs, pools and report, by the contract alone: it decides
//! from the same untrusted words which requests are bad.
//!
//! Everything where nothing valid lives is [`POISON`], a NaN of every type: pages that no request has, rows of
//! pages that hold no token, the space between rows and pages. A page belongs to one request; the two pools have
//! their pages in different orders and numbers. Entries of tables that no launch may look at are garbage half of
//! the time.

use std::collections::BTreeMap;
use std::ops::Range;

use dsa_kernels_gpu::compress::number::NumberType;
use dsa_kernels_gpu::compress::report;

use super::reference::{Kept, Pooled, Sequence, Shape, rounded, to_bytes};
use crate::random::Random;

/// Fills what holds nothing.
pub const POISON: u8 = 0xff;

/// What the scores of tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Normal, with a deviation of 2.
    Normal,
    /// Near 10,000, so that their differences are small beside them.
    Offset,
    /// Uniform between -10,000 and 10,000: mostly one token has all the weight.
    Sharp,
    /// One of three, the bias a small whole number: many tokens share the maximum.
    Ties,
    /// Mostly -inf; a window has at least one finite score for each channel.
    Masked,
    /// All -inf: nothing has weight, and rows are zero.
    Nothing,
}

impl Scores {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Normal, Self::Offset, Self::Sharp, Self::Ties, Self::Masked, Self::Nothing];

    fn draw(self, random: &mut Random, shape: &Shape, position: usize, column: usize) -> f32 {
        match self {
            Self::Normal => 2.0 * random.normal(),
            Self::Offset => 1e4 + random.normal(),
            Self::Sharp => 2e4 * random.unit() - 1e4,
            Self::Ties => [-1e4, 0.0, 9_984.0][random.below(3)],
            Self::Masked => {
                let is_kept = position % shape.ratio == column % shape.ratio || random.chance(0.02);
                if is_kept { random.normal() } else { f32::NEG_INFINITY }
            }
            Self::Nothing => f32::NEG_INFINITY,
        }
    }

    fn bias(self, random: &mut Random) -> f32 {
        match self {
            Self::Ties => random.below(3) as f32,
            _ => 0.5 * random.normal(),
        }
    }
}

/// What does not change from launch to launch.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Seed of everything random.
    pub seed: u64,
    /// What is compressed.
    pub shape: Shape,
    /// Requests.
    pub requests: usize,
    /// Tokens of a page.
    pub page: usize,
    /// Most tokens of a request.
    pub max_len: usize,
    /// Most new tokens of a request in one launch.
    pub max_new: usize,
    /// What the scores are.
    pub scores: Scores,
    /// Whether the space between rows, pages and rows of tables is as small as can be.
    pub dense: bool,
}

impl Spec {
    /// Three requests of at most 1,000 tokens with normal scores, 8 new ones at most, and a page of a window.
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self {
            seed,
            shape,
            requests: 3,
            page: shape.ratio,
            max_len: 1_000,
            max_new: 8,
            scores: Scores::Normal,
            dense: false,
        }
    }

    /// Logical pages of a request.
    pub fn max_blocks(&self) -> usize {
        self.max_len.div_ceil(self.page)
    }

    /// Numbers between the row starts of `kv_score`.
    pub fn kv_score_pitch(&self) -> usize {
        2 * self.shape.width() + self.padding(8)
    }

    /// Numbers between the row starts of the output.
    pub fn output_pitch(&self) -> usize {
        self.shape.head_dim + self.padding(16)
    }

    /// Numbers between the starts of pages, of the two pools.
    pub fn page_pitches(&self) -> [usize; 2] {
        let page = self.page * self.shape.width();
        [page + self.padding(8), page + self.padding(24)]
    }

    /// Words between the rows of the two tables.
    pub fn table_pitches(&self) -> [usize; 2] {
        [self.max_blocks() + self.padding(3), self.max_blocks() + self.padding(1)]
    }

    /// Pages of the two pools: those that the requests can have at once, and a few that none has.
    pub fn pages(&self) -> [usize; 2] {
        let pages = self.requests * self.live_pages();
        [pages + 3, pages + 5]
    }

    /// Most pages that a request has at once.
    fn live_pages(&self) -> usize {
        // Windows that close reach back less than two windows.
        ((2 * self.shape.ratio + self.max_new).div_ceil(self.page) + 1).min(self.max_blocks())
    }

    /// Bytes of the two pools.
    pub fn pool_bytes(&self) -> [usize; 2] {
        let (pitches, pages) = (self.page_pitches(), self.pages());
        [0, 1].map(|pool| pages[pool] * pitches[pool] * self.shape.state.bytes())
    }

    fn padding(&self, numbers: usize) -> usize {
        if self.dense { 0 } else { numbers }
    }
}

/// What one launch is given beside the pools.
#[derive(Clone, Debug)]
pub struct Step {
    /// Length of each request after its new tokens.
    pub kv_lens: Vec<i32>,
    /// First new token of each request, then their number.
    pub cu_new: Vec<i32>,
    /// First output row of each request, then their number.
    pub cu_out: Vec<i32>,
    /// Rows of new tokens, `[kv (W) | score (W)]`, in numbers of their type.
    pub kv_score: Vec<f32>,
    /// Rows of the output.
    pub rows: usize,
    /// The tables of the two pools, rows of `Spec::table_pitches` words.
    pub tables: [Vec<i32>; 2],
}

impl Step {
    /// Rows of new tokens.
    pub fn tokens(&self, shape: &Shape) -> usize {
        self.kv_score.len() / (2 * shape.width())
    }
}

/// What an output row must be.
#[derive(Clone, Debug)]
pub struct ExpectedRow {
    /// The request it belongs to.
    pub request: usize,
    /// The window.
    pub window: usize,
    /// Its channels.
    pub channels: Vec<Pooled>,
}

/// What must be there after a launch, beside the pools.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Output rows by number; the others stay as they were.
    pub rows: BTreeMap<usize, ExpectedRow>,
    /// The reasons, as bits, and the lowest bad request.
    pub report: Option<(u32, u32)>,
}

/// Physical pages of one pool.
#[derive(Clone, Debug)]
struct Pages {
    /// Those that no request has.
    free: Vec<i32>,
    /// By request and logical page.
    used: BTreeMap<(usize, usize), i32>,
}

/// The requests, what they keep, and the pools that they keep it in.
#[derive(Clone, Debug)]
pub struct Requests {
    /// What does not change.
    pub spec: Spec,
    /// The bias, `[R, W]`.
    pub ape: Vec<f32>,
    /// The bytes of the two pools.
    pub pools: [Vec<u8>; 2],
    /// Whether the pools were changed by something that no launch does: new history, pages given back.
    pub pools_changed: bool,
    sequences: Vec<Sequence>,
    pages: [Pages; 2],
    random: Random,
}

/// A page that a request's tables name, or the reason why it is a bad one.
type Checked<T> = Result<T, u32>;

impl Requests {
    /// Requests without tokens.
    pub fn new(spec: Spec) -> Self {
        let mut random = Random::new(spec.seed ^ 0x636f_6d70);
        let Shape { ratio, .. } = spec.shape;
        let ape = (0..ratio * spec.shape.width()).map(|_| spec.scores.bias(&mut random)).collect();
        let pages = spec.pages().map(|count| {
            let mut free: Vec<_> = (0..count as i32).collect();
            shuffle(&mut random, &mut free);
            Pages { free, used: BTreeMap::new() }
        });
        Self {
            spec,
            ape,
            pools: spec.pool_bytes().map(|bytes| vec![POISON; bytes]),
            pools_changed: true,
            sequences: vec![Sequence::default(); spec.requests],
            pages,
            random,
        }
    }

    /// A launch after which request `b` has `lens[b]` tokens, the last `counts[b]` of them new. Older tokens that
    /// it needs and that were never written get random contents in the pools.
    ///
    /// A request without new tokens has any length.
    pub fn step(&mut self, lens: &[usize], counts: &[usize]) -> Step {
        assert_eq!((lens.len(), counts.len()), (self.spec.requests, self.spec.requests));
        let Spec { shape, max_len, scores, .. } = self.spec;
        let (mut cu_new, mut cu_out, mut kv_lens) = (vec![0], vec![0], Vec::new());
        let mut kv_score = Vec::new();
        let garbage = self.random.chance(0.5);
        for (request, (&len, &count)) in lens.iter().zip(counts).enumerate() {
            assert!(count <= len && (count == 0 || len <= max_len), "{count} new tokens of {len}");
            let closing = if count == 0 { 0..0 } else { shape.closing(len - count, len) };
            cu_new.push(cu_new[request] + count as i32);
            cu_out.push(cu_out[request] + closing.len() as i32);
            kv_lens.push(len as i32);
            if count > 0 {
                self.prepare(request, len - count, len);
            }
            for position in len - count..len {
                kv_score.extend(self.row(scores, position));
            }
        }
        let rows = cu_out[cu_out.len() - 1] as usize;
        let touched: Vec<_> = (lens.iter().zip(counts))
            .map(|(&len, &count)| if count == 0 { 0..0 } else { shape.touched(len - count, len) })
            .collect();
        let tables = [0, 1].map(|pool| self.table(pool, &touched, garbage));
        Step { kv_lens, cu_new, cu_out, kv_score, rows, tables }
    }

    /// Does to outputs, pools and report what the contract says for a launch with at most `max_new` new tokens of
    /// each request: from the words of the step alone, whatever they are.
    pub fn apply(&mut self, step: &Step, max_new: usize) -> Expected {
        let mut expected = Expected { rows: BTreeMap::new(), report: None };
        for request in 0..self.spec.requests {
            match self.apply_request(step, request, max_new) {
                Ok(rows) => expected.rows.extend(rows),
                Err(0) => {}
                Err(reasons) => {
                    let (others, lowest) = expected.report.unwrap_or((0, request as u32));
                    expected.report = Some((others | reasons, lowest));
                }
            }
        }
        expected
    }

    fn apply_request(
        &mut self,
        step: &Step,
        request: usize,
        max_new: usize,
    ) -> Checked<Vec<(usize, ExpectedRow)>> {
        let shape = self.spec.shape;
        let (len, token) = (i64::from(step.kv_lens[request]), i64::from(step.cu_new[request]));
        let new = i64::from(step.cu_new[request + 1]) - token;
        if new == 0 {
            return Err(0);
        }
        if token < 0 || new < 0 || new > max_new as i64 || token + new > step.tokens(&shape) as i64 {
            return Err(report::TOKENS);
        }
        let longest = (self.spec.page * self.spec.max_blocks()).min(i32::MAX as usize) as i64;
        if len < new || len > longest {
            return Err(report::LENGTH);
        }
        let (start, len, token) = ((len - new) as usize, len as usize, token as usize);
        let closing = shape.closing(start, len);
        let (row, row_end) = (step.cu_out[request], step.cu_out[request + 1]);
        if !closing.is_empty() {
            let room = i64::from(row_end) - i64::from(row);
            if row < 0 || row_end as i64 > step.rows as i64 || room < closing.len() as i64 {
                return Err(report::OUTPUT);
            }
        }
        let touched = shape.touched(start, len);
        let logical = touched.start / self.spec.page..touched.end.div_ceil(self.spec.page);
        let (pages, pitches) = (self.spec.pages(), self.spec.table_pitches());
        for pool in [0, 1] {
            let row = &step.tables[pool][request * pitches[pool]..];
            if row[logical.clone()].iter().any(|&page| page < 0 || page >= pages[pool] as i32) {
                return Err(report::PAGE);
            }
        }

        for position in start..len {
            let row = &step.kv_score[(token + position - start) * 2 * shape.width()..][..2 * shape.width()];
            let kept = Kept::of(&shape, &self.ape, position, row);
            for (pool, numbers) in [&kept.kv, &kept.score].into_iter().enumerate() {
                let page = step.tables[pool][request * pitches[pool] + position / self.spec.page];
                let place = self.place(pool, page, position);
                self.pools[pool][place].copy_from_slice(&to_bytes(shape.state, numbers));
            }
            self.sequences[request].tokens.insert(position, kept);
        }
        let row = |window: usize| {
            let channels = self.sequences[request].window(&shape, window);
            (row as usize + window - closing.start, ExpectedRow { request, window, channels })
        };
        Ok(closing.clone().map(row).collect())
    }

    /// A row of new tokens.
    fn row(&mut self, scores: Scores, position: usize) -> Vec<f32> {
        let Shape { kv, .. } = self.spec.shape;
        let width = self.spec.shape.width();
        let mut row: Vec<_> = (0..width).map(|_| rounded(kv, self.random.normal())).collect();
        for column in 0..width {
            row.push(rounded(kv, scores.draw(&mut self.random, &self.spec.shape, position, column)));
        }
        row
    }

    /// Gives a request the pages, and the older tokens, that it needs to get tokens `start..len`.
    fn prepare(&mut self, request: usize, start: usize, len: usize) {
        let Spec { shape, page, scores, .. } = self.spec;
        let touched = shape.touched(start, len);
        let logical = touched.start / page..touched.end.div_ceil(page);
        for number in logical.clone() {
            if !self.pages[0].used.contains_key(&(request, number)) {
                self.take_page(request, number, &logical);
            }
        }
        for position in touched.start..start {
            if !self.sequences[request].tokens.contains_key(&position) {
                let row = self.row(scores, position);
                let kept = Kept::of(&shape, &self.ape, position, &row);
                for (pool, numbers) in [&kept.kv, &kept.score].into_iter().enumerate() {
                    let page = self.pages[pool].used[&(request, position / page)];
                    let place = self.place(pool, page, position);
                    self.pools[pool][place].copy_from_slice(&to_bytes(shape.state, numbers));
                }
                self.sequences[request].tokens.insert(position, kept);
                self.pools_changed = true;
            }
        }
    }

    /// Gives a request logical page `number`; if it has all that it can, it gives back one that is not in `needed`.
    fn take_page(&mut self, request: usize, number: usize, needed: &Range<usize>) {
        let has: Vec<_> =
            self.pages[0].used.range((request, 0)..(request + 1, 0)).map(|(key, _)| key.1).collect();
        if has.len() >= self.spec.live_pages() {
            let old = has.iter().find(|page| !needed.contains(page));
            let old = old.unwrap_or_else(|| panic!("request {request} needs more pages than it can have"));
            self.give_back(request, *old);
        }
        for pages in &mut self.pages {
            let page = pages.free.pop().expect("there is one, or one was given back");
            pages.used.insert((request, number), page);
        }
    }

    fn give_back(&mut self, request: usize, number: usize) {
        let pitches = self.spec.page_pitches();
        for (pool, pages) in self.pages.iter_mut().enumerate() {
            let page = pages.used.remove(&(request, number)).expect("the request has the page");
            let bytes = pitches[pool] * self.spec.shape.state.bytes();
            self.pools[pool][page as usize * bytes..][..bytes].fill(POISON);
            // Behind the others: pages are not reused in the order that they are given back in.
            pages.free.insert(0, page);
        }
        let first = number * self.spec.page;
        self.sequences[request].tokens.retain(|&t, _| t < first || t >= first + self.spec.page);
        self.pools_changed = true;
    }

    /// A table; entries outside the pages that `touched` says are garbage if that is asked for.
    fn table(&mut self, pool: usize, touched: &[Range<usize>], garbage: bool) -> Vec<i32> {
        let Spec { page, requests, .. } = self.spec;
        let pitch = self.spec.table_pitches()[pool];
        let pages = self.spec.pages()[pool] as i32;
        let mut table: Vec<_> =
            (0..requests * pitch).map(|_| [-1, pages, i32::MIN, i32::MAX, 0][self.random.below(5)]).collect();
        for (&(request, number), &physical) in &self.pages[pool].used {
            let Range { start, end } = touched[request].clone();
            if !garbage || (start / page..end.div_ceil(page)).contains(&number) {
                table[request * pitch + number] = physical;
            }
        }
        table
    }

    /// The bytes of a token in a pool.
    fn place(&self, pool: usize, page: i32, position: usize) -> Range<usize> {
        let width = self.spec.shape.width();
        let first = page as usize * self.spec.page_pitches()[pool] + position % self.spec.page * width;
        let bytes = self.spec.shape.state.bytes();
        first * bytes..(first + width) * bytes
    }

    /// What byte `byte` of a pool belongs to, in words.
    pub fn owner(&self, pool: usize, byte: usize) -> String {
        let number = byte / self.spec.shape.state.bytes();
        let pitch = self.spec.page_pitches()[pool];
        let (page, within) = ((number / pitch) as i32, number % pitch);
        let width = self.spec.shape.width();
        let (row, column) = (within / width, within % width);
        match self.pages[pool].used.iter().find(|(_, physical)| **physical == page) {
            _ if row >= self.spec.page => format!("behind the rows of page {page}"),
            Some((&(request, logical), _)) => {
                let token = logical * self.spec.page + row;
                format!("page {page}, token {token} of request {request}, column {column}")
            }
            None => format!("page {page}, which no request has, row {row}, column {column}"),
        }
    }

    /// Forgets all tokens, but not which pages the requests have.
    pub fn forget(&mut self) {
        self.sequences.fill(Sequence::default());
        self.pools.iter_mut().for_each(|pool| pool.fill(POISON));
        self.pools_changed = true;
    }

    /// Pages that request `request` has in a pool, by logical page.
    pub fn physical(&self, pool: usize, request: usize, logical: usize) -> Option<i32> {
        self.pages[pool].used.get(&(request, logical)).copied()
    }
}

fn shuffle<T>(random: &mut Random, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

/// The type of a pair of numbers as names have it: `bf16_f32`.
pub fn types(shape: &Shape) -> String {
    format!("{}_{}", name(shape.kv), name(shape.state))
}

/// The name of a type.
pub fn name(kind: NumberType) -> &'static str {
    match kind {
        NumberType::F32 => "f32",
        NumberType::Bf16 => "bf16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        ratio: 4,
        head_dim: 8,
        kv: NumberType::Bf16,
        state: NumberType::F32,
        output: NumberType::F32,
    };

    fn requests(page: usize) -> Requests {
        Requests::new(Spec { page, max_len: 40, ..Spec::new(3, SHAPE) })
    }

    #[test]
    fn a_step_stores_its_tokens_and_emits_the_windows_that_close() {
        let mut requests = requests(3);
        let step = requests.step(&[9, 3, 0], &[3, 2, 0]);
        let before = requests.pools.clone();
        let expected = requests.apply(&step, 8);
        assert_eq!(expected.report, None);
        let rows: Vec<_> = expected.rows.iter().map(|(row, e)| (*row, e.request, e.window)).collect();
        assert_eq!(rows, [(0, 0, 1)]);
        let changed = |pool: usize| {
            let pairs = before[pool].iter().zip(&requests.pools[pool]);
            pairs.filter(|(old, new)| old != new).count()
        };
        // A number may have bytes 0xff, but for the most part bytes differ.
        let most = 5 * SHAPE.width() * 4;
        for pool in [0, 1] {
            assert!(changed(pool) <= most && changed(pool) > most / 2, "{} of {most}", changed(pool));
        }
    }

    #[test]
    fn pages_belong_to_one_request_and_come_back_poisoned() {
        let mut requests = requests(1);
        for len in [4, 12, 20, 28, 36, 4, 40, 16] {
            let step = requests.step(&[len, 40 - len, len], &[4.min(len), 8.min(40 - len), 1]);
            assert_eq!(requests.apply(&step, 8).report, None);
            for pages in &requests.pages {
                let mut all: Vec<_> = pages.free.iter().chain(pages.used.values()).copied().collect();
                all.sort_unstable();
                assert!(all.iter().copied().eq(0..all.len() as i32), "{all:?}");
            }
        }
        let bytes = requests.spec.page_pitches()[0] * 4;
        for &page in &requests.pages[0].free {
            assert!(requests.pools[0][page as usize * bytes..][..bytes].iter().all(|byte| *byte == POISON));
        }
    }

    #[test]
    fn each_bad_word_makes_its_request_a_bad_one_and_leaves_the_others() {
        let mut requests = requests(2);
        let step = requests.step(&[8, 9, 12], &[4, 3, 4]);
        let pages = requests.spec.pages();
        let pitches = requests.spec.table_pitches();
        let check = |break_it: &dyn Fn(&mut Step), wanted: Option<(u32, u32)>| {
            let mut broken = step.clone();
            break_it(&mut broken);
            let mut after = requests.clone();
            let expected = after.apply(&broken, 4);
            assert_eq!(expected.report, wanted);
            if wanted.is_some() {
                assert!(expected.rows.values().all(|row| Some(row.request as u32) != wanted.map(|w| w.1)));
                assert_eq!(expected.rows.values().filter(|row| row.request == 0).count(), 1);
            }
        };
        check(&|_| {}, None);
        check(&|step| step.kv_lens[1] = 2, Some((report::LENGTH, 1)));
        check(&|step| step.kv_lens[1] = -1, Some((report::LENGTH, 1)));
        check(&|step| step.kv_lens[1] = 41, Some((report::LENGTH, 1)));
        check(&|step| step.cu_new[3] = 12, Some((report::TOKENS, 2)));
        check(&|step| step.cu_out[3] = 4, Some((report::OUTPUT, 2)));
        check(&|step| step.tables[0][pitches[0] + 4] = -1, Some((report::PAGE, 1)));
        check(&|step| step.tables[1][2 * pitches[1] + 5] = pages[1] as i32, Some((report::PAGE, 2)));
    }

    #[test]
    fn a_rejected_token_is_overwritten() {
        let mut requests = requests(4);
        let first = requests.step(&[8, 0, 0], &[4, 0, 0]);
        let one = requests.apply(&first, 8).rows[&0].channels.clone();
        let second = requests.step(&[8, 0, 0], &[2, 0, 0]);
        let two = requests.apply(&second, 8).rows[&0].channels.clone();
        assert_ne!(one, two);
    }
}
