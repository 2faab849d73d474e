//! The options every rule knows, as they change the rule being read.

use dataplane::packet::Family;

use super::{Head, Reader};
use crate::iptables::diagnostics::{Diagnostic, Severity};
use crate::iptables::lexer::Word;
use crate::iptables::names::{nearest, protocol_names, protocol_number};
use crate::iptables::options::basic::{self, Basic};
use crate::iptables::options::{self, EXTENSIONS, Extension, Kind, known};
use crate::iptables::syntax::{Counters, Iface, Proto, Target};

/// Extension headers of IPv6 that a rule's `-p` never sees, as the kernel looks behind them.
const NEVER_SEEN: [(u8, &str); 5] =
    [(0, "hopopt"), (43, "ipv6-route"), (44, "ipv6-frag"), (51, "ah"), (60, "ipv6-opts")];

/// Stands in for a match whose options are closed.
static RETIRED: Extension = Extension {
    kind: Kind::Match,
    names: &[],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[],
    new: |family| (options::comment::COMMENT.new)(family),
};

impl Reader<'_> {
    pub(super) fn rule_option(&mut self, basic: Basic, word: &Word, invert: bool) -> Result<(), Diagnostic> {
        if !matches!(basic, Basic::Match | Basic::Jump | Basic::Goto | Basic::SetCounters) {
            if self.place_of(basic).is_some() {
                return Err(Diagnostic::error(word.span, format!("`{}` is given twice", word.text)));
            }
            self.seen.push((basic, word.span));
        }
        match basic {
            Basic::Source => self.rule.src = basic::addresses(self.argument(word)?, invert, self.family)?,
            Basic::Destination => {
                self.rule.dst = basic::addresses(self.argument(word)?, invert, self.family)?;
            }
            Basic::InInterface => self.rule.in_iface = self.iface(word, invert)?,
            Basic::OutInterface => self.rule.out_iface = self.iface(word, invert)?,
            Basic::Protocol => self.protocol(word, invert)?,
            Basic::Fragment if self.family == Family::V6 => {
                return Err(Diagnostic::error(word.span, "`-f` does not exist in IPv6").hint("use `-m frag`"));
            }
            Basic::Fragment => self.rule.fragment = Some(invert),
            Basic::Match => self.load_match(word)?,
            Basic::Jump | Basic::Goto => {
                if self.jump {
                    return Err(Diagnostic::error(word.span, "a rule has one target only"));
                }
                self.jump = true;
                let name = self.argument(word)?;
                self.target(name, basic == Basic::Goto)?;
            }
            _ => self.counters(word)?,
        }
        Ok(())
    }

    fn iface(&mut self, word: &Word, invert: bool) -> Result<Option<Iface>, Diagnostic> {
        let value = self.argument(word)?;
        let pattern = basic::iface(value, invert)?;
        if value.text.contains(['"', '\\', ' ', '\t']) || value.text.chars().any(char::is_control) {
            return Err(Diagnostic::unsupported(value.span, "blanks or quotes in an interface name")
                .hint("no interface can be called so"));
        }
        if value.text.contains('/') {
            let warning =
                Diagnostic::warning(value.span, format!("no interface can be called `{}`", value.text));
            self.warnings.push(warning);
        }
        Ok(pattern.map(|pattern| Iface { pattern, invert }))
    }

    fn protocol(&mut self, word: &Word, invert: bool) -> Result<(), Diagnostic> {
        let value = self.argument(word)?;
        let Some(number) = protocol_number(&value.text) else {
            let error = Diagnostic::error(value.span, format!("unknown protocol `{}`", value.text));
            return Err(match nearest(&value.text, protocol_names()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("write a number from 0 to 255 or a name from /etc/protocols"),
            });
        };
        if number == 0 {
            if invert {
                return Err(Diagnostic::error(value.span, "`! -p all` can never match"));
            }
            return Ok(());
        }
        if let (Family::V6, false, Some((_, name))) =
            (self.family, invert, NEVER_SEEN.iter().find(|&&(never, _)| never == number))
        {
            let warning = Diagnostic::warning(value.span, format!("`-p {name}` never matches in IPv6"));
            self.warnings.push(
                warning.hint("rules see the protocol behind the extension headers; use the match for it"),
            );
        }
        self.rule.proto = Some(Proto { number, invert });
        Ok(())
    }

    fn load_match(&mut self, word: &Word) -> Result<(), Diagnostic> {
        let value = self.argument(word)?;
        let name = value.text.as_str();
        let Some(extension) = options::find(Kind::Match, name, self.family) else {
            let (own, other, number) = match self.family {
                Family::V4 => ("IPv4", Family::V6, 6),
                Family::V6 => ("IPv6", Family::V4, 4),
            };
            if options::find(Kind::Match, name, other).is_some() {
                let error =
                    Diagnostic::error(value.span, format!("there is no match `{name}` in {own} rules"));
                return Err(error.hint(format!(
                    "it is IPv{number}'s: `fwctl check --family {number}` checks rules as such that do not say so in their first line"
                )));
            }
            return Err(unknown_extension("match", value, known::is_match(name), || {
                let ours =
                    EXTENSIONS.iter().filter(|e| e.kind == Kind::Match).flat_map(|e| e.names.iter().copied());
                nearest(name, ours.chain(known::match_names()))
            }));
        };
        if !extension.repeatable && self.loaded.iter().any(|loaded| std::ptr::eq(loaded.extension, extension))
        {
            return Err(Diagnostic::unsupported(value.span, format!("`-m {name}` twice in one rule"))
                .hint("write all its options behind the first one"));
        }
        // A repeated match's options are for the newest one, so older ones leave getopt's table.
        if extension.repeatable {
            self.retire(extension)?;
        }
        self.load(extension, value.span);
        Ok(())
    }

    /// Finishes an earlier instance of a repeatable match: later options belong to the new one.
    fn retire(&mut self, extension: &'static Extension) -> Result<(), Diagnostic> {
        let facts = self.facts();
        for loaded in &mut self.loaded {
            if loaded.extension.names == extension.names && loaded.extension.kind == extension.kind {
                loaded.instance.finish(facts, loaded.span)?;
                loaded.extension = &RETIRED;
            }
        }
        Ok(())
    }

    fn target(&mut self, name: &Word, goto: bool) -> Result<(), Diagnostic> {
        let text = name.text.as_str();
        if text.is_empty() {
            return Err(Diagnostic::error(name.span, "empty target name"));
        }
        self.rule.target = match text {
            "ACCEPT" if !goto => Target::Accept,
            "DROP" if !goto => Target::Drop,
            "RETURN" if !goto => Target::Return,
            _ if !goto && options::find(Kind::Target, text, self.family).is_some() => {
                if let Some(extension) = options::find(Kind::Target, text, self.family) {
                    self.load(extension, name.span);
                }
                Target::None
            }
            _ if !goto && known::is_target(text) => {
                return Err(unknown_extension("target", name, true, || None));
            }
            _ => Target::Chain { name: text.to_owned(), goto, span: name.span },
        };
        Ok(())
    }

    /// `-c PACKETS BYTES` or `-c PACKETS,BYTES`.
    fn counters(&mut self, word: &Word) -> Result<(), Diagnostic> {
        let first = self.argument(word)?;
        let (packets, bytes) = match first.text.split_once(',') {
            Some((packets, bytes)) => (packets, bytes),
            None => match self.words.get(self.at) {
                Some(second) if !second.text.starts_with(['-', '!']) => {
                    self.at += 1;
                    (first.text.as_str(), second.text.as_str())
                }
                _ => return Err(Diagnostic::error(word.span, "`-c` needs a packet and a byte counter")),
            },
        };
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| {
                let message = format!("counter `{text}` is not a number");
                // iptables reads as far as there are digits.
                let begins_well = text.starts_with(|c: char| c.is_ascii_digit());
                let severity = if begins_well { Severity::Unsupported } else { Severity::Error };
                Diagnostic::new(severity, first.span, message)
            })
        };
        self.rule.counters = Counters { packets: number(packets)?, bytes: number(bytes)? };
        Ok(())
    }

    pub(super) fn head(&mut self, basic: Basic, word: &Word) -> Result<(), Diagnostic> {
        if self.command.is_some() {
            return Err(Diagnostic::error(word.span, "a line has one command only")
                .hint("write the other on its own line"));
        }
        let chain = self.argument(word)?.clone();
        if chain.text.starts_with(['-', '!']) {
            return Err(Diagnostic::error(chain.span, "a chain name must not start with `-` or `!`"));
        }
        self.command = Some(match basic {
            Basic::Append => Head::Append { chain },
            Basic::NewChain => Head::New { chain },
            Basic::Policy => Head::Policy { chain, policy: self.argument(word)?.clone() },
            _ => {
                let number = self.words.get(self.at).filter(|next| !next.text.starts_with(['-', '!']));
                let (position, span) = match number {
                    None => (1, word.span),
                    Some(number) => {
                        self.at += 1;
                        let position = options::number(&number.text, u64::from(u32::MAX))
                            .and_then(|position| u32::try_from(position).ok())
                            .filter(|&position| position > 0);
                        let message = || format!("invalid rule number `{}`", number.text);
                        (position.ok_or_else(|| Diagnostic::error(number.span, message()))?, number.span)
                    }
                };
                Head::Insert { chain, position, span }
            }
        });
        Ok(())
    }
}

fn unknown_extension(
    what: &str,
    name: &Word,
    is_known: bool,
    near: impl FnOnce() -> Option<&'static str>,
) -> Diagnostic {
    let text = name.text.as_str();
    if is_known {
        let diagnostic = Diagnostic::unsupported(
            name.span,
            format!("{what} `{text}` is valid iptables, not supported yet"),
        );
        return match known::why_not(text) {
            Some(why) => diagnostic.hint(why),
            None => diagnostic,
        };
    }
    let error = Diagnostic::error(name.span, format!("unknown {what} `{text}`"));
    match near() {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}
