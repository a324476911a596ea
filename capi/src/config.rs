//! `dsa_topk_config`: the limits of an operator, in a struct that may grow.

use std::mem::offset_of;

use dsa_kernels::topk::{Limits, Order, Path, ScoreType, Ties};

use crate::status::Failure;
use crate::versioned::Versioned;

/// `dsa_topk_config`. Fields that a caller's version does not have yet are zero, which is their default.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CConfig {
    /// Bytes of the caller's struct.
    pub size: u32,
    /// Elements wanted of each row.
    pub k: u32,
    /// Most rows of a launch.
    pub max_rows: u32,
    /// Longest valid prefix of a row.
    pub max_len: u32,
    /// Rows per sequence; 0 is 1.
    pub next_n: u32,
    /// What lengths are divided by; 0 is 1.
    pub compress_ratio: u32,
    /// `dsa_score_type`.
    pub score_type: u32,
    /// `dsa_ties`.
    pub ties: u32,
    /// `dsa_order`.
    pub order: u32,
    /// Whether launches write the selected scores.
    pub values: u32,
    /// `dsa_path`.
    pub path: u32,
    /// Most multiprocessors; 0 is all.
    pub max_sms: u32,
    /// Whether launches start only after the launch before them on the stream has ended.
    pub no_overlap: u32,
}

/// The numbers of `dsa_score_type`.
const SCORE_TYPES: &[(u32, ScoreType)] = &[(0, ScoreType::F32), (1, ScoreType::F16), (2, ScoreType::Bf16)];
/// The numbers of `dsa_ties`.
const TIES: &[(u32, Ties)] = &[(0, Ties::Any), (1, Ties::LowestIndex)];
/// The numbers of `dsa_order`.
const ORDERS: &[(u32, Order)] = &[(0, Order::Any), (1, Order::AscendingIndex)];
/// The numbers of `dsa_path`.
const PATHS: &[(u32, Path)] = &[
    (0, Path::Auto),
    (1, Path::Trivial),
    (2, Path::Resident),
    (3, Path::Sampled),
    (4, Path::Decode),
    (5, Path::Medium),
    (6, Path::Large),
    (7, Path::Cluster),
];
/// The numbers of a flag.
pub(crate) const FLAGS: &[(u32, bool)] = &[(0, false), (1, true)];

// SAFETY: numbers only, the size first.
unsafe impl Versioned for CConfig {
    const ARGUMENT: &'static str = "config";
    const SIZE_ARGUMENT: &'static str = "config->size";
    const SIZE_HELP: &'static str = "set it to sizeof(dsa_topk_config)";
    const FIRST_SIZE: usize = offset_of!(CConfig, max_sms) + size_of::<u32>();
}

impl CConfig {
    /// The limits that these numbers mean.
    ///
    /// # Errors
    /// [`Failure::Library`] for a number that means nothing. What the limits must keep is checked when the
    /// operator is built.
    pub fn limits(&self) -> Result<Limits, Failure> {
        Ok(Limits {
            max_rows: self.max_rows,
            max_len: self.max_len,
            next_n: if self.next_n == 0 { 1 } else { self.next_n },
            compress_ratio: if self.compress_ratio == 0 { 1 } else { self.compress_ratio },
            scores: meaning("config->score_type", self.score_type, SCORE_TYPES)?,
            ties: meaning("config->ties", self.ties, TIES)?,
            order: meaning("config->order", self.order, ORDERS)?,
            values: meaning("config->values", self.values, FLAGS)?,
            path: meaning("config->path", self.path, PATHS)?,
            max_sms: Some(self.max_sms).filter(|&multiprocessors| multiprocessors > 0),
            overlap: !meaning("config->no_overlap", self.no_overlap, FLAGS)?,
            ..Limits::of(self.k)
        })
    }
}

/// What a number means.
pub(crate) fn meaning<T: Copy>(
    argument: &'static str,
    number: u32,
    meanings: &[(u32, T)],
) -> Result<T, Failure> {
    let found = meanings.iter().find(|&&(with, _)| with == number);
    found.map(|&(_, meaning)| meaning).ok_or_else(|| {
        let limit = format!("0..={}", meanings.len() - 1);
        Failure::argument(argument, number, limit, "use the constants of dsa_kernels.h")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versioned;

    const GOOD: CConfig = CConfig {
        size: size_of::<CConfig>() as u32,
        k: 2048,
        max_rows: 64,
        max_len: 1000,
        next_n: 0,
        compress_ratio: 0,
        score_type: 0,
        ties: 0,
        order: 0,
        values: 0,
        path: 0,
        max_sms: 0,
        no_overlap: 0,
    };

    fn read_bytes(words: &[u32]) -> Result<CConfig, Failure> {
        // SAFETY: aligned, and the tests pass no size larger than the words unless it is refused.
        unsafe { versioned::read(words.as_ptr().cast()) }
    }

    #[test]
    fn zeros_are_the_defaults() {
        let limits = GOOD.limits().unwrap();
        assert_eq!(limits, Limits { max_rows: 64, max_len: 1000, ..Limits::of(2048) });
    }

    #[test]
    fn every_choice_has_a_number() {
        for (number, path) in PATHS.iter().copied() {
            assert_eq!(CConfig { path: number, ..GOOD }.limits().unwrap().path, path);
        }
        let numbered = |all: &[Path]| all.iter().all(|path| PATHS.iter().any(|(_, known)| known == path));
        assert!(numbered(Path::ALL));
        let full = CConfig {
            next_n: 2,
            compress_ratio: 4,
            score_type: 2,
            ties: 1,
            order: 1,
            values: 1,
            max_sms: 7,
            no_overlap: 1,
            ..GOOD
        };
        let expected = Limits {
            max_rows: 64,
            max_len: 1000,
            next_n: 2,
            compress_ratio: 4,
            scores: ScoreType::Bf16,
            ties: Ties::LowestIndex,
            order: Order::AscendingIndex,
            values: true,
            max_sms: Some(7),
            overlap: false,
            ..Limits::of(2048)
        };
        assert_eq!(full.limits().unwrap(), expected);
        let lists = [SCORE_TYPES.len(), TIES.len(), ORDERS.len()];
        assert_eq!(lists, [ScoreType::ALL.len(), Ties::ALL.len(), Order::ALL.len()]);
    }

    #[test]
    fn the_header_gives_every_choice_the_same_number() {
        fn check<T: Copy + std::fmt::Display>(prefix: &str, meanings: &[(u32, T)]) {
            for (number, meaning) in meanings {
                let name = meaning.to_string().to_uppercase().replace('-', "_");
                let name = format!("DSA_{prefix}_{name}");
                assert_eq!(crate::header::constant(&name), Some(i64::from(*number)), "{name}");
            }
        }
        check("SCORES", SCORE_TYPES);
        check("TIES", TIES);
        check("ORDER", ORDERS);
        check("PATH", PATHS);
    }

    #[test]
    fn numbers_without_a_meaning_are_refused_by_name() {
        for (bad, words) in [
            (CConfig { score_type: 3, ..GOOD }, "config->score_type is 3, but must be 0..=2"),
            (CConfig { ties: 2, ..GOOD }, "config->ties is 2, but must be 0..=1"),
            (CConfig { order: 9, ..GOOD }, "config->order is 9"),
            (CConfig { values: 2, ..GOOD }, "config->values is 2"),
            (CConfig { no_overlap: 2, ..GOOD }, "config->no_overlap is 2, but must be 0..=1"),
            (CConfig { path: 99, ..GOOD }, "config->path is 99, but must be 0..=7"),
        ] {
            let error = bad.limits().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_struct_of_another_version_is_read_as_far_as_both_know() {
        let mut words = [0u32; 16];
        (words[0], words[1], words[11]) = (64, 5, 3);
        let config = read_bytes(&words).unwrap();
        assert_eq!((config.size, config.k, config.max_sms), (64, 5, 3));
        words[13] = 0x700;
        let error = read_bytes(&words).unwrap_err().to_string();
        assert!(error.contains("config is 0x7 at byte 53, but must be zero from byte 52 on"), "{error}");
        words[0] = 52;
        words[12] = 1;
        assert_eq!(read_bytes(&words).unwrap().no_overlap, 1);
        // The first version ends before that field: what lies there is not the struct's.
        words[0] = 48;
        let first = read_bytes(&words).unwrap();
        assert_eq!((first.k, first.max_sms, first.no_overlap), (5, 3, 0));
    }

    #[test]
    fn a_size_that_no_version_has_is_refused() {
        for size in [0, 4, 47, 4097, u32::MAX] {
            let error = read_bytes(&[size; 12]).unwrap_err().to_string();
            let words = format!("config->size is {size}, but must be 48..=4096");
            assert!(error.contains(&words), "{error}");
        }
        // SAFETY: refused before it is read.
        let error = unsafe { versioned::read::<CConfig>(std::ptr::null()) }.unwrap_err().to_string();
        assert!(error.contains("config is NULL"), "{error}");
    }
}
