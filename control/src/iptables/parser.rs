//! Text to syntax: one command per line, resynchronising at every line so that all errors of a file come at once.
//! Control thread and tools only.
//!
//! Invariant: a line yields either a command or a diagnostic of severity unsupported or error, never both.

mod line;

use dataplane::packet::Family;
use dataplane::rules::model;

use super::diagnostics::{Diagnostic, Span};
use super::lexer::{self, Line, Word};
use super::names::{Services, nearest};
use super::syntax::{Command, Counters, Table};

/// Most diagnostics made for one file; a file of junk has as many errors as lines, so reading stops there.
pub const DIAGNOSTICS_MAX: usize = 10_000;

/// Tables we have.
const OURS: [model::Table; 3] = [model::Table::Filter, model::Table::Mangle, model::Table::Raw];

/// Tables iptables has beside them, with their built-in chains.
const OTHERS: [(&str, &[&str]); 2] = [
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("security", &["INPUT", "FORWARD", "OUTPUT"]),
];

/// What a file says, line by line.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The tables, in order; of several of one name the last one counts.
    pub tables: Vec<Table>,
    /// What was found on the way, in file order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Where in the file we are.
enum State {
    Outside,
    Ours(Table),
    /// A table of iptables that is not ours, or an unknown one: its lines are looked at only as far as needed.
    Other {
        name: &'static str,
        chains: &'static [&'static str],
        span: Span,
    },
}

struct Parser<'a> {
    family: Family,
    services: &'a dyn Services,
    parsed: Parsed,
}

/// Reads a whole file.
#[must_use]
pub fn parse(text: &[u8], family: Family, services: &dyn Services) -> Parsed {
    let mut parser = Parser { family, services, parsed: Parsed::default() };
    let mut state = State::Outside;
    for line in lexer::lines(text) {
        if parser.parsed.diagnostics.len() >= DIAGNOSTICS_MAX {
            let message =
                format!("{DIAGNOSTICS_MAX} problems so far; the rest of the file was not looked at");
            parser.report(Diagnostic::error(line.span(), message));
            return parser.parsed;
        }
        state = parser.line(state, line);
    }
    parser.end(state);
    parser.parsed
}

impl Parser<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.parsed.diagnostics.push(diagnostic);
    }

    fn line(&mut self, state: State, line: Line<'_>) -> State {
        if line.bytes.is_empty()
            || (line.bytes.first() == Some(&b'#') && line.bytes.len() < lexer::LINE_BYTES_MAX)
        {
            return state;
        }
        let text = match lexer::check_line(line) {
            Ok(text) => text,
            Err(diagnostic) => {
                self.report(diagnostic);
                // The table goes on: one bad byte must not make nonsense of every line behind it.
                return match (state, line.bytes) {
                    (State::Outside, [b'*', name @ ..]) => self.table(line, &String::from_utf8_lossy(name)),
                    (_, b"COMMIT\r") => State::Outside,
                    (state, _) => state,
                };
            }
        };
        match state {
            State::Outside => self.outside(line, text),
            state if text == "COMMIT" => {
                self.commit(state);
                State::Outside
            }
            State::Ours(mut table) => {
                match self.command(line, text) {
                    Ok(Some(command)) => table.commands.push(command),
                    Ok(None) => {}
                    Err(diagnostic) => self.report(diagnostic),
                }
                State::Ours(table)
            }
            State::Other { name, chains, span } => {
                self.other_table_line(line, text, name, chains);
                State::Other { name, chains, span }
            }
        }
    }

    fn outside(&mut self, line: Line<'_>, text: &str) -> State {
        match text.strip_prefix('*') {
            Some(name) => self.table(line, name),
            None => {
                let hint = if text.trim() == "COMMIT" {
                    "there is no open table to commit; the line after COMMIT must be empty, a comment or `*TABLE`"
                } else {
                    "rules stand between `*filter` and `COMMIT`; other text must be a comment (`#`)"
                };
                self.report(Diagnostic::error(line.span(), "this line is outside of any table").hint(hint));
                State::Outside
            }
        }
    }

    fn table(&mut self, line: Line<'_>, rest: &str) -> State {
        let name = rest.split([' ', '\t', '\r']).find(|word| !word.is_empty()).unwrap_or_default();
        if let Some(kind) = OURS.into_iter().find(|kind| kind.name() == name) {
            return State::Ours(Table { kind, span: line.span(), commands: Vec::new() });
        }
        match OTHERS.iter().find(|(known, _)| *known == name) {
            Some(&(name, chains)) => State::Other { name, chains, span: line.span() },
            None => {
                let error = Diagnostic::error(line.span(), format!("unknown table `{name}`"));
                let known = OURS.into_iter().map(model::Table::name).chain(OTHERS.map(|(name, _)| name));
                self.report(match nearest(name, known) {
                    Some(near) => error.hint(format!("did you mean `*{near}`?")),
                    None => error.hint("tables are filter, mangle, nat, raw, security"),
                });
                State::Other { name: "", chains: &[], span: line.span() }
            }
        }
    }

    fn commit(&mut self, state: State) {
        if let State::Ours(table) = state {
            self.parsed.tables.push(table);
        }
    }

    fn end(&mut self, state: State) {
        let span = match &state {
            State::Outside => None,
            State::Ours(table) => Some(table.span),
            State::Other { span, .. } => Some(*span),
        };
        if let Some(span) = span {
            let error = Diagnostic::error(span, "this table is never committed");
            self.report(error.hint("add a line `COMMIT` behind its last rule, without blanks around it"));
            self.commit(state);
        }
    }

    /// One line of a table that is not ours: harmless if it only declares built-in chains with policy ACCEPT.
    fn other_table_line(&mut self, line: Line<'_>, text: &str, name: &str, chains: &[&str]) {
        if name.is_empty() {
            return;
        }
        if let Some(declaration) = text.strip_prefix(':') {
            let mut words = declaration.split([' ', '\t']).filter(|word| !word.is_empty());
            let chain = words.next().unwrap_or_default();
            if chains.contains(&chain) && words.next() == Some("ACCEPT") {
                return;
            }
        }
        let message =
            format!("table `{name}` is not supported yet; only an empty one with ACCEPT policies is");
        let hint = format!("take the *{name} table out of this file; it would have no effect here");
        self.report(Diagnostic::unsupported(line.span(), message).hint(hint));
    }

    /// One line of a table of ours.
    fn command(&mut self, line: Line<'_>, text: &str) -> Result<Option<Command>, Diagnostic> {
        if let Some(declaration) = text.strip_prefix(':') {
            return self.declaration(line, declaration).map(Some);
        }
        if text.starts_with('*') {
            return Err(Diagnostic::error(line.span(), "a table inside a table")
                .hint("the table before it lacks its `COMMIT`"));
        }
        if text.trim() == "COMMIT" {
            return Err(Diagnostic::error(line.span(), "blanks around `COMMIT`")
                .hint("iptables-restore wants the word alone on its line"));
        }
        let (counters, from) = counters_prefix(line, text)?;
        let words = lexer::words(line, text.get(from..).unwrap_or_default(), from)?;
        let mut warnings = Vec::new();
        let command = line::Reader::new(&words, line.span(), self.family, self.services, &mut warnings)
            .read(counters.unwrap_or_default());
        for warning in warnings {
            self.report(warning);
        }
        command
    }

    /// `:CHAIN POLICY [p:b]`.
    fn declaration(&mut self, line: Line<'_>, text: &str) -> Result<Command, Diagnostic> {
        let mut words = plain_words(line, text, 1);
        let Some(name) = words.next() else {
            return Err(
                Diagnostic::error(line.span(), "chain name missing").hint("write `:CHAIN POLICY [0:0]`")
            );
        };
        let Some(policy) = words.next() else {
            return Err(Diagnostic::error(line.span(), format!("policy of chain `{}` missing", name.text))
                .hint("write ACCEPT or DROP for a built-in chain, `-` for one of your own"));
        };
        let mut counters = Counters::default();
        if let Some(word) = words.next() {
            match read_counters(&word.text) {
                Some(read) => counters = read,
                None => {
                    let warning =
                        Diagnostic::warning(word.span, format!("`{}` is no `[packets:bytes]`", word.text));
                    self.report(warning.hint("ignored, as iptables-restore does without -c"));
                }
            }
        }
        Ok(Command::Declare {
            name: name.text,
            span: name.span,
            policy: Some((policy.text, policy.span)),
            counters,
            exclusive: false,
        })
    }
}

/// Words without quoting, as in chain declarations.
fn plain_words<'a>(line: Line<'a>, text: &'a str, from: usize) -> impl Iterator<Item = Word> + 'a {
    let mut at = 0;
    text.split([' ', '\t']).filter_map(move |word| {
        let start = at;
        at += word.len() + 1;
        (!word.is_empty())
            .then(|| Word { text: word.to_owned(), span: line.part(from + start, from + start + word.len()) })
    })
}

/// `[p:b]` in front of a rule, and where the rule begins.
fn counters_prefix(line: Line<'_>, text: &str) -> Result<(Option<Counters>, usize), Diagnostic> {
    if !text.starts_with('[') {
        return Ok((None, 0));
    }
    let close = text.find(']').filter(|&close| text.get(..close).is_some_and(|inside| inside.contains(':')));
    let Some(close) = close else {
        return Err(Diagnostic::error(line.part(0, 1), "unfinished counters").hint("write `[packets:bytes]`"));
    };
    match text.get(..=close).and_then(read_counters) {
        Some(counters) => Ok((Some(counters), close + 1)),
        None => Err(Diagnostic::unsupported(line.part(0, close + 1), "these counters are not numbers").hint(
            "iptables-restore skips them without -c and refuses them with it; write `[packets:bytes]`",
        )),
    }
}

/// `[packets:bytes]`.
fn read_counters(text: &str) -> Option<Counters> {
    let (packets, bytes) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?;
    Some(Counters { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? })
}
