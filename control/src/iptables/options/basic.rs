//! The options every rule knows: their names, and how addresses, interfaces and chain names are read.

use std::net::Ipv6Addr;

use dataplane::packet::Family;
use dataplane::rules::model::IfacePattern;

use super::number;
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::syntax::{Addresses, Net};

/// Longest interface name in bytes (IFNAMSIZ with the final NUL).
const IFACE_BYTES_MAX: usize = 15;

/// Longest chain name in bytes (XT_EXTENSION_MAXNAMELEN with the final NUL).
const CHAIN_BYTES_MAX: usize = 28;

/// What an option of iptables itself is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Basic {
    Append,
    Insert,
    NewChain,
    Policy,
    Source,
    Destination,
    InInterface,
    OutInterface,
    Protocol,
    Fragment,
    Match,
    Jump,
    Goto,
    SetCounters,
    Ipv4,
    Ipv6,
    /// Another command: valid for iptables-restore, but it edits a table instead of stating it.
    OtherCommand,
    /// Refused by iptables-restore.
    Misplaced,
    /// Accepted by iptables-restore, means nothing in a file.
    Ignored,
}

/// Short name, long name (getopt abbreviations apply), meaning.
pub const BASIC: &[(char, &str, Basic)] = &[
    ('A', "append", Basic::Append),
    ('C', "check", Basic::OtherCommand),
    ('D', "delete", Basic::OtherCommand),
    ('X', "delete-chain", Basic::OtherCommand),
    ('d', "destination", Basic::Destination),
    ('d', "dst", Basic::Destination),
    ('x', "exact", Basic::Misplaced),
    ('F', "flush", Basic::OtherCommand),
    ('f', "fragments", Basic::Fragment),
    ('g', "goto", Basic::Goto),
    ('h', "help", Basic::Misplaced),
    ('i', "in-interface", Basic::InInterface),
    ('I', "insert", Basic::Insert),
    ('4', "ipv4", Basic::Ipv4),
    ('6', "ipv6", Basic::Ipv6),
    ('j', "jump", Basic::Jump),
    ('0', "line-numbers", Basic::Misplaced),
    ('L', "list", Basic::OtherCommand),
    ('S', "list-rules", Basic::OtherCommand),
    ('m', "match", Basic::Match),
    ('M', "modprobe", Basic::Misplaced),
    ('N', "new-chain", Basic::NewChain),
    ('n', "numeric", Basic::Misplaced),
    ('o', "out-interface", Basic::OutInterface),
    ('P', "policy", Basic::Policy),
    ('p', "protocol", Basic::Protocol),
    ('E', "rename-chain", Basic::OtherCommand),
    ('R', "replace", Basic::OtherCommand),
    ('c', "set-counters", Basic::SetCounters),
    ('s', "source", Basic::Source),
    ('s', "src", Basic::Source),
    ('t', "table", Basic::Misplaced),
    ('v', "verbose", Basic::Ignored),
    ('V', "version", Basic::Misplaced),
    ('w', "wait", Basic::Misplaced),
    ('W', "wait-interval", Basic::Misplaced),
    ('Z', "zero", Basic::OtherCommand),
];

/// Reads the value of `-s` or `-d`: addresses with masks, separated by commas.
///
/// # Errors
/// A bad address or mask, a host name, a list after `!`.
pub fn addresses(word: &Word, invert: bool, family: Family) -> Result<Option<Addresses>, Diagnostic> {
    let nets = word.text.split(',').map(|item| net(word, item.trim_start_matches(' '), family));
    let nets = nets.collect::<Result<Vec<_>, _>>()?;
    if invert && nets.len() > 1 {
        return Err(Diagnostic::error(word.span, "`!` is not allowed with several addresses")
            .hint("write a chain with one rule per address"));
    }
    if nets.len() == 1 && nets.iter().all(|net| net.mask == 0) {
        if invert {
            return Err(Diagnostic::error(word.span, "`!` before an address that matches everything"));
        }
        return Ok(None);
    }
    Ok(Some(Addresses { nets, invert }))
}

fn net(word: &Word, text: &str, family: Family) -> Result<Net, Diagnostic> {
    let (host, mask) = match text.rsplit_once('/') {
        Some((host, mask)) => (host, Some(mask)),
        None => (text, None),
    };
    let addr = address(word, host, family, mask.is_some())?;
    let full = full_mask(family);
    let mask = match mask {
        None => full,
        Some(text) => self::mask(text, family).ok_or_else(|| {
            let example = if family == Family::V4 { "`/24` or `/255.255.255.0`" } else { "`/64`" };
            Diagnostic::error(word.span, format!("invalid mask `{text}`"))
                .hint(format!("write a prefix length or a mask, such as {example}"))
        })?,
    };
    Ok(Net { addr: addr & mask, mask, family })
}

/// Reads part of a word as an address without a mask.
///
/// # Errors
/// What is not one, host names included.
pub fn lone_address(word: &Word, text: &str, family: Family) -> Result<u128, Diagnostic> {
    address(word, text, family, false)
}

/// All ones for the family's addresses.
#[must_use]
pub fn full_mask(family: Family) -> u128 {
    match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    }
}

fn address(word: &Word, host: &str, family: Family, masked: bool) -> Result<u128, Diagnostic> {
    if family == Family::V6 {
        if let Ok(addr) = host.parse::<Ipv6Addr>() {
            return Ok(u128::from(addr));
        }
    } else if let Some(addr) = ipv4(host) {
        return Ok(u128::from(addr));
    }
    if family == Family::V4 && without_leading_zeros(host) {
        return Err(Diagnostic::unsupported(word.span, format!("leading zeros in the address `{host}`"))
            .hint("some programs read such numbers as octal; write it without them"));
    }
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let looks_numeric =
        !host.bytes().all(is_name_byte) || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !looks_numeric {
        return Err(Diagnostic::unsupported(word.span, format!("host name `{host}`; only addresses are accepted")).hint(
            "a firewall must not depend on the name server it may be cutting off; write the addresses themselves",
        ));
    }
    let other_family = match family {
        Family::V4 => host.parse::<Ipv6Addr>().is_ok(),
        Family::V6 => host.contains('.') && ipv4(host).is_some(),
    };
    let error = Diagnostic::error(word.span, format!("invalid address `{host}`"));
    Err(if other_family {
        let (this, other) = if family == Family::V4 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        error.hint(format!("these are {this} rules; {other} rules belong in a file of their own"))
    } else if host == "!" {
        error.hint("`!` goes before the option: `! -s ADDRESS`, not `-s ! ADDRESS`")
    } else if masked && host.is_empty() {
        error.hint("an address must stand before the `/`")
    } else {
        error
    })
}

/// Up to four decimal parts, missing ones are zero, as iptables reads `10.1/16`. Parts with a leading zero could be
/// meant as octal and are left to the caller's error.
fn ipv4(host: &str) -> Option<u32> {
    let mut addr = 0u32;
    let mut parts = 0;
    for part in host.split('.') {
        let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain || parts == 4 || (part.len() > 1 && part.starts_with('0')) {
            return None;
        }
        addr = addr << 8 | u32::from(part.parse::<u8>().ok()?);
        parts += 1;
    }
    Some(addr.checked_shl(8 * (4 - parts)).unwrap_or(0))
}

/// Whether `host` is an address but for leading zeros.
fn without_leading_zeros(host: &str) -> bool {
    let strip = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    ipv4(&host.split('.').map(strip).collect::<Vec<_>>().join(".")).is_some()
}

fn mask(text: &str, family: Family) -> Option<u128> {
    let bits = if family == Family::V4 { 32 } else { 128 };
    if let Some(len) = number(text, u64::from(bits)).and_then(|len| u32::try_from(len).ok()) {
        let full = full_mask(family);
        return Some(full & full.checked_shl(bits - len).unwrap_or(0));
    }
    match family {
        Family::V4 if text.split('.').count() == 4 => ipv4(text).map(u128::from),
        Family::V4 => None,
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
    }
}

/// Reads the value of `-i` or `-o`; `None` is `+`, which matches everything and is not kept.
///
/// # Errors
/// An empty or overlong name.
pub fn iface(word: &Word, invert: bool) -> Result<Option<IfacePattern>, Diagnostic> {
    let text = word.text.as_str();
    if text.is_empty() {
        return Err(Diagnostic::error(word.span, "empty interface name"));
    }
    if text.len() > IFACE_BYTES_MAX {
        return Err(Diagnostic::error(
            word.span,
            format!("interface name `{text}` is longer than {IFACE_BYTES_MAX} bytes"),
        ));
    }
    if text == "+" && !invert {
        return Ok(None);
    }
    Ok(Some(match text.strip_suffix('+') {
        Some(name) => IfacePattern { name: name.to_owned(), prefix: true },
        None => IfacePattern { name: text.to_owned(), prefix: false },
    }))
}

/// What is wrong with `name` as the name of a new chain.
///
/// # Errors
/// iptables' own rules, and characters that could not be printed back.
pub fn check_chain_name(name: &str, span: Span) -> Result<(), Diagnostic> {
    if name.is_empty() {
        return Err(Diagnostic::error(span, "empty chain name"));
    }
    if name.len() > CHAIN_BYTES_MAX {
        return Err(Diagnostic::error(
            span,
            format!("chain name `{name}` is longer than {CHAIN_BYTES_MAX} bytes"),
        ));
    }
    if name.starts_with(['-', '!']) {
        return Err(Diagnostic::error(span, "a chain name must not start with `-` or `!`"));
    }
    if name.contains([' ', '\t']) {
        return Err(Diagnostic::error(span, format!("invalid chain name `{name}`")));
    }
    if ["ACCEPT", "DROP", "RETURN", "QUEUE"].contains(&name) {
        return Err(Diagnostic::error(
            span,
            format!("chain name `{name}` clashes with the target of that name"),
        ));
    }
    let is_target = |family| super::find(super::Kind::Target, name, family).is_some();
    if super::known::is_target(name) || is_target(Family::V4) || is_target(Family::V6) {
        return Err(Diagnostic::unsupported(span, format!("a chain called like the target {name}"))
            .hint("give the chain another name"));
    }
    if name.contains(['"', '\\']) || name.chars().any(char::is_control) {
        return Err(Diagnostic::unsupported(
            span,
            "quotes, backslashes or control characters in a chain name",
        )
        .hint("iptables-save could not print it back; give the chain another name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::diagnostics::Severity;

    fn read(text: &str, family: Family) -> Result<Option<Addresses>, Diagnostic> {
        addresses(
            &Word { text: text.to_owned(), span: Span { line: 1, start: 0, end: text.len() } },
            false,
            family,
        )
    }

    fn one(text: &str, family: Family) -> (u128, u128) {
        let nets = read(text, family).unwrap().unwrap().nets;
        (nets[0].addr, nets[0].mask)
    }

    #[test]
    fn addresses_are_read_and_masked() {
        assert_eq!(one("10.1.2.3", Family::V4), (0x0a01_0203, 0xffff_ffff));
        assert_eq!(one("10.1.2.3/8", Family::V4), (0x0a00_0000, 0xff00_0000));
        assert_eq!(one("10/8", Family::V4), (0x0a00_0000, 0xff00_0000));
        assert_eq!(one("1.2.3.4/255.0.255.0", Family::V4), (0x0100_0300, 0xff00_ff00));
        assert_eq!(one("1.2.3.4/032", Family::V4), (0x0102_0300, 0xffff_ffc0), "octal, as iptables has it");
        assert_eq!(one("2001:db8::1/32", Family::V6), (0x2001_0db8 << 96, u128::MAX << 96));
        assert_eq!(read("1.2.3.4/0", Family::V4), Ok(None));
        assert_eq!(read("::/0", Family::V6), Ok(None));
        assert_eq!(read("1.2.3.4,5.6.7.8/16", Family::V4).unwrap().unwrap().nets.len(), 2);
    }

    #[test]
    fn bad_addresses_are_errors_and_names_are_unsupported() {
        for bad in [
            "",
            "256.1.1.1",
            "1.2.3.4.5",
            "::1",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/a",
            "1.2.3.4/255.0",
            "1.2.3.4,",
        ] {
            assert_eq!(read(bad, Family::V4).unwrap_err().severity, Severity::Error, "{bad}");
        }
        for bad in ["1.2.3.4", "::/129", "[::1]", "fe80::1%eth0"] {
            assert_eq!(read(bad, Family::V6).unwrap_err().severity, Severity::Error, "{bad}");
        }
        for name in ["localhost", "www.example.org", "any"] {
            assert_eq!(read(name, Family::V4).unwrap_err().severity, Severity::Unsupported, "{name}");
        }
    }

    #[test]
    fn chain_names_follow_iptables_rules() {
        let check =
            |name: &str| check_chain_name(name, Span::default()).map_err(|diagnostic| diagnostic.severity);
        assert_eq!(check("abcdefghijklmnopqrstuvwxyzab"), Ok(()));
        assert_eq!(check("a:b"), Ok(()));
        for bad in ["abcdefghijklmnopqrstuvwxyzabc", "-x", "!x", "a b", "ACCEPT", ""] {
            assert_eq!(check(bad), Err(Severity::Error), "{bad}");
        }
        assert_eq!(check("REJECT"), Err(Severity::Unsupported));
        assert_eq!(check("LOG"), Err(Severity::Unsupported));
    }
}
