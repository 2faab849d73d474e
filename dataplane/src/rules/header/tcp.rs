//! TCP's flags of congestion and its options. RFC 9293 section 3.1, RFC 3168 section 6.1.

use super::view::{Cut, View};

/// Bytes of the fixed header.
const HEADER_LEN: usize = 20;
/// Kinds that have no length: end of list, no operation.
const LONE_KINDS_BELOW: u8 = 2;
/// Maximum segment size, and bytes of that option.
const MSS: (u8, usize) = (2, 4);

/// Whether a bit of the flag byte is set, or not; false if there is no such byte.
pub(super) fn has_ecn_flag(view: &View<'_>, bit: u8, invert: bool) -> bool {
    view.upper().first_chunk::<HEADER_LEN>().is_some_and(|header| (header[13] & bit != 0) != invert)
}

/// The options of a header that must be there as long as it says it is.
fn options<'a>(view: &View<'a>) -> Result<&'a [u8], Cut> {
    let tcp = view.upper();
    let header = tcp.first_chunk::<HEADER_LEN>().ok_or(Cut)?;
    tcp.get(HEADER_LEN..usize::from(header[12] >> 4) * 4).ok_or(Cut)
}

/// Options one after another: kind, and the bytes from it on. An option of length zero is passed over bytewise.
fn each(options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = options.get(at..)?;
        let (&kind, behind) = rest.split_first()?;
        let len = behind.first().copied().unwrap_or(0);
        at += if kind < LONE_KINDS_BELOW { 1 } else { usize::from(len.max(1)) };
        Some((kind, rest))
    })
}

/// Whether a header has an option of this kind.
pub(super) fn has_option(view: &View<'_>, kind: u8) -> Result<bool, Cut> {
    Ok(each(options(view)?).any(|(found, _)| found == kind))
}

/// The maximum segment size that a header announces, whatever its flags.
pub(super) fn mss(view: &View<'_>) -> Result<Option<u16>, Cut> {
    let is_it = |&(kind, bytes): &(u8, &[u8])| {
        (kind, bytes.get(1).map(|len| usize::from(*len))) == (MSS.0, Some(MSS.1)) && bytes.len() >= MSS.1
    };
    let found = each(options(view)?).find(is_it);
    Ok(found.map(|(_, bytes)| u16::from_be_bytes([bytes[2], bytes[3]])))
}
