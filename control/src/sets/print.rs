//! Sets as `ipset list` and `ipset save` print them.

use super::element;
use dataplane::clock::Now;
use dataplane::packet::Family;
use dataplane::sets::{Entry, Kind, Set, SlotId, Spec, width};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// A word and what stands behind it, if anything does.
pub type Field = (&'static str, Option<String>);

/// Fields as text, a blank between words.
#[must_use]
pub fn text(fields: &[Field]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        out.push_str(if out.is_empty() { "" } else { " " });
        out.push_str(name);
        if let Some(value) = value {
            let _ = write!(out, " {value}");
        }
    }
    out
}

/// Fields as XML elements.
#[must_use]
pub fn xml(fields: &[Field]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        let _ = match value {
            Some(value) => write!(out, "<{name}>{}</{name}>", escaped(value)),
            None => write!(out, "<{name}/>"),
        };
    }
    out
}

/// Text within XML. ipset leaves it as it is, and what it prints may not be XML then.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What a set was made with, as it stands behind its type.
#[must_use]
pub fn header(spec: &Spec) -> Vec<Field> {
    let mut out: Vec<Field> = Vec::new();
    match spec.kind {
        Kind::ListSet => out.push(("size", Some(spec.size.to_string()))),
        Kind::BitmapPort => out.push(("range", Some(format!("{}-{}", spec.range.0, spec.range.1)))),
        Kind::BitmapIp => {
            let (from, to) = (Ipv4Addr::from(spec.range.0), Ipv4Addr::from(spec.range.1));
            out.push(("range", Some(format!("{from}-{to}"))));
        }
        _ => {
            if let Some(family) = spec.family {
                out.push(("family", Some(if family == Family::V4 { "inet" } else { "inet6" }.to_owned())));
            }
            out.push(("hashsize", Some(spec.hashsize.to_string())));
            out.push(("maxelem", Some(spec.maxelem.to_string())));
        }
    }
    if spec.family.is_some_and(|family| spec.netmask != width(family)) {
        out.push(("netmask", Some(spec.netmask.to_string())));
    }
    out.extend(spec.timeout.map(|timeout| ("timeout", Some(timeout.to_string()))));
    let flags = [(spec.counters, "counters"), (spec.comment, "comment"), (spec.forceadd, "forceadd")];
    out.extend(flags.into_iter().filter(|(has, _)| *has).map(|(_, word)| (word, None)));
    if spec.kind.is_hash() {
        out.push(("bucketsize", Some(spec.bucketsize.to_string())));
        out.push(("initval", Some(format!("{:#010x}", spec.initval))));
    }
    out
}

/// The element of an entry.
#[must_use]
pub fn element(set: &Set, entry: &Entry, name_of: &dyn Fn(SlotId) -> String) -> String {
    match entry.member {
        Some(id) => name_of(id),
        None => {
            let element = &entry.element;
            let iface = if element.iface == 0 { String::new() } else { set.iface_name(element.iface) };
            element::print(element, set.spec(), &iface)
        }
    }
}

/// All that comes with an entry.
#[must_use]
pub fn extras(entry: &Entry) -> Vec<Field> {
    let Entry { element: _, member: _, nomatch, timeout, counts, comment } = entry;
    let mut out: Vec<Field> = Vec::new();
    out.extend(timeout.map(|timeout| ("timeout", Some(timeout.to_string()))));
    if *nomatch {
        out.push(("nomatch", None));
    }
    if let Some((packets, bytes)) = counts {
        out.push(("packets", Some(packets.to_string())));
        out.push(("bytes", Some(bytes.to_string())));
    }
    out.extend(comment.as_ref().map(|comment| ("comment", Some(format!("\"{comment}\"")))));
    out
}

/// The entries of a set, in order if that is wanted. Bitmaps and lists always are.
#[must_use]
pub fn entries(set: &Set, sorted: bool, now: Now) -> Vec<Entry> {
    let mut entries = set.entries(now);
    if sorted || matches!(set.spec().kind, Kind::BitmapIp | Kind::BitmapPort) {
        entries.sort_by_key(|entry| {
            let of = &entry.element;
            (of.addr, of.prefix, of.proto, of.port, of.addr2, of.prefix2, of.iface)
        });
    }
    entries
}

/// The newest revision of a type in Linux 6.18, whose forms these are.
#[must_use]
pub const fn revision(kind: Kind) -> u8 {
    match kind {
        Kind::HashIp | Kind::HashIpPortIp => 6,
        Kind::HashNet | Kind::HashIpPort => 7,
        Kind::HashNetPort | Kind::HashIpPortNet | Kind::HashNetIface => 8,
        Kind::HashMac => 1,
        Kind::BitmapIp | Kind::BitmapPort | Kind::ListSet => 3,
    }
}
