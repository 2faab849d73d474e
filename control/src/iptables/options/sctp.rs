//! `-m sctp`: ports and chunk types.

use std::fmt::Write as _;

use dataplane::packet::proto;
use dataplane::rules::header::{ChunkFlags, ChunkRule, Chunks, HeaderMatch};
use dataplane::rules::model::Match;

use super::ports::{PORT_OPTIONS, Ports, require_protocol};
use super::values::bang;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::nearest;

const CHUNK_TYPES: u8 = 3;
/// Bytes of the common header, which must be there.
const HEADER_LEN: u8 = 12;
/// Types whose flags one rule may ask for: `XT_NUM_SCTP_FLAGS`.
const FLAGS_MAX: usize = 4;

/// `-m sctp`.
pub static SCTP: Extension = Extension {
    kind: Kind::Match,
    names: &["sctp"],
    family: None,
    protocol: Some(proto::SCTP),
    repeatable: false,
    options: &[
        PORT_OPTIONS[0],
        PORT_OPTIONS[1],
        PORT_OPTIONS[2],
        PORT_OPTIONS[3],
        OptionSpec { name: "chunk-types", id: CHUNK_TYPES, slot: 3, args: 2, invertible: true },
    ],
    new: |_| Box::new(Sctp::default()),
};

/// Chunk types by number, with the letters of their flags from bit 7 down. RFC 9260, 3758, 4820, 5061, 6525, 8260.
const NAMES: [(&str, u8, &str); 22] = [
    ("DATA", 0, "----IUBE"),
    ("INIT", 1, ""),
    ("INIT_ACK", 2, ""),
    ("SACK", 3, ""),
    ("HEARTBEAT", 4, ""),
    ("HEARTBEAT_ACK", 5, ""),
    ("ABORT", 6, "-------T"),
    ("SHUTDOWN", 7, ""),
    ("SHUTDOWN_ACK", 8, ""),
    ("ERROR", 9, ""),
    ("COOKIE_ECHO", 10, ""),
    ("COOKIE_ACK", 11, ""),
    ("ECN_ECNE", 12, ""),
    ("ECN_CWR", 13, ""),
    ("SHUTDOWN_COMPLETE", 14, "-------T"),
    ("I_DATA", 64, ""),
    ("ASCONF_ACK", 128, ""),
    ("RE_CONFIG", 130, ""),
    ("PAD", 132, ""),
    ("FORWARD_TSN", 192, ""),
    ("ASCONF", 193, ""),
    ("I_FORWARD_TSN", 194, ""),
];

const ALL: [u64; 4] = [u64::MAX; 4];

#[derive(Debug, Default)]
struct Sctp {
    ports: Ports,
    chunks: Option<Chunks>,
}

fn rule(word: &Word) -> Result<ChunkRule, Diagnostic> {
    let rules = [("any", ChunkRule::Any), ("all", ChunkRule::All), ("only", ChunkRule::Only)];
    let found = rules.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(&word.text));
    found.map(|(_, rule)| rule).ok_or_else(|| {
        Diagnostic::error(word.span, format!("`{}` says not how chunks compare", word.text))
            .hint("write `any`, `all` or `only` before the types")
    })
}

fn chunks(rule: ChunkRule, word: &Word, invert: bool) -> Result<Chunks, Diagnostic> {
    let mut kinds = [0_u64; 4];
    let mut flags: Vec<ChunkFlags> = Vec::new();
    let is = |name: &str| name.eq_ignore_ascii_case(&word.text);
    let items = if is("ALL") || is("NONE") { "" } else { word.text.as_str() };
    if is("ALL") {
        kinds = ALL;
    }
    for item in items.split(',').filter(|item| !item.is_empty()) {
        let (name, letters) = item.split_once(':').unwrap_or((item, ""));
        let found = NAMES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        let &(name, kind, known) = found.ok_or_else(|| {
            let error = Diagnostic::error(word.span, format!("unknown chunk type `{name}`"));
            match nearest(&name.to_ascii_uppercase(), NAMES.iter().map(|(known, ..)| *known)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("types are DATA, INIT, SACK and so on, or ALL, or NONE"),
            }
        })?;
        kinds[usize::from(kind >> 6)] |= 1 << (kind & 63);
        for letter in letters.chars() {
            let Some(bit) = known.find(letter.to_ascii_uppercase()).filter(|_| letter != '-') else {
                return Err(bad_flag(word, name, kind, letter));
            };
            let bit = 0x80 >> bit;
            let at = flags.iter().position(|flags| flags.kind == kind).unwrap_or(flags.len());
            if at == FLAGS_MAX {
                return Err(Diagnostic::error(word.span, "flags of too many chunk types"));
            }
            if at == flags.len() {
                flags.push(ChunkFlags { kind, mask: 0, value: 0 });
            }
            flags[at].mask |= bit;
            flags[at].value |= if letter.is_ascii_uppercase() { bit } else { 0 };
        }
    }
    Ok(Chunks { rule, kinds, flags: flags.into(), invert })
}

fn bad_flag(word: &Word, name: &str, kind: u8, letter: char) -> Diagnostic {
    let message = format!("chunk type {name} has no flag `{letter}`");
    // iptables takes dashes, and mixes types up whose numbers are not their places in its list.
    if letter == '-' || kind == 64 {
        Diagnostic::unsupported(word.span, message).hint("leave it out")
    } else {
        Diagnostic::error(word.span, message)
            .hint("DATA has I, U, B and E, ABORT and SHUTDOWN_COMPLETE have T")
    }
}

impl Sctp {
    /// The chunks as iptables prints them, with numbers rather than names in a listing.
    fn chunks_text(chunks: &Chunks, as_numbers: bool) -> String {
        let mut out = String::from(match chunks.rule {
            ChunkRule::Any => " any",
            ChunkRule::All => " all",
            ChunkRule::Only => " only",
        });
        if chunks.kinds == [0; 4] || chunks.kinds == ALL {
            out.push_str(if chunks.kinds == ALL { " ALL" } else { " NONE" });
            return out;
        }
        let mut separator = ' ';
        for (name, kind, letters) in
            NAMES.iter().filter(|(_, kind, _)| Chunks::contains(&chunks.kinds, *kind))
        {
            out.push(separator);
            separator = ',';
            let _ = if as_numbers { write!(out, "0x{kind:04X}") } else { write!(out, "{name}") };
            if let Some(flags) = chunks.flags.iter().find(|flags| flags.kind == *kind) {
                out.push(':');
                for (bit, letter) in (0_u8..8).map(|at| 0x80 >> at).zip(letters.chars()) {
                    match (flags.mask & bit != 0, flags.value & bit != 0) {
                        (true, true) => out.push(letter),
                        (true, false) => out.push(letter.to_ascii_lowercase()),
                        _ => {}
                    }
                }
            }
        }
        out
    }
}

impl Instance for Sctp {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match (given.id, given.args) {
            (CHUNK_TYPES, [how, types]) => self.chunks = Some(chunks(rule(how)?, types, given.invert)?),
            _ => self.ports.option(given, "sctp", false)?,
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        require_protocol("sctp", proto::SCTP, facts, span)
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m sctp");
        self.ports.print(out);
        if let Some(chunks) = &self.chunks {
            let _ = write!(out, "{} --chunk-types{}", bang(chunks.invert), Self::chunks_text(chunks, false));
        }
    }

    fn list(&self, out: &mut String) {
        out.push_str(" sctp");
        self.ports.list(out);
        if let Some(chunks) = &self.chunks {
            let _ = write!(out, "{}{}", bang(chunks.invert), Self::chunks_text(chunks, true));
        }
    }

    fn lower(&self) -> Lowered {
        let mut matches = vec![Match::Header(HeaderMatch::Carries(HEADER_LEN))];
        matches.extend(self.ports.lower());
        matches.extend(
            self.chunks.iter().map(|chunks| Match::Header(HeaderMatch::Chunks(Box::new(chunks.clone())))),
        );
        Lowered::Matches(matches)
    }
}
