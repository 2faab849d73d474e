//! `-m ecn`: explicit congestion notification, in IP and TCP. RFC 3168.

use std::fmt::Write as _;

use dataplane::packet::{proto, tcp_flag};
use dataplane::rules::header::HeaderMatch;
use dataplane::rules::model::Match;

use super::spans::require;
use super::tos::missing;
use super::values::{bang, mark, value};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec};
use crate::iptables::diagnostics::{Diagnostic, Span};

const CWR: u8 = 1;
const ECE: u8 = 2;
const ECT: u8 = 3;

/// `-m ecn`.
pub static ECN: Extension = Extension {
    kind: Kind::Match,
    names: &["ecn"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "ecn-tcp-cwr", id: CWR, slot: 1, args: 0, invertible: true },
        OptionSpec { name: "ecn-tcp-ece", id: ECE, slot: 2, args: 0, invertible: true },
        OptionSpec { name: "ecn-ip-ect", id: ECT, slot: 3, args: 1, invertible: true },
    ],
    new: |_| Box::new(Ecn::default()),
};

/// What is asked, each with whether it is inverted.
#[derive(Debug, Default)]
struct Ecn {
    ece: Option<bool>,
    cwr: Option<bool>,
    ect: Option<(u8, bool)>,
}

impl Instance for Ecn {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            CWR => self.cwr = Some(given.invert),
            ECE => self.ece = Some(given.invert),
            _ => self.ect = Some((u8::try_from(value(given, 0, 3)?).unwrap_or(0), given.invert)),
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let asks_tcp = self.ece.is_some() || self.cwr.is_some();
        missing(
            asks_tcp || self.ect.is_some(),
            span,
            "ecn",
            "`--ecn-tcp-ece`, `--ecn-tcp-cwr` or `--ecn-ip-ect`",
        )?;
        if asks_tcp { require("ecn", proto::TCP, facts, span) } else { Ok(()) }
    }

    fn print(&self, out: &mut String) {
        let Self { ece, cwr, ect } = self;
        out.push_str(" -m ecn");
        ece.inspect(|invert| out.push_str(&format!("{} --ecn-tcp-ece", bang(*invert))));
        cwr.inspect(|invert| out.push_str(&format!("{} --ecn-tcp-cwr", bang(*invert))));
        ect.inspect(|(ect, invert)| out.push_str(&format!("{} --ecn-ip-ect {ect}", bang(*invert))));
    }

    fn list(&self, out: &mut String) {
        let Self { ece, cwr, ect } = self;
        out.push_str(" ECN match");
        for (asked, name) in [(ece, "ECE"), (cwr, "CWR")] {
            asked.inspect(|invert| out.push_str(&format!(" {}{name}", mark(*invert))));
        }
        if let Some((ect, invert)) = ect {
            let _ = write!(out, " {}ECT={ect}", mark(*invert));
        }
    }

    fn lower(&self) -> Lowered {
        let Self { ece, cwr, ect } = self;
        let ect = ect.map(|(value, invert)| HeaderMatch::Tos { value, mask: 3, invert });
        let ece = ece.map(|invert| HeaderMatch::EcnFlag { bit: tcp_flag::ECE, invert });
        let cwr = cwr.map(|invert| HeaderMatch::EcnFlag { bit: tcp_flag::CWR, invert });
        Lowered::Matches([ect, ece, cwr].into_iter().flatten().map(Match::Header).collect())
    }
}
