//! Rule sets to measure with: our own, drawn from a few laws with a fixed seed, or ClassBench files; and headers for them.
//!
//! Our own have the three shapes that filters are known to come in: `acl`, most rules name a source and a destination
//! network and a service; `fw`, many leave one side open and ask for ranges of ports; `ipc`, between the two. The shares
//! below are our own, chosen to look like such sets, not taken from any.

#![allow(clippy::cast_possible_truncation, reason = "numbers drawn below what fits")]

use crate::Error;
use dataplane::rules::classifier::{self, Header, Rule};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A set of rules.
#[derive(Clone, Debug)]
pub struct Set {
    /// What it is called.
    pub name: String,
    /// Whether its addresses are of IPv6.
    pub wide: bool,
    /// The rules, the first that matches counts.
    pub rules: Vec<Rule>,
}

/// A small generator (xorshift64*): the same sets everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts it.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 20) % end.max(1)
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn within(&mut self, (low, high): (u16, u16)) -> u16 {
        low + self.below(u64::from(high - low) + 1) as u16
    }
}

/// What a set looks like, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    name: &'static str,
    /// Rules without a source, without a destination.
    open: [u64; 2],
    /// Addresses that are single hosts.
    hosts: u64,
    /// Rules for any source port, for the unprivileged ones; the rest names one.
    src_ports: [u64; 2],
    /// The same of the destination, and for ranges of its own.
    dst_ports: [u64; 3],
}

/// The shapes there are.
pub const SHAPES: [Shape; 3] = [
    Shape { name: "acl", open: [3, 1], hosts: 55, src_ports: [97, 2], dst_ports: [22, 8, 12] },
    Shape { name: "fw", open: [24, 38], hosts: 45, src_ports: [62, 22], dst_ports: [38, 14, 9] },
    Shape { name: "ipc", open: [9, 9], hosts: 60, src_ports: [80, 6], dst_ports: [48, 10, 5] },
];

const SERVICES: [u16; 24] = [
    20, 21, 22, 23, 25, 53, 67, 80, 110, 123, 143, 161, 389, 443, 445, 514, 636, 993, 1433, 1521, 3306, 3389,
    5060, 8080,
];

/// A set of that shape with `count` rules, the last one for everything.
#[must_use]
pub fn generate(shape: &Shape, count: usize, seed: u64, wide: bool) -> Set {
    let mut random = Random::new(seed);
    let sites: Vec<u32> = (0..6 + count / 400).map(|_| random.next() as u32 & 0xffff_0000).collect();
    let mut rules: Vec<Rule> = Vec::with_capacity(count);
    let mut seen = std::collections::HashSet::new();
    while rules.len() + 1 < count {
        let rule = draw(shape, &sites, &mut random, wide);
        if seen.insert((
            rule.src,
            rule.src_mask,
            rule.dst,
            rule.dst_mask,
            rule.src_ports,
            rule.dst_ports,
            rule.proto,
        )) {
            rules.push(rule);
        }
    }
    // Narrow rules before wide ones, mostly: as people write them, or a few would hide all others.
    rules.sort_by_cached_key(|rule| {
        let fixed = rule.src_mask.count_ones() + rule.dst_mask.count_ones();
        u64::from(200_u32.saturating_sub(fixed) / 4) * 4 + random.below(12)
    });
    rules.push(ANY);
    let family = if wide { "v6" } else { "v4" };
    Set { name: format!("{}_{count}_{seed}_{family}", shape.name), wide, rules }
}

const ANY: Rule = Rule {
    src: 0,
    src_mask: 0,
    dst: 0,
    dst_mask: 0,
    src_ports: (0, u16::MAX),
    dst_ports: (0, u16::MAX),
    proto: None,
    refuses: 0,
    hides_to: u32::MAX,
};

fn draw(shape: &Shape, sites: &[u32], random: &mut Random, wide: bool) -> Rule {
    let mut rule = ANY;
    let [src_open, dst_open] = shape.open.map(|share| random.percent(share));
    if !src_open {
        (rule.src, rule.src_mask) = network(shape, sites, random, wide);
    }
    if !dst_open || src_open && random.percent(80) {
        (rule.dst, rule.dst_mask) = network(shape, sites, random, wide);
    }
    rule.proto = [Some(6), Some(6), Some(6), Some(6), Some(6), Some(6), Some(17), Some(17), Some(1), None]
        [random.below(10) as usize];
    if !matches!(rule.proto, Some(6 | 17)) {
        return rule;
    }
    let kind = random.below(100);
    let [any, high] = shape.src_ports;
    rule.src_ports = match kind {
        _ if kind < any => (0, u16::MAX),
        _ if kind < any + high => (1024, u16::MAX),
        _ => service(random),
    };
    let kind = random.below(100);
    let [any, high, ranges] = shape.dst_ports;
    rule.dst_ports = match kind {
        _ if kind < any => (0, u16::MAX),
        _ if kind < any + high => (1024, u16::MAX),
        _ if kind < any + high + ranges => {
            let low = random.within((1, 60_000));
            let size = 1 << random.below(12);
            (low, low + random.below(size) as u16)
        }
        _ => service(random),
    };
    rule
}

fn service(random: &mut Random) -> (u16, u16) {
    let port = if random.percent(85) {
        SERVICES[random.below(SERVICES.len() as u64) as usize]
    } else {
        random.within((1, u16::MAX))
    };
    (port, port)
}

/// A host or network at one of the sites. In IPv6 a site is a /48, networks are /64 or wider, hosts are hosts.
fn network(shape: &Shape, sites: &[u32], random: &mut Random, wide: bool) -> (u128, u128) {
    let site = sites[random.below(sites.len() as u64) as usize];
    // Towards the lower networks of a site: they are filled from below.
    let subnet = random.below(256).min(random.below(256)) as u32;
    let host = random.below(250) as u32 + 1;
    let len = if random.percent(shape.hosts) {
        32
    } else {
        [16, 20, 22, 23, 24, 24, 24, 24, 26, 27, 28, 28, 29, 30][random.below(14) as usize]
    };
    let addr = site | subnet << 8 | host;
    if wide {
        let len = if len == 32 { 128 } else { (len + 32).min(64) };
        let mask = u128::MAX << (128 - len);
        let addr = 0x2001_0db8_u128 << 96 | u128::from(addr >> 8) << 72 | u128::from(addr & 0xff) << 64;
        return ((addr | (u128::from(host) * 0x1001)) & mask, mask);
    }
    let mask = u32::MAX << (32 - len);
    (u128::from(addr & mask), u128::from(mask))
}

/// Reads a ClassBench file, plain or compressed.
///
/// # Errors
/// If it cannot be read, or a line is not a rule.
pub fn read(path: &Path) -> Result<Set, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = if name.ends_with(".gz") {
        String::from_utf8(Command::new("gzip").arg("-dc").arg(path).output()?.stdout)?
    } else {
        fs::read_to_string(path)?
    };
    let rules: Option<Vec<Rule>> = text.lines().filter(|line| !line.is_empty()).map(parse).collect();
    let rules = rules.ok_or_else(|| format!("{}: not a ClassBench file", path.display()))?;
    Ok(Set { name: name.split('.').next().unwrap_or(&name).to_owned(), wide: false, rules })
}

/// `@SIP/len DIP/len SPLO : SPHI DPLO : DPHI PROTO/PMASK`, separated by tabs; flags that may follow are left out.
fn parse(line: &str) -> Option<Rule> {
    let mut fields = line.strip_prefix('@')?.split('\t');
    let mut network = || {
        let (addr, len) = fields.next()?.trim().split_once('/')?;
        let (addr, len): (std::net::Ipv4Addr, u32) = (addr.parse().ok()?, len.parse().ok()?);
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(len)?).unwrap_or(0);
        Some((u128::from(addr.to_bits() & mask), u128::from(mask)))
    };
    let ((src, src_mask), (dst, dst_mask)) = (network()?, network()?);
    let mut range = || {
        let (low, high) = fields.next()?.split_once(':')?;
        Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
    };
    let (src_ports, dst_ports) = (range()?, range()?);
    let (proto, mask) = fields.next()?.trim().split_once('/')?;
    let hex = |text: &str| u8::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let proto = (hex(mask)? != 0).then_some(hex(proto)?);
    Some(Rule { src, src_mask, dst, dst_mask, src_ports, dst_ports, proto, ..ANY })
}

impl Set {
    /// Headers: nine in ten anywhere in a rule drawn at random, the others anywhere at all. No two follow each other on
    /// purpose: the worst case for caches.
    #[must_use]
    pub fn headers(&self, count: usize) -> Vec<Header> {
        let mut random = Random::new(0x7ace);
        let facts = classifier::facts(0, true, 0, 1);
        let all = if self.wide { u128::MAX } else { u128::from(u32::MAX) };
        let everything = ANY;
        (0..count)
            .map(|_| {
                let rule = if random.percent(90) {
                    &self.rules[random.below(self.rules.len() as u64) as usize]
                } else {
                    &everything
                };
                let mut addr = |addr: u128, mask: u128| {
                    let any = u128::from(random.next()) << 64 | u128::from(random.next());
                    addr | any & !mask & all
                };
                let (src, dst) = (addr(rule.src, rule.src_mask), addr(rule.dst, rule.dst_mask));
                let (src_port, dst_port) = (random.within(rule.src_ports), random.within(rule.dst_ports));
                let proto = rule.proto.unwrap_or([6, 17, 1, 47][random.below(4) as usize]);
                Header { src, dst, src_port, dst_port, proto, facts }
            })
            .collect()
    }

    /// The first rule that matches, found by looking at each in turn.
    #[must_use]
    pub fn plain_first(&self, header: &Header) -> u32 {
        let matches = |rule: &Rule| {
            header.src & rule.src_mask == rule.src
                && header.dst & rule.dst_mask == rule.dst
                && (rule.src_ports.0..=rule.src_ports.1).contains(&header.src_port)
                && (rule.dst_ports.0..=rule.dst_ports.1).contains(&header.dst_port)
                && rule.proto.is_none_or(|proto| proto == header.proto)
        };
        self.rules.iter().position(matches).map_or(classifier::NONE, |at| at as u32)
    }

    /// The rules as `bench/peers/rte_acl.c` reads them.
    #[must_use]
    pub fn rules_text(&self) -> String {
        let mut text = String::new();
        for rule in &self.rules {
            for (addr, mask) in [(rule.src, rule.src_mask), (rule.dst, rule.dst_mask)] {
                let _ = write!(text, "{}{} ", self.words(addr), mask.count_ones());
            }
            let (src, dst) = (rule.src_ports, rule.dst_ports);
            let proto = rule.proto.map_or((0, 0), |proto| (proto, 0xff));
            let _ = writeln!(text, "{} {} {} {} {} {}", src.0, src.1, dst.0, dst.1, proto.0, proto.1);
        }
        text
    }

    /// Headers as it reads them.
    #[must_use]
    pub fn headers_text(&self, headers: &[Header]) -> String {
        let mut text = String::new();
        for header in headers {
            let Header { src, dst, src_port, dst_port, proto, facts: _ } = *header;
            let _ = writeln!(text, "{}{}{src_port} {dst_port} {proto}", self.words(src), self.words(dst));
        }
        text
    }

    fn words(&self, addr: u128) -> String {
        let shifts: &[u32] = if self.wide { &[96, 64, 32, 0] } else { &[0] };
        shifts.iter().map(|shift| format!("{} ", (addr >> shift) as u32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_classbench_is_a_rule() {
        let line = "@10.1.2.3/24\t0.0.0.0/0\t0 : 65535\t1024 : 65535\t0x06/0xFF\t0x0000/0x0200\t";
        let rule = parse(line).expect("a rule");
        assert_eq!((rule.src, rule.src_mask), (0x0a01_0200, 0xffff_ff00));
        assert_eq!((rule.dst_mask, rule.dst_ports, rule.proto), (0, (1024, 65535), Some(6)));
        assert_eq!(parse("10.1.2.3/24"), None);
    }

    #[test]
    fn sets_have_as_many_rules_as_asked_and_are_found_by_their_headers() {
        for shape in &SHAPES {
            for wide in [false, true] {
                let set = generate(shape, 500, 1, wide);
                assert_eq!(set.rules.len(), 500);
                let classifier = classifier::Classifier::new(&set.rules, wide);
                for header in set.headers(300) {
                    let found = classifier.next(&mut classifier.find(&header), 0);
                    assert_eq!(found, set.plain_first(&header), "{header:x?}");
                }
            }
        }
    }
}
