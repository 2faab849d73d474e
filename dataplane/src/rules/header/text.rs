//! `-m string`: whether some bytes occur in the packet, its headers included. Knuth, Morris and Pratt's search, whichever
//! algorithm a rule names: all of them say the same, and this one reads every byte once.

/// Longest pattern, in bytes: the kernel's `XT_STRING_MAX_PATTERN_SIZE`.
pub const PATTERN_MAX: usize = 128;

/// Bytes looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The bytes, folded if case does not matter.
    pattern: Box<[u8]>,
    /// How many bytes of the pattern still match after a mismatch behind the first so many.
    fallback: Box<[u8]>,
    /// First byte looked at, from the start of the IP header.
    from: u16,
    /// Last byte a match may reach to, exclusive.
    to: u16,
    ignores_case: bool,
    invert: bool,
}

impl Text {
    /// A search for `pattern` from byte `from` on that must end before byte `to`; `None` if the pattern is empty or too
    /// long.
    #[must_use]
    pub fn new(pattern: &[u8], (from, to): (u16, u16), ignores_case: bool, invert: bool) -> Option<Self> {
        if pattern.is_empty() || pattern.len() > PATTERN_MAX {
            return None;
        }
        let pattern: Box<[u8]> =
            pattern.iter().map(|&byte| if ignores_case { folded(byte) } else { byte }).collect();
        let fallback = fallback(&pattern);
        Some(Self { pattern, fallback, from, to, ignores_case, invert })
    }

    pub(super) fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    pub(super) fn holds(&self, ip: &[u8]) -> bool {
        let to = usize::from(self.to).min(ip.len());
        let within = ip.get(usize::from(self.from)..to).unwrap_or_default();
        self.is_in(within) != self.invert
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        let mut matched = 0;
        for &byte in bytes {
            let byte = if self.ignores_case { folded(byte) } else { byte };
            while matched > 0 && self.pattern[matched] != byte {
                matched = usize::from(self.fallback[matched - 1]);
            }
            if self.pattern[matched] == byte {
                matched += 1;
                if matched == self.pattern.len() {
                    return true;
                }
            }
        }
        false
    }
}

/// For each prefix, how long the longest shorter prefix is that it ends with.
fn fallback(pattern: &[u8]) -> Box<[u8]> {
    let mut table = vec![0_u8; pattern.len()];
    let mut matched = 0;
    for at in 1..pattern.len() {
        while matched > 0 && pattern[matched] != pattern[at] {
            matched = usize::from(table[matched - 1]);
        }
        matched += usize::from(pattern[matched] == pattern[at]);
        table[at] = u8::try_from(matched).unwrap_or(u8::MAX);
    }
    table.into()
}

/// Upper case by the kernel's table, which is Latin-1.
const fn folded(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | 0xdf..=0xf6 | 0xf8..=0xff => byte - 0x20,
        _ => byte,
    }
}
