//! Elements as they are written: `10.0.0.1`, `10.0.0.0/8,tcp:80`, `10.0.0.0/8,physdev:eth0` and so on. What is written
//! may stand for many elements: a range of addresses, of ports, or of both.

use super::icmp;
use crate::iptables::diagnostics::Diagnostic;
use crate::iptables::lexer::Word;
use crate::iptables::names::{Services, protocol_name, protocol_number};
use crate::iptables::options::number;
use dataplane::packet::{Family, proto};
use dataplane::sets::{Element, Kind, NetPart, Spec, mask, width};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;

/// What one word stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Everything but the ranges.
    pub base: Element,
    /// The NIC named, whose number the set knows.
    pub iface: Option<String>,
    /// First addresses, both ends included.
    addrs: (u128, u128),
    /// Second addresses.
    addrs2: (u128, u128),
    ports: (u16, u16),
}

/// An address part: ends, prefix as written.
struct Part {
    from: u128,
    to: u128,
    prefix: Option<u8>,
    is_range: bool,
}

fn address(text: &str, family: Family) -> Option<u128> {
    match family {
        Family::V4 => text.parse::<Ipv4Addr>().ok().map(|addr| u128::from(u32::from(addr))),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
    }
}

fn bad_address(word: &Word, text: &str, family: Family) -> Diagnostic {
    let (which, other) = match family {
        Family::V4 => ("IPv4", Family::V6),
        Family::V6 => ("IPv6", Family::V4),
    };
    let found = Diagnostic::error(word.span, format!("`{text}` is no {which} address"));
    if address(text, other).is_some() {
        return found.hint("the set is of the other family");
    }
    found.hint("host names are not looked up: write the address")
}

/// `ADDR`, `ADDR/PREFIX` or `ADDR-ADDR`.
fn part(word: &Word, text: &str, family: Family) -> Result<Part, Diagnostic> {
    let read = |text: &str| address(text, family).ok_or_else(|| bad_address(word, text, family));
    if let Some((addr, prefix)) = text.split_once('/') {
        let from = read(addr)?;
        let Some(prefix) = number(prefix, width(family).into()).and_then(|prefix| u8::try_from(prefix).ok())
        else {
            let message = format!("`{prefix}` is no prefix length from 0 to {}", width(family));
            return Err(Diagnostic::error(word.span, message));
        };
        let net = mask(family, prefix);
        let to = from | mask(family, width(family)) & !net;
        return Ok(Part { from: from & net, to, prefix: Some(prefix), is_range: false });
    }
    if let Some((from, to)) = text.split_once('-') {
        let (from, to) = (read(from)?, read(to)?);
        return Ok(Part { from: from.min(to), to: from.max(to), prefix: None, is_range: true });
    }
    let addr = read(text)?;
    Ok(Part { from: addr, to: addr, prefix: None, is_range: false })
}

/// One address and no more.
fn plain(word: &Word, text: &str, family: Family) -> Result<u128, Diagnostic> {
    let part = part(word, text, family)?;
    if part.is_range || part.prefix.is_some_and(|prefix| prefix != width(family)) {
        return Err(Diagnostic::error(word.span, format!("`{text}` must be a single address here")));
    }
    Ok(part.from)
}

/// `[PROTO:]PORT[-PORT]`.
fn ports(
    word: &Word,
    text: &str,
    spec: &Spec,
    services: &dyn Services,
) -> Result<(u8, u16, u16), Diagnostic> {
    let family = spec.family.unwrap_or(Family::V4);
    let (proto, text) = match text.split_once(':') {
        None => (proto::TCP, text),
        Some((name, text)) => {
            let proto = protocol_number(name).filter(|proto| *proto != 0);
            let proto =
                proto.ok_or_else(|| Diagnostic::error(word.span, format!("`{name}` is no protocol")))?;
            (proto, text)
        }
    };
    let name = match proto {
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::SCTP => "sctp",
        proto::UDPLITE => "udplite",
        proto::ICMP | proto::ICMPV6 => {
            if (proto == proto::ICMP) != (family == Family::V4) {
                let message = "this ICMP is of the other family";
                return Err(Diagnostic::error(word.span, message));
            }
            let port = icmp::parse(text, family).ok_or_else(|| {
                Diagnostic::error(word.span, format!("`{text}` is no ICMP type: a name, or TYPE/CODE"))
            })?;
            return Ok((proto, port, port));
        }
        _ if text == "0" => return Ok((proto, 0, 0)),
        _ => return Err(Diagnostic::error(word.span, "this protocol has no ports: write 0")),
    };
    let read = |text: &str| {
        let port = number(text, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
        port.or_else(|| services.port(text, Some(name)))
            .ok_or_else(|| Diagnostic::error(word.span, format!("`{text}` is no {name} port")))
    };
    match text.split_once('-').filter(|_| services.port(text, Some(name)).is_none()) {
        Some((low, high)) => {
            let (low, high) = (read(low)?, read(high)?);
            Ok((proto, low.min(high), low.max(high)))
        }
        None => read(text).map(|port| (proto, port, port)),
    }
}

fn mac(word: &Word) -> Result<u128, Diagnostic> {
    let parts: Vec<_> = word.text.split(':').collect();
    let bytes: Option<Vec<u8>> = parts
        .iter()
        .map(|part| (1..=2).contains(&part.len()).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect();
    match bytes {
        Some(bytes) if bytes.len() == 6 => Ok(bytes.iter().fold(0, |all, byte| all << 8 | u128::from(*byte))),
        _ => Err(Diagnostic::error(word.span, format!("`{}` is no MAC address", word.text))),
    }
}

impl Pattern {
    /// Reads an element for a set of this kind.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(word: &Word, spec: &Spec, services: &dyn Services) -> Result<Self, Diagnostic> {
        let mut pattern =
            Self { base: Element::default(), iface: None, addrs: (0, 0), addrs2: (0, 0), ports: (0, 0) };
        let kind = spec.kind;
        if kind == Kind::HashMac {
            pattern.base.addr = mac(word)?;
            pattern.addrs = (pattern.base.addr, pattern.base.addr);
            return Ok(pattern);
        }
        let parts: Vec<_> = word.text.split(',').collect();
        if parts.len() != usize::from(kind.parts()) {
            let message = format!(
                "an element of {} has {} part(s), this has {}",
                kind.name(),
                kind.parts(),
                parts.len()
            );
            return Err(Diagnostic::error(word.span, message));
        }
        if kind == Kind::BitmapPort {
            let (_, low, high) = ports(word, parts[0], spec, services)?;
            pattern.ports = (low, high);
            return Ok(pattern);
        }
        let family = spec.family.unwrap_or(Family::V4);
        pattern.first_address(word, parts[0], spec, family)?;
        if kind.has_port() {
            let (proto, low, high) = ports(word, parts[1], spec, services)?;
            (pattern.base.proto, pattern.ports) = (proto, (low, high));
        }
        match kind {
            Kind::HashNetIface => pattern.nic(word, parts[1])?,
            Kind::HashIpPortIp => {
                let addr = plain(word, parts[2], family)?;
                pattern.addrs2 = (addr, addr);
            }
            Kind::HashIpPortNet => pattern.second_net(word, parts[2], family)?,
            _ => {}
        }
        Ok(pattern)
    }

    fn first_address(
        &mut self,
        word: &Word,
        text: &str,
        spec: &Spec,
        family: Family,
    ) -> Result<(), Diagnostic> {
        let is_net = spec.kind.net() == NetPart::First;
        if family == Family::V6 && !is_net {
            let addr = plain(word, text, family)?;
            self.addrs = (addr, addr);
            return Ok(());
        }
        let part = part(word, text, family)?;
        if part.is_range && family == Family::V6 {
            return Err(Diagnostic::error(word.span, "a range of IPv6 addresses must be a prefix"));
        }
        self.addrs = (part.from, part.to);
        if is_net {
            self.base.prefix = part.prefix.unwrap_or(width(family));
            check_prefix(word, part.prefix, spec.kind)?;
        }
        if is_net && !part.is_range {
            self.addrs.1 = part.from;
        }
        Ok(())
    }

    fn second_net(&mut self, word: &Word, text: &str, family: Family) -> Result<(), Diagnostic> {
        let part = part(word, text, family)?;
        if part.is_range && family == Family::V6 {
            return Err(Diagnostic::error(word.span, "a range of IPv6 addresses must be a prefix"));
        }
        check_prefix(word, part.prefix, Kind::HashIpPortNet)?;
        self.base.prefix2 = part.prefix.unwrap_or(width(family));
        self.addrs2 = (part.from, if part.is_range { part.to } else { part.from });
        Ok(())
    }

    fn nic(&mut self, word: &Word, text: &str) -> Result<(), Diagnostic> {
        let (name, physdev) = match text.strip_prefix("physdev:") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.is_empty() || name.len() > 15 {
            return Err(Diagnostic::error(
                word.span,
                format!("`{name}` is no name of a NIC: 1 to 15 characters"),
            ));
        }
        (self.iface, self.base.physdev) = (Some(name.to_owned()), physdev);
        Ok(())
    }

    /// Calls `each` with every element it stands for, in order, until that says stop. `iface` is the number of its NIC.
    pub fn each<B>(
        &self,
        spec: &Spec,
        iface: u16,
        mut each: impl FnMut(Element) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let family = spec.family.unwrap_or(Family::V4);
        let base = Element { iface, ..self.base };
        let step = match spec.kind {
            Kind::HashIp | Kind::BitmapIp if spec.netmask < width(family) => {
                1_u128 << (width(family) - spec.netmask)
            }
            _ => 1,
        };
        let firsts = Blocks::new(self.addrs, base.prefix, spec.kind.net() == NetPart::First, step, family);
        for (addr, prefix) in firsts {
            for port in self.ports.0..=self.ports.1 {
                let is_net = spec.kind.net() == NetPart::Second;
                for (addr2, prefix2) in Blocks::new(self.addrs2, base.prefix2, is_net, 1, family) {
                    each(Element { addr, prefix, port, addr2, prefix2, ..base })?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The ends of a bitmap's range.
    pub(super) fn ends(&self) -> (u32, u32) {
        if self.ports != (0, 0) {
            return (self.ports.0.into(), self.ports.1.into());
        }
        (u32::try_from(self.addrs.0).unwrap_or(0), u32::try_from(self.addrs.1).unwrap_or(u32::MAX))
    }

    /// Its first element: what a test is about.
    #[must_use]
    pub fn first(&self, spec: &Spec, iface: u16) -> Element {
        let mut first = Element::default();
        let _ = self.each(spec, iface, |element| {
            first = element;
            ControlFlow::Break(())
        });
        first
    }
}

/// Network 0/0 is no element but of `hash:net,iface`.
fn check_prefix(word: &Word, prefix: Option<u8>, kind: Kind) -> Result<(), Diagnostic> {
    if prefix == Some(0) && kind != Kind::HashNetIface {
        let found = Diagnostic::error(word.span, "a prefix of zero bits is no element of such a set");
        return Err(found.hint("give two halves: 0.0.0.0/1 and 128.0.0.0/1, or ::/1 and 8000::/1"));
    }
    Ok(())
}

/// Addresses of a range one by one, or the fewest networks that are the range.
struct Blocks {
    next: Option<u128>,
    last: u128,
    prefix: u8,
    /// Whether networks are to be found; else a network as written, or addresses.
    as_nets: bool,
    step: u128,
    family: Family,
}

impl Blocks {
    fn new((from, last): (u128, u128), prefix: u8, is_net: bool, step: u128, family: Family) -> Self {
        let as_nets = is_net && from != last;
        let prefix = if is_net && as_nets { width(family) } else { prefix };
        Self { next: Some(from), last, prefix, as_nets, step, family }
    }
}

impl Iterator for Blocks {
    type Item = (u128, u8);

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.next.filter(|from| *from <= self.last)?;
        if !self.as_nets {
            self.next = (from - from % self.step).checked_add(self.step);
            return Some((from, self.prefix));
        }
        let full = width(self.family);
        let end = |prefix: u8| from | mask(self.family, full) & !mask(self.family, prefix);
        let fits = |prefix: &u8| from & !mask(self.family, *prefix) == 0 && end(*prefix) <= self.last;
        let prefix = (1..=full).find(fits).unwrap_or(full);
        self.next = end(prefix).checked_add(1);
        Some((from, prefix))
    }
}

/// An element as ipset prints it. `iface` is the name of its NIC.
#[must_use]
pub fn print(element: &Element, spec: &Spec, iface: &str) -> String {
    let family = spec.family.unwrap_or(Family::V4);
    let address = |addr: u128| match family {
        Family::V4 => Ipv4Addr::from(u32::try_from(addr).unwrap_or(u32::MAX)).to_string(),
        Family::V6 => v6(addr),
    };
    let net = |addr: u128, prefix: u8| {
        if prefix == width(family) { address(addr) } else { format!("{}/{prefix}", address(addr)) }
    };
    let port = || {
        let number = element.port;
        let name = protocol_name(element.proto).map_or_else(|| element.proto.to_string(), str::to_owned);
        match element.proto {
            proto::ICMP | proto::ICMPV6 => format!("{name}:{}", icmp::print(number, family)),
            _ => format!("{name}:{number}"),
        }
    };
    match spec.kind {
        Kind::HashIp | Kind::BitmapIp => address(element.addr),
        Kind::HashNet => net(element.addr, element.prefix),
        Kind::HashIpPort => format!("{},{}", address(element.addr), port()),
        Kind::HashNetPort => format!("{},{}", net(element.addr, element.prefix), port()),
        Kind::HashIpPortIp => format!("{},{},{}", address(element.addr), port(), address(element.addr2)),
        Kind::HashIpPortNet => {
            format!("{},{},{}", address(element.addr), port(), net(element.addr2, element.prefix2))
        }
        Kind::HashNetIface => {
            let bridged = if element.physdev { "physdev:" } else { "" };
            format!("{},{bridged}{iface}", net(element.addr, element.prefix))
        }
        Kind::HashMac => {
            let bytes = element.addr.to_be_bytes();
            let parts: Vec<_> = bytes[10..].iter().map(|byte| format!("{byte:02X}")).collect();
            parts.join(":")
        }
        Kind::BitmapPort => element.port.to_string(),
        Kind::ListSet => String::new(),
    }
}

/// An IPv6 address as glibc prints it: the low half of `::a.b.c.d` as IPv4, too.
fn v6(addr: u128) -> String {
    match u32::try_from(addr) {
        Ok(low) if low > 0xffff => format!("::{}", Ipv4Addr::from(low)),
        _ => Ipv6Addr::from(addr).to_string(),
    }
}
