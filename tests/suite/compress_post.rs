//! What is stored of compressed rows: every format against f64, and nothing but what should be stored.

use dsa_kernels::{Device, LaunchConfig};
use dsa_kernels_gpu::compress::post::{Options, WARPS};
use dsa_kernels_gpu::compress::report;
use dsa_kernels_tests::compress::post_reference::{Steps, first_wrong_bf16, first_wrong_fp8, wrong_scale};
use dsa_kernels_tests::compress::raw;
use dsa_kernels_tests::random::Random;
use half::bf16;

use crate::support::{device, seed};

/// What every byte of cache and scales holds before a launch.
const POISON: u8 = 0x5a;

/// How rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Bf16,
    Tensor,
    Groups,
}

impl Format {
    const ALL: [Self; 3] = [Self::Bf16, Self::Tensor, Self::Groups];

    fn option(self) -> u32 {
        match self {
            Self::Bf16 => 0,
            Self::Tensor => Options::FP8_TENSOR,
            Self::Groups => Options::FP8_GROUPS,
        }
    }

    fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 1 }
    }
}

/// What a launch is given.
#[derive(Clone, Debug)]
struct Case {
    head_dim: usize,
    ratio: usize,
    format: Format,
    /// Whether the rows are bf16.
    bf16: bool,
    steps: Steps,
    page: usize,
    max_blocks: usize,
    pages: usize,
    tables: Vec<i32>,
    lens: Vec<i32>,
    cu_new: Vec<i32>,
    cu_out: Vec<i32>,
    rows: usize,
    compressed: Vec<f32>,
    positions: usize,
    rotations: Vec<f32>,
    scale: f32,
}

impl Case {
    /// Requests that grow from the one length to the other, with rows for a few more windows than they close.
    fn new(
        seed: u64,
        head_dim: usize,
        ratio: usize,
        format: Format,
        requests: &[(usize, usize, usize)],
    ) -> Self {
        let mut random = Random::new(seed);
        let emitted =
            |&(start, len, spare): &(usize, usize, usize)| (len / ratio - start / ratio + spare) as i32;
        let cu_out = raw::running_sums(requests.iter().map(emitted));
        let longest = requests.iter().map(|request| request.1).max().unwrap_or(0);
        let (page, batch) = (3, requests.len());
        let max_blocks = longest / ratio / page + 1;
        let pages = batch * max_blocks + 2;
        let rows = cu_out[batch] as usize + 2;
        let positions = longest + 1;
        let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal()).collect() };
        let (compressed, weight) = (numbers(rows * head_dim), numbers(head_dim));
        let angles = numbers(positions * 32);
        let rotations = angles.chunks_exact(32).flat_map(|position| {
            let turned = |f: fn(f32) -> f32| position.iter().map(move |&angle| f(3.0 * angle));
            turned(f32::cos).chain(turned(f32::sin)).collect::<Vec<_>>()
        });
        Self {
            head_dim,
            ratio,
            format,
            bf16: false,
            steps: Steps { weight, epsilon: 1e-6, hadamard: false },
            page,
            max_blocks,
            pages,
            lens: requests.iter().map(|request| request.1 as i32).collect(),
            cu_new: raw::running_sums(requests.iter().map(|request| (request.1 - request.0) as i32)),
            cu_out,
            rows,
            compressed,
            positions,
            rotations: rotations.collect(),
            scale: 0.0125,
            tables: raw::tables(&mut random, batch, max_blocks, max_blocks + 1, pages),
        }
    }

    fn batch(&self) -> usize {
        self.lens.len()
    }

    fn groups(&self) -> usize {
        self.head_dim / 128
    }

    /// Elements between pages of the cache, and between those of the scales: with some that belong to no row.
    fn page_pitches(&self) -> (usize, usize) {
        (self.page * self.head_dim + 16, self.page * self.groups() + 1)
    }

    /// The windows of a request that are stored, and its first row; or why it is a bad one, 0 if it has no new tokens.
    fn windows(&self, request: usize) -> Result<(std::ops::Range<usize>, usize), u32> {
        let at = |offsets: &[i32]| (i64::from(offsets[request]), i64::from(offsets[request + 1]));
        let ((token, token_end), (row, row_end)) = (at(&self.cu_new), at(&self.cu_out));
        let (len, ratio) = (i64::from(self.lens[request]), self.ratio as i64);
        let new = token_end - token;
        if new == 0 {
            return Err(0);
        }
        if token < 0 || new < 0 {
            return Err(report::TOKENS);
        }
        if len < new || len / ratio > (self.page * self.max_blocks) as i64 {
            return Err(report::LENGTH);
        }
        let windows = (len - new) / ratio..len / ratio;
        let count = windows.end - windows.start;
        if count == 0 {
            return Ok((0..0, 0));
        }
        if row < 0 || row_end > self.rows as i64 || row_end - row < count {
            return Err(report::OUTPUT);
        }
        let windows = windows.start as usize..windows.end as usize;
        let mut reasons = 0;
        if (windows.end - 1) * self.ratio >= self.positions {
            reasons |= report::POSITION;
        }
        if windows.clone().any(|window| !(0..self.pages as i32).contains(&self.page_of(request, window))) {
            reasons |= report::PAGE;
        }
        if reasons == 0 { Ok((windows, row as usize)) } else { Err(reasons) }
    }

    fn page_of(&self, request: usize, window: usize) -> i32 {
        self.tables[request * (self.max_blocks + 1) + window / self.page]
    }

    /// Launches the kernel: bytes of the cache, of the scales, and the report.
    fn run(&self, device: &Device) -> (Vec<u8>, Vec<u8>, [u32; 2]) {
        // Rows farther apart than they are long; what is between them is no number.
        let pitch = self.head_dim + 8;
        let mut rows = vec![f32::NAN; self.rows * pitch];
        for (to, from) in rows.chunks_exact_mut(pitch).zip(self.compressed.chunks_exact(self.head_dim)) {
            to[..self.head_dim].copy_from_slice(from);
        }
        let halves: Vec<u16> = rows.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
        let (rows, halves) = (device.upload(&rows).unwrap(), device.upload(&halves).unwrap());
        let (page_pitch, scales_pitch) = self.page_pitches();
        let cache = device.upload(&vec![POISON; self.pages * page_pitch * self.format.bytes()]).unwrap();
        let scales = device.upload(&vec![POISON; self.pages * scales_pitch * 4]).unwrap();
        let weight = device.upload(&self.steps.weight).unwrap();
        let rotations = device.upload(&self.rotations).unwrap();
        let scale = device.upload(&[self.scale]).unwrap();
        let offsets =
            [&self.tables, &self.lens, &self.cu_new, &self.cu_out].map(|x| device.upload(x).unwrap());
        let report = device.upload(&[0_u32; report::WORDS]).unwrap();
        let [tables, lens, cu_new, cu_out] = &offsets;
        let grid = self.rows.div_ceil(WARPS as usize) as u32;
        let hadamard = if self.steps.hadamard { Options::HADAMARD } else { 0 };
        let parameters = [
            ("compressed", if self.bf16 { halves.address() } else { rows.address() }),
            ("compressed_pitch", pitch as u64),
            ("compressed_bf16", u64::from(self.bf16)),
            ("weight", weight.address()),
            ("epsilon", u64::from(self.steps.epsilon.to_bits())),
            ("rotations", rotations.address()),
            ("positions", self.positions as u64),
            ("cache", cache.address()),
            ("cache_page_pitch", page_pitch as u64),
            ("cache_pages", self.pages as u64),
            ("cache_blocks", tables.address()),
            ("cache_blocks_pitch", self.max_blocks as u64 + 1),
            ("cache_page", self.page as u64),
            ("cache_max_blocks", self.max_blocks as u64),
            ("scales", if self.format == Format::Groups { scales.address() } else { 0 }),
            ("scales_page_pitch", scales_pitch as u64),
            ("scale", if self.format == Format::Tensor { scale.address() } else { 0 }),
            ("kv_lens", lens.address()),
            ("cu_new", cu_new.address()),
            ("cu_out", cu_out.address()),
            ("report", report.address()),
            ("batch", self.batch() as u64),
            ("rows", self.rows as u64),
            ("head_dim", self.head_dim as u64),
            ("ratio", self.ratio as u64),
            ("options", u64::from(self.format.option() | hadamard)),
        ];
        // Overlapping, so that the emulator reports a thread that does not wait.
        let config = LaunchConfig::new(grid, WARPS * 32).with_overlap(true);
        // SAFETY: the buffers are as large as the documentation of the kernel says, and live until the launch has
        // ended.
        unsafe { raw::launch(device, "post", config, &parameters) }.unwrap();
        let words = report.download().unwrap();
        (cache.download().unwrap(), scales.download().unwrap(), [words[0], words[1]])
    }

    /// Runs the case and checks every byte; returns the stored windows.
    fn check(&self, device: &Device) -> usize {
        let (cache, scales, words) = self.run(device);
        let (page_pitch, scales_pitch) = self.page_pitches();
        let (mut untouched_cache, mut untouched_scales) = (cache.clone(), scales.clone());
        let (mut reasons, mut lowest, mut stored) = (0, None, 0);
        let about = format!(
            "D {}, R {}, {:?}, bf16 {}, {:?}",
            self.head_dim, self.ratio, self.format, self.bf16, self.steps.hadamard
        );
        for request in 0..self.batch() {
            let (windows, first_row) = match self.windows(request) {
                Ok(windows) => windows,
                Err(0) => continue,
                Err(why) => {
                    reasons |= why;
                    lowest = lowest.or(Some(request as u32));
                    continue;
                }
            };
            for window in windows.clone() {
                let row = (first_row + window - windows.start) * self.head_dim;
                let angles = &self.rotations[window * self.ratio * 64..][..64];
                let right = self.steps.apply(&self.compressed[row..row + self.head_dim], angles);
                let (page, in_page) = (self.page_of(request, window) as usize, window % self.page);
                let bytes = self.format.bytes();
                let place = (page * page_pitch + in_page * self.head_dim) * bytes;
                let place = place..place + self.head_dim * bytes;
                let got = &cache[place.clone()];
                untouched_cache[place].fill(POISON);
                let wrong = match self.format {
                    Format::Bf16 => {
                        let halves: Vec<u16> =
                            got.chunks_exact(2).map(|x| u16::from_ne_bytes([x[0], x[1]])).collect();
                        first_wrong_bf16(&right, &halves)
                    }
                    Format::Tensor => first_wrong_fp8(&right, self.scale, got),
                    Format::Groups => (0..self.groups()).find_map(|group| {
                        let place = (page * scales_pitch + in_page * self.groups() + group) * 4;
                        let bits = [0, 1, 2, 3].map(|byte| scales[place + byte]);
                        untouched_scales[place..place + 4].fill(POISON);
                        let (scale, channels) = (f32::from_ne_bytes(bits), group * 128..(group + 1) * 128);
                        let right = &right[channels.clone()];
                        wrong_scale(right, scale).or_else(|| first_wrong_fp8(right, scale, &got[channels]))
                    }),
                };
                if let Some(wrong) = wrong {
                    panic!("{about}: request {request}, window {window}: {wrong}");
                }
                stored += 1;
            }
        }
        for (name, bytes) in [("cache", &untouched_cache), ("scales", &untouched_scales)] {
            let touched = bytes.iter().position(|byte| *byte != POISON);
            assert_eq!(touched, None, "{about}: this byte of the {name} was written");
        }
        let right = if reasons == 0 { None } else { lowest.map(|lowest| (reasons, lowest)) };
        assert_eq!(report::read(words), right, "{about}: the report of {:?}", (&self.lens, &self.cu_out));
        stored
    }
}

/// Requests of which some store nothing, and some have more rows than windows.
const RAGGED: [(usize, usize, usize); 6] =
    [(0, 9, 0), (5, 7, 0), (130, 150, 2), (12, 12, 1), (127, 128, 0), (0, 3, 2)];

#[test]
fn every_format_is_right_for_every_size() {
    let seed = seed(301);
    let device = device(seed);
    let mut item = seed;
    for head_dim in [128, 512] {
        for format in Format::ALL {
            for (ratio, bf16, hadamard) in
                [(4, false, false), (4, true, true), (128, true, false), (128, false, true)]
            {
                item += 1;
                let mut case = Case::new(item, head_dim, ratio, format, &RAGGED);
                case.bf16 = bf16;
                case.steps.hadamard = hadamard;
                assert_eq!(case.check(&device), if ratio == 4 { 8 } else { 1 });
            }
        }
    }
}

#[test]
fn the_order_of_the_steps_shows_with_large_rows_and_a_large_epsilon() {
    let seed = seed(302);
    let device = device(seed);
    for head_dim in [128, 512] {
        let mut case = Case::new(seed, head_dim, 4, Format::Bf16, &RAGGED);
        case.steps = Steps { epsilon: 7.5, hadamard: true, ..case.steps };
        for (i, x) in case.compressed.iter_mut().enumerate() {
            *x *= [1e-3, 1.0, 3e4][i / head_dim % 3];
        }
        case.check(&device);
    }
}

#[test]
fn a_row_of_zeros_has_a_scale_that_can_be_divided_by() {
    let seed = seed(303);
    let device = device(seed);
    for head_dim in [128, 512] {
        let mut case = Case::new(seed, head_dim, 4, Format::Groups, &[(0, 8, 0)]);
        case.compressed[..head_dim].fill(0.0);
        // One group of the other row, too, if there are several.
        case.compressed[head_dim..head_dim + 128].fill(0.0);
        assert_eq!(case.check(&device), 2);
    }
}

#[test]
fn what_is_too_large_for_the_scale_is_the_largest_number() {
    let seed = seed(304);
    let device = device(seed);
    for head_dim in [128, 512] {
        let mut case = Case::new(seed, head_dim, 4, Format::Tensor, &[(0, 8, 0)]);
        case.scale = 1e-3;
        case.check(&device);
        let (cache, ..) = case.run(&device);
        assert!(cache.contains(&0x7e) && cache.contains(&0xfe), "nothing is too large");
    }
}

#[test]
fn a_bad_request_stores_nothing_and_the_others_do() {
    let seed = seed(305);
    let device = device(seed);
    let requests = [(0, 9, 0), (17, 45, 0), (5, 17, 1)];
    let good = Case::new(seed, 128, 4, Format::Bf16, &requests);
    assert_eq!(good.check(&device), 2 + 7 + 3);
    let pages = good.pages as i32;
    let pitch = good.max_blocks + 1;
    let mut bad: Vec<(u32, Case)> = Vec::new();
    let mut add = |reasons: u32, change: &dyn Fn(&mut Case)| {
        let mut case = good.clone();
        change(&mut case);
        bad.push((reasons, case));
    };
    // Request 1 has windows 4 to 10: pages 1 to 3.
    for logical in 1..4 {
        for page in [-1, i32::MIN, pages, i32::MAX] {
            add(report::PAGE, &|case| case.tables[pitch + logical] = page);
        }
    }
    for len in [-1, i32::MIN, 27, 52, 4096, i32::MAX] {
        add(report::LENGTH, &|case| case.lens[1] = len);
    }
    add(report::POSITION, &|case| case.positions = 40);
    add(report::TOKENS, &|case| case.cu_new[1] = case.cu_new[2] + 1);
    add(report::TOKENS, &|case| {
        case.cu_new[0] = -5;
        case.lens[0] = 14;
    });
    for end in [8, 2, 1, -1, good.rows as i32 + 1, i32::MAX] {
        add(report::OUTPUT, &|case| case.cu_out[2] = end);
    }
    for (reasons, case) in bad {
        let is_bad = |request: usize| case.windows(request).is_err_and(|why| why & reasons != 0);
        assert!((0..3).any(is_bad), "{reasons}: {:?}", (&case.lens, &case.cu_out, &case.tables));
        assert!(case.check(&device) < 12);
    }
    // Pages that no window needs may be anything.
    let mut case = good;
    case.tables[pitch] = -1;
    case.tables[1] = i32::MIN;
    case.tables[2 * pitch + 2] = pages;
    assert_eq!(case.check(&device), 12);
    // The longest request that the table has room for.
    case.lens[1] = 51;
    assert_eq!(case.check(&device), 12);
}

#[test]
fn any_offsets_are_safe() {
    let seed = seed(306);
    let device = device(seed);
    let requests: Vec<_> = (0..9).map(|i| (i, 4 + 3 * i, i % 2)).collect();
    let good = Case::new(seed, 128, 4, Format::Groups, &requests);
    let all = good.check(&device);
    let mut random = Random::new(seed);
    let (mut stored, mut bad) = (0, 0);
    for _ in 0..25 {
        let mut case = good.clone();
        for _ in 0..1 + random.below(3) {
            let words = match random.below(6) {
                0 => &mut case.lens,
                1 => &mut case.cu_new,
                _ => &mut case.cu_out,
            };
            let at = random.below(words.len());
            words[at] = match random.below(5) {
                0 => [i32::MIN, i32::MAX, -1][random.below(3)],
                _ => random.below(good.rows + 3) as i32 - 1,
            };
        }
        stored += case.check(&device);
        bad += (0..case.batch()).filter(|&request| case.windows(request).is_err_and(|why| why != 0)).count();
    }
    assert!(stored > 10 * all && bad > 25, "{stored} of {all} stored, {bad} bad");
}

#[test]
fn all_requests_of_a_large_batch_are_found() {
    let seed = seed(307);
    let device = device(seed);
    // More than a warp reads the offsets of at a time, and more than there are threads.
    let emits = |i: usize| i % 97 == 31 || i == 63;
    let requests: Vec<_> = (0..700).map(|i| if emits(i) { (3, 5, 0) } else { (1, 2, 0) }).collect();
    let mut case = Case::new(seed, 128, 4, Format::Tensor, &requests);
    case.lens[699] = -7;
    // Two requests of the same lane have the same row.
    (case.cu_out[63], case.cu_out[64]) = (0, 1);
    assert_eq!(case.windows(63), Ok((0..1, 0)));
    assert_eq!(case.windows(31), Ok((0..1, 0)));
    assert_eq!(case.check(&device), 8);
    // A bad page of the only window, and no other bad request.
    case.lens[699] = 2;
    case.tables[225 * (case.max_blocks + 1)] = -1;
    assert_eq!(case.check(&device), 7);
}
