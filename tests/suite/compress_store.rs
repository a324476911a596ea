//! Decodes that store the rows that they write: the same as two launches, to the bit, and everything around it untouched.

use dsa_kernels::compress::{CompressArgs, ElementType, PagedTensor, PostArgs, Store, Tensor};
use dsa_kernels::{Buffer, Device};
use dsa_kernels_gpu::compress::configuration::Mode;
use dsa_kernels_gpu::compress::{HEAD_DIMS, report};
use dsa_kernels_tests::compress::batch::Spec;
use dsa_kernels_tests::compress::harness::{Harness, Launch};
use dsa_kernels_tests::compress::reference::Shape;
use dsa_kernels_tests::random::Random;

use crate::compress_cache::Cache;
use crate::compress_support::{LONG, SHORT, configurations, harness, random_step, shape_of, with_types};
use crate::support::{device, scaled, seed};

/// Places a step, runs a decode that stores, and checks outputs, pools and cache.
fn check(harness: &mut Harness, cache: &mut Cache, lens: &[usize], counts: &[usize]) {
    let step = harness.requests.step(lens, counts);
    harness.place(&step).unwrap();
    let args = harness.args(step.tokens(&harness.requests.spec.shape), step.rows).unwrap();
    let post = cache.args(&args).unwrap();
    // SAFETY: the arguments are those of buffers of `harness` and `cache`; `verify` waits for the launch.
    unsafe { harness.compressor.enqueue_decode_store(&harness.stream, 8, &args, &post) }.unwrap();
    let shape = harness.requests.spec.shape;
    let expected = harness
        .verify(Launch::Decode(8), &step)
        .unwrap_or_else(|error| panic!("{shape:?}, lengths {lens:?}, new tokens {counts:?}: {error}"));
    assert_eq!(expected.report, None);
    cache.verify(harness, &expected);
}

#[test]
fn every_configuration_stores_what_it_writes() {
    let seed = seed(161);
    let device = device(seed);
    let mut random = Random::new(seed);
    for ratio in [128, 4] {
        for (number, configuration) in configurations(Mode::DecodeStore, ratio).into_iter().enumerate() {
            for head_dim in HEAD_DIMS {
                let output = with_types(LONG, number + 2).output;
                let shape = shape_of(configuration, head_dim as usize, output);
                let spec =
                    Spec { page: 16, max_len: 5 * ratio + 8, ..Spec::new(seed + number as u64, shape) };
                let mut harness = harness(&device, spec, |builder| builder);
                assert_eq!(harness.compressor.plan().decode_store_entry(), Some(configuration.entry));
                let mut cache = Cache::new(&device, spec, &mut random).unwrap();
                cache.shuffle(&mut random).unwrap();
                // One that closes a window, one that does not, one that begins; then two windows at once.
                let lens = [2 * ratio + 1, 3 * ratio - 1, 3];
                check(&mut harness, &mut cache, &lens, &[4, 3, 3]);
                let next = [lens[0] + 8, lens[1] + 2, lens[2] + 6];
                check(&mut harness, &mut cache, &next, &[8, 2, 6]);
            }
        }
    }
}

/// From one request, whose tiles many blocks share, to more than the device holds, each of which has a block.
#[test]
fn any_number_of_requests_store_their_rows() {
    let seed = seed(162);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        for requests in scaled(&[1, 3, 9][..], &[1, 2, 3, 5, 9, 40, 150, 300][..]) {
            let shape = Shape { head_dim: 512, ..with_types(shape, number + requests) };
            let spec = Spec {
                requests: *requests,
                page: 32,
                max_len: 3 * shape.ratio,
                max_new: 8,
                ..Spec::new(seed, shape)
            };
            let mut harness = harness(&device, spec, |builder| builder);
            let mut cache = Cache::new(&device, spec, &mut random).unwrap();
            let mut lens = vec![shape.ratio + 1; *requests];
            let counts = vec![3; *requests];
            check(&mut harness, &mut cache, &lens, &counts);
            for _ in 0..scaled(2, 20) {
                cache.shuffle(&mut random).unwrap();
                let (next, counts) = random_step(&mut random, &spec, &lens, 8);
                check(&mut harness, &mut cache, &next, &counts);
                lens = next;
            }
        }
    }
}

/// Where rows go, in any format.
struct Formats {
    cache: Buffer<u8>,
    scales: Buffer<f32>,
    scale: Buffer<f32>,
}

impl Formats {
    fn new(device: &Device, len: usize) -> Self {
        let (cache, scales) = (device.alloc(len).unwrap(), device.alloc(len / 128).unwrap());
        cache.fill_bytes(0x5a).unwrap();
        scales.fill_bytes(0x5a).unwrap();
        Self { cache, scales, scale: device.upload(&[0.02f32]).unwrap() }
    }

    /// `args` with the cache in format `number` of three.
    fn args(&self, args: &PostArgs, number: usize) -> PostArgs {
        let [pages, page, head_dim] = args.cache.pool.shape;
        let (ty, store) = match number {
            0 => (ElementType::Bf16, Store::Bf16),
            1 => (ElementType::F8E4M3, Store::Fp8PerTensor { scale: Tensor::of(&self.scale, [1]).unwrap() }),
            _ => {
                let scales = Tensor::of(&self.scales, [pages, page, head_dim / 128]).unwrap();
                (ElementType::F8E4M3, Store::Fp8PerGroup { scales })
            }
        };
        let pool = Tensor::raw(self.cache.address(), ty, [pages, page, head_dim]);
        let cache = PagedTensor { pool, ..args.cache.clone() };
        PostArgs { cache, store, hadamard: number != 1, ..args.clone() }
    }

    fn bytes(&self) -> (Vec<u8>, Vec<u32>) {
        let scales = self.scales.download().unwrap();
        (self.cache.download().unwrap(), scales.into_iter().map(f32::to_bits).collect())
    }
}

#[test]
fn every_format_is_the_same_in_one_launch_as_in_two() {
    let seed = seed(163);
    let device = device(seed);
    let mut random = Random::new(seed);
    for number in 0..12 {
        let shape = with_types([LONG, SHORT][number % 2], number);
        let shape = Shape { head_dim: HEAD_DIMS[number / 2 % 2] as usize, ..shape };
        let spec = Spec { page: 20, max_len: 3 * shape.ratio, ..Spec::new(seed, shape) };
        let mut harness = harness(&device, spec, |builder| builder);
        let cache = Cache::new(&device, spec, &mut random).unwrap();
        let step = harness.requests.step(&[shape.ratio + 2, 2 * shape.ratio, 7], &[3, 8, 7]);
        let args = harness.args(step.tokens(&shape), step.rows).unwrap();
        let post = cache.args(&args).unwrap();
        let stored = [2, 1].map(|launches| {
            let formats = Formats::new(&device, cache.pool.len());
            let post = formats.args(&post, number % 3);
            harness.requests.pools_changed = true;
            harness.place(&step).unwrap();
            // SAFETY: the arguments are those of buffers of `harness`, `cache` and `formats`; reading waits.
            unsafe {
                if launches == 1 {
                    harness.compressor.enqueue_decode_store(&harness.stream, 8, &args, &post).unwrap();
                } else {
                    harness.compressor.enqueue_decode(&harness.stream, 8, &args).unwrap();
                    harness.compressor.enqueue_post(&harness.stream, &post).unwrap();
                }
            }
            harness.stream.synchronize().unwrap();
            assert_eq!(harness.compressor.take_report().unwrap(), None);
            formats.bytes()
        });
        assert!(stored[0] == stored[1], "{shape:?}, format {}", number % 3);
        assert!(stored[0].0.iter().any(|byte| *byte != 0x5a), "something is stored");
    }
}

/// A request whose cache is bad is compressed all the same, stores nothing and is reported; the others are stored.
#[test]
fn a_bad_cache_is_reported_and_nothing_is_stored_in_it() {
    let seed = seed(164);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        let shape = Shape { head_dim: 512, ..with_types(shape, number + 1) };
        let spec = Spec { page: 32, max_len: 24 * shape.ratio, ..Spec::new(seed, shape) };
        let lens = [shape.ratio + 1, 8 * shape.ratio, 7];
        type Break = fn(PostArgs) -> PostArgs;
        let broken: [(u32, bool, Break); 3] = [
            (report::PAGE, true, |args| args),
            // A table for windows up to 6, and angles for positions before its window.
            (report::LENGTH, false, |mut args| {
                args.cache.blocks.shape[1] = 1;
                args
            }),
            (report::POSITION, false, |mut args| {
                args.rotations.shape[0] = 10;
                args
            }),
        ];
        for (reason, breaks_page, break_args) in broken {
            let mut harness = harness(&device, spec, |builder| builder);
            let mut cache = Cache::new(&device, spec, &mut random).unwrap();
            let step = harness.requests.step(&lens, &[2, 2, 7]);
            if breaks_page {
                cache.table[Cache::max_blocks(&spec) + 1] = -1;
                cache.blocks.upload(&cache.table).unwrap();
            }
            harness.place(&step).unwrap();
            let args: CompressArgs = harness.args(step.tokens(&shape), step.rows).unwrap();
            let post = break_args(cache.args(&args).unwrap());
            // SAFETY: the arguments are those of buffers of `harness` and `cache`; reading waits.
            unsafe { harness.compressor.enqueue_decode_store(&harness.stream, 8, &args, &post) }.unwrap();
            harness.stream.synchronize().unwrap();
            let got = harness.compressor.take_report().unwrap().map(|r| (r.reasons.bits(), r.first_request));
            assert_eq!(got, Some((reason, 1)), "{shape:?}");
            // The compression itself is whole; of the cache, all but the request's.
            let mut expected = harness.verify(Launch::Decode(8), &step).unwrap();
            expected.rows.retain(|_, row| row.request != 1);
            cache.verify(&harness, &expected);
        }
    }
}

/// Two launches, where there is no kernel that does both.
#[test]
fn what_has_no_kernel_of_its_own_stores_in_two_launches() {
    let seed = seed(165);
    let device = device(seed);
    let mut random = Random::new(seed);
    let spec = Spec { max_len: 300, ..Spec::new(seed, LONG) };
    let mut one_warp = harness(&device, spec, |builder| builder.warps(1));
    assert_eq!(one_warp.compressor.plan().decode_store_entry(), None);
    let mut cache = Cache::new(&device, spec, &mut random).unwrap();
    cache.shuffle(&mut random).unwrap();
    check(&mut one_warp, &mut cache, &[129, 256, 7], &[2, 8, 7]);

    let running = harness(&device, spec, |builder| builder.running(true));
    assert_eq!(running.compressor.plan().decode_store_entry(), None);
}
