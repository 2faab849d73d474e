//! `-m sctp --chunk-types`: which chunks a packet bundles. RFC 9260 section 3.

use super::Answer;
use super::view::{Cut, View};

/// Bytes of the common header.
const HEADER_LEN: usize = 12;

/// How the chunks of a packet compare with those asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkRule {
    /// One of those is there.
    Any,
    /// All of them are there, and perhaps others.
    All,
    /// Only such are there.
    Only,
}

/// Flags that a chunk of a type must have. Chunks of types without such an entry may have any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkFlags {
    /// The type.
    pub kind: u8,
    /// Flags looked at.
    pub mask: u8,
    /// Those that must be set.
    pub value: u8,
}

/// What is asked of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// How.
    pub rule: ChunkRule,
    /// The types asked for, a bit each.
    pub kinds: [u64; 4],
    /// What their flags must be.
    pub flags: Box<[ChunkFlags]>,
    /// With `!`.
    pub invert: bool,
}

impl Chunks {
    /// Whether a type is asked for.
    #[must_use]
    pub const fn contains(kinds: &[u64; 4], kind: u8) -> bool {
        kinds[(kind >> 6) as usize] >> (kind & 63) & 1 != 0
    }

    fn flags_fit(&self, kind: u8, flags: u8) -> bool {
        self.flags
            .iter()
            .find(|asked| asked.kind == kind)
            .is_none_or(|asked| flags & asked.mask == asked.value)
    }

    pub(super) fn ask(&self, view: &View<'_>) -> Answer {
        Ok(self.fit(view)? != self.invert)
    }

    fn fit(&self, view: &View<'_>) -> Answer {
        if view.is_later() {
            return Ok(self.invert);
        }
        let mut rest = view.upper().get(HEADER_LEN..).ok_or(Cut)?;
        let mut missing = self.kinds;
        loop {
            let [kind, flags, high, low] = *rest.first_chunk::<4>().ok_or(Cut)?;
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len == 0 {
                return Err(Cut);
            }
            let fits = Self::contains(&self.kinds, kind).then(|| self.flags_fit(kind, flags));
            match (self.rule, fits) {
                (ChunkRule::Any, Some(true)) => return Ok(true),
                (ChunkRule::All, Some(true)) => missing[usize::from(kind >> 6)] &= !(1 << (kind & 63)),
                (ChunkRule::Only, None | Some(false)) => return Ok(false),
                _ => {}
            }
            rest = match rest.get(len.next_multiple_of(4)..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => break,
            };
        }
        Ok(match self.rule {
            ChunkRule::Any => false,
            ChunkRule::All => missing == [0; 4],
            ChunkRule::Only => true,
        })
    }
}
