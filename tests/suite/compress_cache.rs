//! A cache of compressed rows, and what must be in it.

use dsa_kernels::compress::{CompressArgs, ElementType, PagedTensor, PostArgs, Store, Tensor};
use dsa_kernels::{Buffer, Device, Error};
use dsa_kernels_tests::compress::batch::{Expected, Spec};
use dsa_kernels_tests::compress::harness::Harness;
use dsa_kernels_tests::compress::post_reference::{ROTATED, Steps, angles, first_wrong_bf16};
use dsa_kernels_tests::random::Random;

/// Rows of a page of the cache.
const CACHE_PAGE: usize = 6;
/// What rows are normalised with.
const EPSILON: f32 = 1e-5;
/// What every byte of the cache holds that nothing was stored in.
const CACHE_POISON: u8 = 0x77;

/// The cache of compressed rows, on the device and on the host.
pub(crate) struct Cache {
    steps: Steps,
    weight: Buffer<f32>,
    rotations: Buffer<f32>,
    pub(crate) pool: Buffer<u8>,
    pub(crate) blocks: Buffer<i32>,
    /// Physical pages by request, then by logical page.
    pub(crate) table: Vec<i32>,
    mirror: Vec<u8>,
    spec: Spec,
}

impl Cache {
    /// A cache in which nothing is stored.
    pub(crate) fn new(device: &Device, spec: Spec, random: &mut Random) -> Result<Self, Error> {
        let head_dim = spec.shape.head_dim;
        let weight: Vec<_> = (0..head_dim).map(|_| 1.0 + 0.2 * random.normal()).collect();
        let rotations: Vec<_> = (0..spec.max_len).flat_map(angles).collect();
        let pages = spec.requests * Self::max_blocks(&spec);
        let table: Vec<_> = (0..pages as i32).collect();
        let pool = device.alloc(pages * CACHE_PAGE * head_dim * 2)?;
        pool.fill_bytes(CACHE_POISON)?;
        Ok(Self {
            weight: device.upload(&weight)?,
            steps: Steps { weight, epsilon: EPSILON, hadamard: false },
            rotations: device.upload(&rotations)?,
            mirror: vec![CACHE_POISON; pool.len()],
            pool,
            blocks: device.upload(&table)?,
            table,
            spec,
        })
    }

    /// Logical pages of a request.
    pub(crate) fn max_blocks(spec: &Spec) -> usize {
        (spec.max_len / spec.shape.ratio).div_ceil(CACHE_PAGE)
    }

    /// Gives the requests other pages.
    pub(crate) fn shuffle(&mut self, random: &mut Random) -> Result<(), Error> {
        for last in (1..self.table.len()).rev() {
            self.table.swap(last, random.below(last + 1));
        }
        self.blocks.upload(&self.table)
    }

    /// What stores the rows of a compression.
    pub(crate) fn args(&self, args: &CompressArgs) -> Result<PostArgs, Error> {
        let (head_dim, blocks) = (self.spec.shape.head_dim as u64, Self::max_blocks(&self.spec) as u64);
        let requests = self.spec.requests as u64;
        let shape = [requests * blocks, CACHE_PAGE as u64, head_dim];
        Ok(PostArgs {
            compressed: args.output.clone(),
            weight: Tensor::of(&self.weight, [head_dim])?,
            epsilon: EPSILON,
            rotations: Tensor::of(&self.rotations, [self.spec.max_len as u64, ROTATED as u64])?,
            cache: PagedTensor {
                pool: Tensor::raw(self.pool.address(), ElementType::Bf16, shape),
                blocks: Tensor::of(&self.blocks, [requests, blocks])?,
            },
            store: Store::Bf16,
            hadamard: false,
            kv_lens: args.kv_lens.clone(),
            cu_new: args.cu_new.clone(),
            cu_out: args.cu_out.clone(),
        })
    }

    /// Checks the rows that were stored, and that nothing else was written.
    pub(crate) fn verify(&mut self, harness: &Harness, expected: &Expected) {
        let (Spec { shape, .. }, blocks) = (self.spec, Self::max_blocks(&self.spec));
        let got = self.pool.download().unwrap();
        for (&row, wanted) in &expected.rows {
            let page = self.table[wanted.request * blocks + wanted.window / CACHE_PAGE] as usize;
            let bytes = shape.head_dim * 2;
            let first = (page * CACHE_PAGE + wanted.window % CACHE_PAGE) * bytes;
            let stored = &got[first..first + bytes];
            let compressed = harness.output_row(row).unwrap();
            let row = self.steps.apply(&compressed, &angles(wanted.window * shape.ratio));
            let numbers: Vec<_> = stored.chunks_exact(2).map(|x| u16::from_ne_bytes([x[0], x[1]])).collect();
            if let Some(wrong) = first_wrong_bf16(&row, &numbers) {
                panic!("stored row of window {} of request {}: {wrong}", wanted.window, wanted.request);
            }
            self.mirror[first..first + bytes].copy_from_slice(stored);
        }
        let stray = got.iter().zip(&self.mirror).position(|(got, wanted)| got != wanted);
        assert_eq!(stray, None, "a byte of the cache was written that has no row");
    }
}
