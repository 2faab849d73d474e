//! Sets as `ipset list` and `ipset save` print them.

use super::element;
use dataplane::clock::Now;
use dataplane::packet::Family;
use dataplane::sets::{Entry, Kind, Set, SlotId, Spec, width};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// What a set was made with, as it stands behind its type.
#[must_use]
pub fn header(spec: &Spec) -> String {
    let mut out = String::new();
    match spec.kind {
        Kind::ListSet => {
            let _ = write!(out, "size {}", spec.size);
        }
        Kind::BitmapPort => {
            let _ = write!(out, "range {}-{}", spec.range.0, spec.range.1);
        }
        Kind::BitmapIp => {
            let (from, to) = (Ipv4Addr::from(spec.range.0), Ipv4Addr::from(spec.range.1));
            let _ = write!(out, "range {from}-{to}");
        }
        _ => {
            if let Some(family) = spec.family {
                let _ = write!(out, "family {} ", if family == Family::V4 { "inet" } else { "inet6" });
            }
            let _ = write!(out, "hashsize {} maxelem {}", spec.hashsize, spec.maxelem);
        }
    }
    if spec.family.is_some_and(|family| spec.netmask != width(family)) {
        let _ = write!(out, " netmask {}", spec.netmask);
    }
    if let Some(timeout) = spec.timeout {
        let _ = write!(out, " timeout {timeout}");
    }
    for (has, word) in
        [(spec.counters, " counters"), (spec.comment, " comment"), (spec.forceadd, " forceadd")]
    {
        out.push_str(if has { word } else { "" });
    }
    if spec.kind.is_hash() {
        let _ = write!(out, " bucketsize {} initval {:#010x}", spec.bucketsize, spec.initval);
    }
    out
}

/// An entry with all that comes with it.
#[must_use]
pub fn entry(set: &Set, entry: &Entry, name_of: &dyn Fn(SlotId) -> String) -> String {
    let Entry { element, member, nomatch, timeout, counts, comment } = entry;
    let mut out = match member {
        Some(id) => name_of(*id),
        None => {
            let iface = if element.iface == 0 { String::new() } else { set.iface_name(element.iface) };
            element::print(element, set.spec(), &iface)
        }
    };
    if let Some(timeout) = timeout {
        let _ = write!(out, " timeout {timeout}");
    }
    if *nomatch {
        out.push_str(" nomatch");
    }
    if let Some((packets, bytes)) = counts {
        let _ = write!(out, " packets {packets} bytes {bytes}");
    }
    if let Some(comment) = comment {
        let _ = write!(out, " comment \"{comment}\"");
    }
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

/// What is said of a set before its members.
#[must_use]
pub fn head(name: &str, set: &Set, references: usize) -> String {
    let spec = set.spec();
    let header = header(spec);
    format!(
        "Name: {name}\nType: {}\nRevision: {}\nHeader: {header}\nSize in memory: {}\nReferences: {references}\n\
         Number of entries: {}\n",
        spec.kind.name(),
        revision(spec.kind),
        set.bytes(),
        set.len(),
    )
}

/// The newest revision of a type in Linux 6.18, whose forms these are.
const fn revision(kind: Kind) -> u8 {
    match kind {
        Kind::HashIp | Kind::HashIpPortIp => 6,
        Kind::HashNet | Kind::HashIpPort => 7,
        Kind::HashNetPort | Kind::HashIpPortNet | Kind::HashNetIface => 8,
        Kind::HashMac => 1,
        Kind::BitmapIp | Kind::BitmapPort | Kind::ListSet => 3,
    }
}
