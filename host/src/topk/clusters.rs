//! Which clusters a launch of `topk_f32_cluster`, `topk_f32_cluster_streamed` or their like has: pure, for
//! [`Plan`](super::Plan).

use dsa_kernels_gpu::topk::{self as kernels, cluster, stream};

use super::plan::{most_tiles, shared_bytes_beside};
use crate::DeviceProperties;
use crate::topk::Limits;

/// Most elements of a slice that is streamed, where clusters are said to be the fastest. A cluster cannot help another
/// one: in a batch of one long row among short ones, longer slices would keep the others waiting. For up to so many, that
/// is outweighed by what the division of the blocks among the rows takes, which clusters do without: on an H200, 64 rows of
/// 4,096 elements where up to 163,840 are allowed take 2.4 us instead of 3.1, a quarter of them with 131,072 and the others
/// short 11.5 instead of 9.4. [`Path::Sampled`](crate::topk::Path::Sampled) divides the blocks in any case.
const MOST_STREAMED: u32 = 5 << 14;

/// A cluster for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    /// Its blocks.
    pub size: u32,
    /// Bytes of shared memory of each of them.
    pub shared_bytes: u32,
}

/// What the choice of clusters depends on, but for the rows of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clusters {
    max_len: u32,
    multiprocessors: u32,
    max_size: u32,
    shared_bytes_per_block: u32,
    shared_bytes_per_multiprocessor: u32,
}

impl Clusters {
    /// For rows within `limits`.
    pub(super) fn new(limits: &Limits, device: &DeviceProperties) -> Self {
        Self {
            max_len: limits.max_len,
            multiprocessors: device.multiprocessors,
            max_size: device.max_cluster.min(cluster::MAX_BLOCKS),
            shared_bytes_per_block: device.shared_bytes_per_block,
            shared_bytes_per_multiprocessor: device.shared_bytes_per_multiprocessor,
        }
    }

    /// Whether a cluster for each row is the fastest for launches of up to `rows` rows. They are too long for the registers
    /// of one block, and there are so few that all clusters run at once; if the rows are too long for the registers of a
    /// cluster, too, so many that the clusters keep most of the device busy.
    pub(super) fn are_best(self, rows: u32) -> bool {
        if self.max_len <= kernels::RESIDENT_PLACES {
            return false;
        }
        let is_streamed_well = |cluster: Cluster| {
            4 * u64::from(rows) * u64::from(cluster.size) >= 3 * u64::from(self.multiprocessors)
                && self.max_len.div_ceil(cluster.size) <= MOST_STREAMED
        };
        self.held(rows).is_some() || self.streamed(rows).is_some_and(is_streamed_well)
    }

    /// The clusters of a launch of `rows` rows.
    pub(super) fn of(self, rows: u32) -> Cluster {
        self.held(rows).or_else(|| self.streamed(rows)).unwrap_or_else(|| {
            // More rows than can be worked on at once.
            let size = self.max_size;
            Cluster {
                size,
                shared_bytes: self.shared_bytes(size, 1).unwrap_or(self.least_shared_bytes(size)),
            }
        })
    }

    /// Whether clusters keep the longest rows of a launch of `rows` rows in their registers.
    pub(super) fn are_held(self, rows: u32) -> bool {
        cluster::is_held(self.max_len, self.of(rows).size)
    }

    /// At most so many clusters run at once: of two blocks each, with two blocks on each multiprocessor.
    pub(super) fn most_at_once(self) -> u32 {
        self.multiprocessors
    }

    /// Clusters that keep the rows in their registers, if all run at once.
    fn held(self, rows: u32) -> Option<Cluster> {
        // From the fastest down, on an H200 with 132 multiprocessors: 6, 7.5, 8.5 and 10.5 us. A block takes longer with
        // more elements, or with another one on the same multiprocessor.
        let (few, many) = (kernels::RESIDENT_PLACES / 2, kernels::RESIDENT_PLACES);
        [(few, 1), (many, 1), (few, 2), (many, 2)].into_iter().find_map(|(slice, blocks)| {
            let size = self.max_len.div_ceil(slice).checked_next_power_of_two()?;
            self.at_once(rows, size, blocks)
        })
    }

    /// The largest clusters that all run at once with a multiprocessor for each block.
    fn streamed(self, rows: u32) -> Option<Cluster> {
        let mut size =
            (self.multiprocessors / rows).checked_ilog2().map_or(0, |log2| 1 << log2).min(self.max_size);
        while size > 1 {
            let cluster = self.at_once(rows, size, 1);
            if cluster.is_some() {
                return cluster;
            }
            size /= 2;
        }
        None
    }

    /// Clusters of `size` blocks, of which `blocks` may be on a multiprocessor, if the device runs those of all rows at
    /// once.
    fn at_once(self, rows: u32, size: u32, blocks: u32) -> Option<Cluster> {
        let is_possible = size > 1 && size <= self.max_size;
        if !is_possible || rows > clusters_at_once(self.multiprocessors, size, blocks) {
            return None;
        }
        Some(Cluster { size, shared_bytes: self.shared_bytes(size, blocks)? })
    }

    /// Bytes of shared memory of each block, with as many tiles as there is room for beside `blocks` blocks on a
    /// multiprocessor, if there is any.
    fn shared_bytes(self, size: u32, blocks: u32) -> Option<u32> {
        let bytes_with = |tiles| cluster::shared_bytes(self.max_len, size, tiles);
        let share = shared_bytes_beside(blocks, self.shared_bytes_per_multiprocessor);
        most_tiles(share.min(self.shared_bytes_per_block), bytes_with).map(bytes_with)
    }

    /// What a block needs at least.
    fn least_shared_bytes(self, size: u32) -> u32 {
        cluster::shared_bytes(self.max_len, size, stream::DEPTHS[0])
    }
}

/// How many clusters of `size` blocks run at once if a multiprocessor has so many of their blocks, or a little fewer.
///
/// All blocks of a cluster run in one group of multiprocessors (GPC). Those have up to 18, some of which are switched
/// off on each chip. The driver says 132, 62, 30 and 14 for 2, 4, 8 and 16 blocks on an H200, if two fit on a
/// multiprocessor; with one it was seen to start 66, 30, 14 and 7.
fn clusters_at_once(multiprocessors: u32, size: u32, blocks: u32) -> u32 {
    let in_groups_of = |group: u32| {
        let (groups, rest) = (multiprocessors / group, multiprocessors % group);
        groups * (group * blocks / size) + rest * blocks / size
    };
    if blocks == 1 { in_groups_of(18) } else { in_groups_of(18).min(in_groups_of(17)) }
}
