//! Source and destination ports: udp, and the parts that tcp, sctp and dccp share with it.

use std::fmt::Write as _;

use dataplane::rules::header::HeaderMatch;
use dataplane::rules::model::{Match, PortSide};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::Services;

/// Option id of `--sport`.
pub const SPORT: u8 = 1;
/// Option id of `--dport`.
pub const DPORT: u8 = 2;

/// Options that udp, sctp and dccp share.
pub(super) const PORT_OPTIONS: [OptionSpec; 4] = [
    OptionSpec { name: "source-port", id: SPORT, slot: 1, args: 1, invertible: true },
    OptionSpec { name: "sport", id: SPORT, slot: 1, args: 1, invertible: true },
    OptionSpec { name: "destination-port", id: DPORT, slot: 2, args: 1, invertible: true },
    OptionSpec { name: "dport", id: DPORT, slot: 2, args: 1, invertible: true },
];

/// `-m udp`.
pub static UDP: Extension = Extension {
    kind: Kind::Match,
    names: &["udp"],
    family: None,
    protocol: Some(17),
    repeatable: false,
    options: &PORT_OPTIONS,
    new: |_| Box::new(Udp { ports: Ports::default() }),
};

/// An inclusive range of ports, perhaps inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest.
    pub low: u16,
    /// Highest.
    pub high: u16,
    /// With `!`.
    pub invert: bool,
}

/// A pair of `--sport` and `--dport`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// `--sport`.
    pub src: Option<PortRange>,
    /// `--dport`.
    pub dst: Option<PortRange>,
}

#[derive(Debug)]
struct Udp {
    ports: Ports,
}

impl PortRange {
    const ALL: (u16, u16) = (0, u16::MAX);

    fn is_all(self) -> bool {
        (self.low, self.high) == Self::ALL
    }

    fn print(self, option: &str, out: &mut String) {
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, "{bang} --{option} {}", self.low);
        if self.low != self.high {
            let _ = write!(out, ":{}", self.high);
        }
    }

    fn list(self, name: &str, out: &mut String) {
        let bang = if self.invert { "!" } else { "" };
        if self.low == self.high {
            let _ = write!(out, " {name}t:{bang}{}", self.low);
        } else {
            let _ = write!(out, " {name}ts:{bang}{}:{}", self.low, self.high);
        }
    }
}

impl Ports {
    /// Takes `--sport` or `--dport`. `drop_all` says that this match leaves `0:65535` out, as tcp and udp do.
    ///
    /// # Errors
    /// A bad port or range.
    pub fn option(&mut self, given: &Given<'_>, proto: &str, drop_all: bool) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let mut range = range(word, proto, given.facts.services)?;
        range.invert = given.invert;
        if drop_all && range.is_all() {
            if range.invert {
                return Err(Diagnostic::unsupported(word.span, "no port at all is left by this condition")
                    .hint("iptables-nft ignores it and iptables-legacy never matches; say what is meant"));
            }
            return Ok(());
        }
        let side = if given.id == SPORT { &mut self.src } else { &mut self.dst };
        *side = Some(range);
        Ok(())
    }

    /// Appends the options.
    pub fn print(self, out: &mut String) {
        let Self { src, dst } = self;
        src.inspect(|range| range.print("sport", out));
        dst.inspect(|range| range.print("dport", out));
    }

    /// Appends the words of a listing.
    pub fn list(self, out: &mut String) {
        let Self { src, dst } = self;
        src.inspect(|range| range.list("sp", out));
        dst.inspect(|range| range.list("dp", out));
    }

    /// The conditions.
    #[must_use]
    pub fn lower(self) -> Vec<Match> {
        let Self { src, dst } = self;
        let one = |which, range: PortRange| Match::Ports {
            which,
            ranges: vec![(range.low, range.high)],
            invert: range.invert,
        };
        src.map(|range| one(PortSide::Src, range))
            .into_iter()
            .chain(dst.map(|range| one(PortSide::Dst, range)))
            .collect()
    }
}

impl Instance for Udp {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        self.ports.option(given, "udp", true)
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        require_protocol("udp", 17, facts, span)
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m udp");
        self.ports.print(out);
    }

    fn list(&self, out: &mut String) {
        out.push_str(" udp");
        self.ports.list(out);
    }

    fn lower(&self) -> Lowered {
        let mut matches = self.ports.lower();
        if matches.is_empty() {
            matches.push(Match::Header(HeaderMatch::Carries(8)));
        }
        Lowered::Matches(matches)
    }
}

/// Checks that the rule says `-p NAME`.
///
/// # Errors
/// If it says another protocol, none, or `! -p NAME`.
pub fn require_protocol(name: &str, protocol: u8, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
    match facts.proto {
        Some(proto) if proto.number == protocol && !proto.invert => Ok(()),
        Some(proto) if proto.number == protocol && (protocol == 6 || protocol == 17) => {
            Err(Diagnostic::unsupported(span, format!("`-m {name}` together with `! -p {name}`"))
                .hint(format!("iptables-nft reads whatever bytes are there as {name}; write what is meant")))
        }
        _ => Err(Diagnostic::error(span, format!("`-m {name}` needs `-p {name}` in the same rule"))
            .hint(format!("add `-p {name}`"))),
    }
}

/// Reads a port: a number or a service name.
///
/// # Errors
/// An unknown service or a number above 65535.
pub fn port(
    word: &Word,
    from: usize,
    text: &str,
    proto: Option<&str>,
    services: &dyn Services,
) -> Result<u16, Diagnostic> {
    if let Some(port) = number(text, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok()) {
        return Ok(port);
    }
    services.port(text, proto).ok_or_else(|| {
        let span = part_of(word, from, from + text.len());
        let of = proto.map_or(String::new(), |proto| format!(" for {proto}"));
        Diagnostic::error(span, format!("invalid port or service `{text}`{of}"))
            .hint("a port is a number from 0 to 65535 or a name from /etc/services")
    })
}

/// Reads `PORT`, `LOW:HIGH`, `LOW:`, `:HIGH`.
fn range(word: &Word, proto: &str, services: &dyn Services) -> Result<PortRange, Diagnostic> {
    let text = word.text.as_str();
    let Some((low, high)) = text.split_once(':') else {
        let port = port(word, 0, text, Some(proto), services)?;
        return Ok(PortRange { low: port, high: port, invert: false });
    };
    let end = |from: usize, text: &str, open: u16| {
        if text.is_empty() { Ok(open) } else { port(word, from, text, Some(proto), services) }
    };
    let range = PortRange { low: end(0, low, 0)?, high: end(low.len() + 1, high, u16::MAX)?, invert: false };
    if range.low > range.high {
        let message = format!("invalid port range: {} is greater than {}", range.low, range.high);
        return Err(Diagnostic::error(word.span, message).hint("write the lower port first"));
    }
    Ok(range)
}
