//! `-j TCPMSS` and `-j TCPOPTSTRIP`: TCP options changed or taken away.

use std::fmt::Write as _;

use dataplane::packet::{Family, proto};
use dataplane::rules::alter::{Alter, TcpOptions};
use dataplane::rules::conn::Effect;
use dataplane::rules::interned::Interned;
use dataplane::rules::model::{Table, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::nearest;

/// `-j TCPMSS`.
pub static TCPMSS: Extension = Extension {
    kind: Kind::Target,
    names: &["TCPMSS"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[
        OptionSpec { name: "set-mss", id: SET, slot: 1, args: 1, invertible: false },
        OptionSpec { name: "clamp-mss-to-pmtu", id: CLAMP, slot: 2, args: 0, invertible: false },
    ],
    new: |family| Box::new(Mss { family, mss: None }),
};

/// `-j TCPOPTSTRIP`.
pub static TCPOPTSTRIP: Extension = Extension {
    kind: Kind::Target,
    names: &["TCPOPTSTRIP"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[OptionSpec { name: "strip-options", id: 1, slot: 1, args: 1, invertible: false }],
    new: |_| Box::new(Strip::default()),
};

const SET: u8 = 1;
const CLAMP: u8 = 2;

/// Names of option kinds (IANA tcp-parameters).
const KINDS: [(&str, u8); 6] =
    [("wscale", 3), ("mss", 2), ("sack-permitted", 4), ("sack", 5), ("timestamp", 8), ("md5", 19)];

fn needs_tcp(facts: Facts<'_>, span: Span, name: &str) -> Result<(), Diagnostic> {
    if facts.proto.is_some_and(|asked| asked.number == proto::TCP && !asked.invert) {
        return Ok(());
    }
    Err(Diagnostic::error(span, format!("`-j {name}` is for TCP only")).hint("add `-p tcp`"))
}

#[derive(Debug)]
struct Mss {
    family: Family,
    mss: Option<MssTo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MssTo {
    Value(u16),
    PathMtu,
}

impl Instance for Mss {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        // The last one counts.
        self.mss = Some(if given.id == CLAMP {
            MssTo::PathMtu
        } else {
            let word = first(given)?;
            let header_len: u16 = if self.family == Family::V4 { 20 } else { 40 };
            let max = u16::MAX - header_len;
            let value = number(&word.text, u64::from(max)).and_then(|value| u16::try_from(value).ok());
            MssTo::Value(value.ok_or_else(|| {
                Diagnostic::error(word.span, format!("`{}` is no number from 0 to {max}", word.text))
            })?)
        });
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if self.mss.is_none() {
            return Err(Diagnostic::error(span, "`-j TCPMSS` without a value")
                .hint("add `--set-mss` or `--clamp-mss-to-pmtu`"));
        }
        needs_tcp(facts, span, "TCPMSS")
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j TCPMSS");
        let _ = match self.mss {
            Some(MssTo::Value(mss)) => write!(out, " --set-mss {mss}"),
            _ => write!(out, " --clamp-mss-to-pmtu"),
        };
    }

    fn list(&self, out: &mut String) {
        out.push_str(" TCPMSS");
        let _ = match self.mss {
            Some(MssTo::Value(mss)) => write!(out, " set {mss}"),
            _ => write!(out, " clamp to PMTU"),
        };
    }

    fn lower(&self) -> Lowered {
        let alter = match self.mss {
            Some(MssTo::Value(mss)) => Alter::Mss(mss),
            _ => Alter::ClampMss,
        };
        Lowered::Target(Target::Effect(Effect::Alter(alter)))
    }

    fn target_name(&self) -> &'static str {
        "TCPMSS"
    }

    fn built_in_chains(&self) -> Option<&'static [&'static str]> {
        (self.mss == Some(MssTo::PathMtu)).then_some(&["FORWARD", "OUTPUT", "POSTROUTING"])
    }
}

#[derive(Debug, Default)]
struct Strip {
    kinds: TcpOptions,
}

impl Strip {
    fn print_kinds(&self, out: &mut String, before: &str) {
        for (at, kind) in self.kinds.iter().enumerate() {
            let _ = write!(out, "{}{kind}", if at == 0 { before } else { "," });
        }
    }
}

/// The option kind that a word of the list stands for.
fn kind_of(text: &str) -> Result<u8, (String, String)> {
    if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == text) {
        return Ok(*kind);
    }
    let kind = number(text, u64::from(u8::MAX)).and_then(|kind| u8::try_from(kind).ok());
    match kind {
        Some(0 | 1) => Err((
            "options 0 and 1 cannot be stripped".to_owned(),
            "they have no content: the end of the list, and what others become".to_owned(),
        )),
        Some(kind) => Ok(kind),
        None => {
            let near = nearest(text, KINDS.iter().map(|(name, _)| *name));
            let hint = near.map_or_else(
                || "an option is a number from 2 to 255, or mss, wscale, sack-permitted, sack, timestamp, md5".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            Err((format!("`{text}` is no TCP option"), hint))
        }
    }
}

impl Instance for Strip {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let mut from = 0;
        for text in word.text.split(',') {
            let span = part_of(word, from, from + text.len());
            from += text.len() + 1;
            let kind =
                kind_of(text).map_err(|(message, hint)| Diagnostic::error(span, message).hint(hint))?;
            if self.kinds.contains(kind) {
                return Err(Diagnostic::error(span, format!("option `{text}` is given twice")));
            }
            self.kinds = self.kinds.with(kind);
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        needs_tcp(facts, span, "TCPOPTSTRIP")
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j TCPOPTSTRIP");
        self.print_kinds(out, " --strip-options ");
    }

    fn list(&self, out: &mut String) {
        self.print_kinds(out, " TCPOPTSTRIP options ");
    }

    fn lower(&self) -> Lowered {
        Lowered::Target(Target::Effect(Effect::Alter(Alter::Strip(Interned::new(self.kinds)))))
    }

    fn target_name(&self) -> &'static str {
        "TCPOPTSTRIP"
    }

    fn tables(&self) -> &'static [Table] {
        &[Table::Mangle]
    }
}
