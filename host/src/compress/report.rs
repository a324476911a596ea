//! What launches say about bad requests.

use std::fmt;

use dsa_kernels_gpu::compress::report as kernels;

/// Why a request was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its length is below the number of its new tokens, or beyond its table of pages.
    Length,
    /// A page of it that would be read or written is not in its pool.
    Page,
    /// Its new tokens are not in `kv_score`, or more than a request may have.
    Tokens,
    /// Its output rows are not in the output.
    Output,
    /// Its rows are at positions beyond the table of rotations.
    Position,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::Length, Self::Page, Self::Tokens, Self::Output, Self::Position];

    const fn bit(self) -> u32 {
        match self {
            Self::Length => kernels::LENGTH,
            Self::Page => kernels::PAGE,
            Self::Tokens => kernels::TOKENS,
            Self::Output => kernels::OUTPUT,
            Self::Position => kernels::POSITION,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Length => "a length below the number of new tokens or beyond the table of pages",
            Self::Page => "a page that is not in its pool",
            Self::Tokens => "new tokens that are not in kv_score, or too many of them",
            Self::Output => "output rows that are not in the output",
            Self::Position => "a position beyond the table of rotations",
        })
    }
}

/// Why requests were left out: a set of [`Reason`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reasons(u32);

impl Reasons {
    /// Whether a request was left out for this reason.
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & reason.bit() != 0
    }

    /// The reasons.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |&reason| self.contains(reason))
    }

    /// The reasons as the device writes them, one bit each.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, reason) in self.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{reason}")?;
        }
        Ok(())
    }
}

/// What the launches since the last report left out. The other requests of theirs were compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why, of all requests that were left out.
    pub reasons: Reasons,
    /// The lowest of them.
    pub first_request: u32,
}

impl Report {
    /// Words of device memory that launches report in.
    pub const WORDS: usize = kernels::WORDS;

    /// What the words at [`Compressor::report_address`](crate::Compressor::report_address) say; `None` if no request
    /// was left out.
    pub fn from_words(words: [u32; Self::WORDS]) -> Option<Self> {
        let (reasons, first_request) = kernels::read(words)?;
        Some(Self { reasons: Reasons(reasons), first_request })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requests were left out, the first is number {}: {}", self.first_request, self.reasons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_device_are_told_in_words() {
        assert_eq!(Report::from_words([0, 0]), None);
        let report = Report::from_words([kernels::PAGE | kernels::LENGTH, !3]).unwrap();
        assert_eq!(report.first_request, 3);
        assert_eq!(report.reasons.iter().collect::<Vec<_>>(), [Reason::Length, Reason::Page]);
        assert!(report.reasons.contains(Reason::Page) && !report.reasons.contains(Reason::Output));
        let text = report.to_string();
        assert!(text.contains("number 3: a length below") && text.contains("; a page that is not"), "{text}");
    }
}
