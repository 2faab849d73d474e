//! `create NAME TYPE ...`: what a set is made with.

use super::element;
use crate::iptables::diagnostics::Diagnostic;
use crate::iptables::lexer::Word;
use crate::iptables::names::{Services, nearest};
use crate::iptables::options::number;
use dataplane::packet::Family;
use dataplane::sets::{Kind, Spec, width};

/// Older names of types, which ipset(8) still takes.
const ALIASES: &[(&str, Kind)] = &[
    ("iphash", Kind::HashIp),
    ("nethash", Kind::HashNet),
    ("ipporthash", Kind::HashIpPort),
    ("netporthash", Kind::HashNetPort),
    ("ipportiphash", Kind::HashIpPortIp),
    ("ipportnethash", Kind::HashIpPortNet),
    ("netifacehash", Kind::HashNetIface),
    ("ipmap", Kind::BitmapIp),
    ("portmap", Kind::BitmapPort),
    ("setlist", Kind::ListSet),
];

/// Types that ipset(8) has and we do not.
const NOT_OURS: &[&str] = &[
    "bitmap:ip,mac",
    "hash:ip,mac",
    "hash:ip,mark",
    "hash:net,net",
    "hash:net,port,net",
    "ipmarkhash",
    "macipmap",
    "netnethash",
    "netportnethash",
];

/// Longest timeout: Linux keeps milliseconds in 31 bits.
pub const TIMEOUT_MAX: u64 = 2_147_483;

/// Values of a bitmap at most.
const BITMAP_MAX: u64 = 65_536;

/// The type a word names.
///
/// # Errors
/// If there is none, or it is not supported.
pub fn kind(word: &Word) -> Result<Kind, Diagnostic> {
    let text = word.text.as_str();
    let named = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    let alias = || ALIASES.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    named.or_else(alias).ok_or_else(|| {
        if NOT_OURS.contains(&text) {
            let found = Diagnostic::unsupported(word.span, format!("sets of type `{text}` are not supported"));
            return found.hint("supported are hash:ip, hash:net, their forms with ports, NICs, hash:mac, bitmap:ip, bitmap:port and list:set");
        }
        let found = Diagnostic::error(word.span, format!("there is no type of set called `{text}`"));
        match nearest(text, Kind::ALL.iter().map(|kind| kind.name())) {
            Some(near) => found.hint(format!("did you mean `{near}`?")),
            None => found,
        }
    })
}

/// A number up to `max` behind an option.
pub(super) fn value(
    option: &Word,
    words: &mut dyn Iterator<Item = &Word>,
    max: u64,
) -> Result<u64, Diagnostic> {
    let word = argument(option, words)?;
    number(&word.text, max)
        .ok_or_else(|| Diagnostic::error(word.span, format!("`{}` is no number from 0 to {max}", word.text)))
}

pub(super) fn argument<'a>(
    option: &Word,
    words: &mut dyn Iterator<Item = &'a Word>,
) -> Result<&'a Word, Diagnostic> {
    let missing = || Diagnostic::error(option.span, format!("`{}` wants a value", option.text));
    words.next().ok_or_else(missing)
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Reads what stands behind the type.
///
/// # Errors
/// The first thing that is wrong.
pub fn options(
    kind: Kind,
    options: &[Word],
    place: &Word,
    services: &dyn Services,
) -> Result<Spec, Diagnostic> {
    let family = family(kind, options)?;
    let mut spec = Spec::new(kind, family);
    spec.initval = random();
    let mut range = None;
    let mut given: Vec<&str> = Vec::new();
    let mut words = options.iter();
    while let Some(word) = words.next() {
        // Older spellings have two dashes.
        let option = word.text.strip_prefix("--").unwrap_or(&word.text);
        if !matches!(option, "comment") {
            once(&mut given, option, word)?;
        }
        match option {
            "family" if kind.is_hash() && kind != Kind::HashMac => {
                argument(word, &mut words)?;
            }
            "hashsize" if kind.is_hash() => {
                spec.hashsize =
                    small(value(word, &mut words, u32::MAX.into())?.clamp(64, 1 << 31).next_power_of_two());
            }
            "maxelem" if kind.is_hash() => spec.maxelem = small(value(word, &mut words, u32::MAX.into())?),
            "bucketsize" if kind.is_hash() => {
                let size = value(word, &mut words, 255)?.clamp(2, 12).next_multiple_of(2);
                spec.bucketsize = u8::try_from(size).unwrap_or(12);
            }
            "initval" if kind.is_hash() => spec.initval = small(value(word, &mut words, u32::MAX.into())?),
            "forceadd" if kind.is_hash() => spec.forceadd = true,
            "netmask" if matches!(kind, Kind::HashIp | Kind::BitmapIp) => {
                let word = argument(word, &mut words)?;
                let most = family.map_or(32, width);
                let prefix = number(&word.text, most.into()).filter(|prefix| *prefix > 0);
                spec.netmask = prefix.and_then(|prefix| u8::try_from(prefix).ok()).ok_or_else(|| {
                    Diagnostic::error(
                        word.span,
                        format!("`{}` is no prefix length from 1 to {most}", word.text),
                    )
                })?;
            }
            "size" if kind == Kind::ListSet => {
                spec.size = small(value(word, &mut words, u32::MAX.into())?.max(4));
            }
            "range" if matches!(kind, Kind::BitmapIp | Kind::BitmapPort) => {
                range = Some(argument(word, &mut words)?);
            }
            "from" | "to" | "network" if matches!(kind, Kind::BitmapIp | Kind::BitmapPort) => {
                let found = format!("`{option}` is not supported");
                return Err(Diagnostic::unsupported(word.span, found).hint("write `range FROM-TO`"));
            }
            "-4" | "-6" if kind.is_hash() => {
                let found = format!("`{option}` is not supported");
                return Err(
                    Diagnostic::unsupported(word.span, found).hint("write `family inet` or `family inet6`")
                );
            }
            // Of ipset 4, without effect since.
            "probes" | "resize"
                if matches!(kind, Kind::HashIp | Kind::HashNet | Kind::HashIpPort)
                    || kind.has_second_address() =>
            {
                argument(word, &mut words)?;
            }
            "gc" if kind == Kind::HashIp => {
                argument(word, &mut words)?;
            }
            "timeout" => spec.timeout = Some(small(value(word, &mut words, TIMEOUT_MAX)?)),
            "counters" => spec.counters = true,
            "comment" => spec.comment = true,
            "skbinfo" => {
                let found = Diagnostic::unsupported(word.span, "`skbinfo` is not supported");
                return Err(found.hint("marks, priorities and queues kept in a set have no meaning on a wire; use -j MARK in a rule"));
            }
            "bitmask" | "netmask" if matches!(kind, Kind::HashIp | Kind::HashIpPort) => {
                let found = format!("`{option}` of {} is not supported", kind.name());
                return Err(Diagnostic::unsupported(word.span, found).hint(
                    "Linux itself forgets it for ranges; use hash:ip with `netmask`, or a type with networks",
                ));
            }
            other => return Err(unknown(word, other)),
        }
    }
    if matches!(kind, Kind::BitmapIp | Kind::BitmapPort) {
        let Some(word) = range else {
            return Err(Diagnostic::error(place.span, format!("{} needs a `range FROM-TO`", kind.name())));
        };
        spec.range = self::range(word, &spec, services)?;
    }
    Ok(spec)
}

/// Takes down that an option was given. What has a value is given once.
pub(super) fn once<'a>(given: &mut Vec<&'a str>, option: &'a str, word: &Word) -> Result<(), Diagnostic> {
    let is_flag = matches!(option, "counters" | "forceadd" | "nomatch");
    if given.contains(&option) && !is_flag {
        return Err(Diagnostic::error(word.span, format!("`{option}` is given twice")));
    }
    given.push(option);
    Ok(())
}

pub(super) fn unknown(word: &Word, text: &str) -> Diagnostic {
    const KNOWN: [&str; 20] = [
        "family",
        "hashsize",
        "maxelem",
        "timeout",
        "counters",
        "comment",
        "forceadd",
        "netmask",
        "range",
        "size",
        "skbinfo",
        "nomatch",
        "packets",
        "bytes",
        "bucketsize",
        "initval",
        "before",
        "after",
        "bitmask",
        "wildcard",
    ];
    let found = Diagnostic::error(word.span, format!("`{text}` is not known here"));
    match nearest(text, KNOWN.into_iter()).filter(|near| *near != text) {
        Some(near) => found.hint(format!("did you mean `{near}`?")),
        None => found,
    }
}

/// The family decides how everything else is read.
fn family(kind: Kind, options: &[Word]) -> Result<Option<Family>, Diagnostic> {
    if !kind.has_address() {
        return Ok(None);
    }
    let is_family = |word: &Word| matches!(word.text.as_str(), "family" | "--family");
    let Some(at) = options.iter().rposition(is_family) else {
        return Ok(Some(Family::V4));
    };
    if kind == Kind::BitmapIp {
        return Err(unknown(&options[at], "family"));
    }
    let word = argument(&options[at], &mut options[at + 1..].iter())?;
    match word.text.as_str() {
        "inet" | "ipv4" | "-4" => Ok(Some(Family::V4)),
        "inet6" | "ipv6" | "-6" => Ok(Some(Family::V6)),
        other => Err(Diagnostic::error(word.span, format!("`{other}` is no family")).hint("inet or inet6")),
    }
}

/// The range of a bitmap.
fn range(word: &Word, spec: &Spec, services: &dyn Services) -> Result<(u32, u32), Diagnostic> {
    let as_set = Spec { range: (0, u32::MAX), netmask: 32, ..spec.clone() };
    let whole = |text: &str| Word { text: text.to_owned(), span: word.span };
    let ends = |text: &str| element::Pattern::parse(&whole(text), &as_set, services);
    let pattern = ends(&word.text)?;
    if !word.text.contains(['-', '/']) {
        return Err(Diagnostic::error(word.span, "a range has two ends: FROM-TO"));
    }
    let (from, to) = pattern.ends();
    let host = u32::from(32 - spec.netmask.min(32));
    let (mut from, to) = (from, to);
    if spec.kind == Kind::BitmapIp {
        from &= u32::try_from(dataplane::sets::mask(Family::V4, spec.netmask)).unwrap_or(u32::MAX);
        let values = (u64::from(to - from) >> host) + 1;
        if values > BITMAP_MAX {
            let message = format!("{values} values are more than the {BITMAP_MAX} that a bitmap holds");
            return Err(Diagnostic::error(word.span, message));
        }
    }
    Ok((from, to))
}

/// A number for the hash, for sets that are not told one.
fn random() -> u32 {
    use std::hash::BuildHasher as _;
    let random = std::hash::RandomState::new().hash_one(0_u8);
    u32::try_from(random & u64::from(u32::MAX)).unwrap_or(1)
}
