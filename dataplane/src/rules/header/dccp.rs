//! `-m dccp`: packet types and options. RFC 4340 section 5.

use super::Answer;
use super::view::{Cut, View};

/// Bytes of the header without extended sequence numbers.
const HEADER_LEN: usize = 12;

/// What is asked of a DCCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dccp {
    /// `--dccp-types`.
    Types {
        /// Types, a bit each.
        types: u16,
        /// With `!`.
        invert: bool,
    },
    /// `--dccp-option`.
    Option {
        /// Its kind.
        kind: u8,
        /// With `!`.
        invert: bool,
    },
}

impl Dccp {
    pub(super) fn ask(self, view: &View<'_>) -> Answer {
        if view.is_later() {
            return Ok(false);
        }
        let header = view.upper().first_chunk::<HEADER_LEN>().ok_or(Cut)?;
        let kind = header[8] >> 1 & 0xf;
        match self {
            Self::Types { types, invert } => Ok((types >> kind & 1 != 0) != invert),
            Self::Option { kind: wanted, invert } => {
                let is_extended = header[8] & 1 != 0;
                let from = HEADER_LEN + if is_extended { 4 } else { 0 } + own_bytes(kind);
                let to = usize::from(header[4]) * 4;
                let options = view.upper().get(from..to).ok_or(Cut)?;
                Ok(has_option(options, wanted) != invert)
            }
        }
    }
}

/// Bytes of a type's own fields behind the generic header.
const fn own_bytes(kind: u8) -> usize {
    match kind {
        // DATA.
        2 => 0,
        // REQUEST.
        0 => 4,
        // ACK, DATAACK, CLOSEREQ, CLOSE, SYNC, SYNCACK.
        3..=6 | 8 | 9 => 8,
        // RESPONSE, RESET and whatever else.
        _ => 12,
    }
}

/// Walks options as the kernel does: of those below 2 a byte each, of others as many as they say.
fn has_option(options: &[u8], wanted: u8) -> bool {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if kind == wanted {
            return true;
        }
        at += if kind < 2 { 1 } else { usize::from(options.get(at + 1).copied().unwrap_or(1).max(1)) };
    }
    false
}
