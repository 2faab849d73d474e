//! The file: tables, chains, and rules in their chains. Goes on after every fault with the next line, so that one
//! reading finds them all.

use super::diagnostics::Reporter;
use super::lexer::{self, OpenQuote, Word};
use super::rule::{self, ParsedRule};
use super::target::Understood;
use super::{Loaded, RuleText, Rules, Texts};
use dataplane::packet::Family;
use dataplane::rules::model::{Chain, ChainId, Policy, Rule, RuleId, Ruleset, Target};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Longest chain name in bytes: `XT_EXTENSION_MAXNAMELEN` less its terminator.
const CHAIN_NAME_MAX: usize = 28;
/// Chains every filter table has, in kernel order.
const BUILT_IN: [&str; 3] = ["INPUT", "FORWARD", "OUTPUT"];
/// Tables iptables has besides `filter`.
const OTHER_TABLES: [&str; 4] = ["mangle", "nat", "raw", "security"];

/// Which part of the file a line is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Outside,
    Filter,
    /// A table of which only an empty form is understood; whether that was already said.
    Other { said: bool },
}

/// A chain being read.
#[derive(Debug)]
struct Draft {
    name: String,
    policy: Option<Policy>,
    rules: Vec<ParsedRule>,
}

struct Parser<'a> {
    family: Family,
    report: Reporter<'a>,
    section: Section,
    /// Where the table of this section was opened.
    opened: Range<usize>,
    filter_seen: bool,
    chains: Vec<Draft>,
    by_name: HashMap<String, usize>,
    /// Chains named before they were declared, if they are never declared.
    said_local: bool,
}

pub(super) fn parse(text: &str, file: &str, family: Family) -> Loaded {
    let mut parser = Parser {
        family,
        report: Reporter::new(text, file),
        section: Section::Outside,
        opened: 0..0,
        filter_seen: false,
        chains: Vec::new(),
        by_name: HashMap::new(),
        said_local: false,
    };
    for name in BUILT_IN {
        parser.add_chain(name, Some(Policy::Accept));
    }
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        parser.line(line.strip_suffix('\n').unwrap_or(line), offset);
        offset += line.len();
    }
    if parser.section != Section::Outside {
        let hint = "iptables-restore changes nothing before it reads COMMIT: is the file cut off?".to_owned();
        let opened = parser.opened.clone();
        parser.report.error(&opened, "this table is never committed", Some(hint));
    }
    parser.finish()
}

impl Parser<'_> {
    fn add_chain(&mut self, name: &str, policy: Option<Policy>) {
        self.by_name.insert(name.to_owned(), self.chains.len());
        self.chains.push(Draft { name: name.to_owned(), policy, rules: Vec::new() });
    }

    fn line(&mut self, line: &str, offset: usize) {
        let span = offset..offset + line.len();
        if let Some(at) = line.find(|char: char| char.is_control() && char != '\t') {
            let place = offset + at..offset + at + 1;
            let (message, hint) = if line[at..].starts_with('\r') {
                ("the line ends as on Windows", Some("convert the file: `sed -i 's/\\r$//' FILE`".to_owned()))
            } else {
                ("a control character in a rules file", None)
            };
            return self.report.error(&place, message, hint);
        }
        match line.as_bytes().first() {
            None | Some(b'#') => {}
            Some(b'*') => self.table(&line[1..], &span),
            _ if line == "COMMIT" && self.section != Section::Outside => self.section = Section::Outside,
            _ if line.trim() == "COMMIT" => {
                let message = if self.section == Section::Outside { "COMMIT outside a table" } else { "blanks around COMMIT" };
                self.report.error(&span, message, Some("iptables-restore wants COMMIT alone on its line".to_owned()));
                self.section = Section::Outside;
            }
            _ if line.trim().is_empty() => {}
            _ if self.section == Section::Outside => {
                let hint = "rules stand between `*filter` and `COMMIT`; comments begin with `#`".to_owned();
                self.report.error(&span, "text outside a table", Some(hint));
            }
            Some(b':') => self.chain(line, offset),
            _ => self.command(line, offset),
        }
    }

    fn table(&mut self, name: &str, span: &Range<usize>) {
        if self.section != Section::Outside {
            let opened = self.opened.clone();
            self.report.error(&opened, "this table is never committed", Some("a COMMIT is missing".to_owned()));
        }
        self.opened = span.clone();
        self.section = match name.trim_end() {
            "filter" if self.filter_seen => {
                self.report.unsupported(span, "a second `filter` table in one file", None);
                Section::Other { said: true }
            }
            "filter" => {
                self.filter_seen = true;
                Section::Filter
            }
            other if OTHER_TABLES.contains(&other) => Section::Other { said: false },
            other => {
                self.report.error(span, format!("there is no table `{other}`"), None);
                Section::Other { said: true }
            }
        };
    }

    /// `:NAME POLICY [packets:bytes]`
    fn chain(&mut self, line: &str, offset: usize) {
        let Some(words) = self.words(&line[1..], offset + 1) else { return };
        let [name, policy, rest @ ..] = words.as_slice() else {
            let span = offset..offset + line.len();
            return self.report.error(&span, "a chain line is `:NAME POLICY [packets:bytes]`", None);
        };
        if let Some(extra) = rest.iter().find(|word| counters(&word.text).is_none()) {
            self.report.error(&extra.span, format!("`{}` is no `[packets:bytes]`", extra.text), None);
        }
        match self.section {
            Section::Filter => self.declare(name, policy),
            Section::Other { said: false } if !matches!(policy.text.as_str(), "ACCEPT" | "-") => {
                self.unsupported_table(&policy.span);
            }
            _ => {}
        }
    }

    fn declare(&mut self, name: &Word, policy: &Word) {
        let built_in = BUILT_IN.iter().position(|known| *known == name.text);
        let verdict = match policy.text.as_str() {
            "ACCEPT" => Some(Policy::Accept),
            "DROP" => Some(Policy::Drop),
            "-" => None,
            other => {
                let hint = "a policy is ACCEPT or DROP; user chains have `-`".to_owned();
                return self.report.error(&policy.span, format!("`{other}` is no policy"), Some(hint));
            }
        };
        match (built_in, verdict) {
            (Some(index), Some(verdict)) => self.chains[index].policy = Some(verdict),
            (Some(_), None) => self.report.error(&policy.span, "a built-in chain needs a policy", None),
            (None, Some(_)) => {
                let hint = "write `-`; end the chain with a rule that decides".to_owned();
                self.report.error(&policy.span, "only built-in chains have a policy", Some(hint));
            }
            (None, None) => self.declare_user(name),
        }
    }

    fn declare_user(&mut self, name: &Word) {
        let text = &name.text;
        let fault = if self.by_name.contains_key(text) {
            Some(format!("chain `{text}` is declared twice"))
        } else if text.is_empty() || text.len() > CHAIN_NAME_MAX {
            Some(format!("a chain name has 1 to {CHAIN_NAME_MAX} bytes"))
        } else if text.starts_with('-') || text.starts_with('!') {
            Some("a chain name cannot begin with `-` or `!`".to_owned())
        } else if matches!(text.as_str(), "ACCEPT" | "DROP" | "RETURN" | "REJECT") || super::names::is_known_target(text) {
            Some(format!("`{text}` is the name of a target"))
        } else {
            None
        };
        match fault {
            Some(fault) => self.report.error(&name.span, fault, None),
            None => self.add_chain(text, None),
        }
    }

    /// A line that begins with a command: `-A`, `-I`, `-N`, `-P`, perhaps behind counters.
    fn command(&mut self, line: &str, offset: usize) {
        let Some(words) = self.words(line, offset) else { return };
        let mut words = words.as_slice();
        if let [first, rest @ ..] = words
            && first.text.starts_with('[')
        {
            if counters(&first.text).is_none() {
                return self.report.error(&first.span, format!("`{}` is no `[packets:bytes]`", first.text), None);
            }
            words = rest;
        }
        let [command, rest @ ..] = words else { return };
        if let Section::Other { said } = self.section {
            if !said {
                self.unsupported_table(&command.span);
            }
            return;
        }
        match (command.text.as_str(), rest) {
            ("-A" | "--append", [chain, rule @ ..]) => self.rule(chain, rule, None),
            ("-I" | "--insert", [chain, rest @ ..]) => {
                let number = rest.first().and_then(|word| word.text.parse::<usize>().ok());
                self.rule(chain, if number.is_some() { &rest[1..] } else { rest }, Some((number.unwrap_or(1), chain.span.clone())));
            }
            ("-N" | "--new-chain", [chain]) => self.declare_user(chain),
            ("-P" | "--policy", [chain, policy]) => self.declare(chain, policy),
            ("-A" | "--append" | "-I" | "--insert" | "-N" | "--new-chain" | "-P" | "--policy", _) => {
                self.report.error(&command.span, format!("`{}` needs a chain", command.text), None);
            }
            ("-D" | "-R" | "-F" | "-X" | "-Z" | "-E" | "--delete" | "--replace" | "--flush" | "--delete-chain" | "--zero", _) => {
                let hint = "a rules file says what the rules are, from an empty table: only -A, -I, -N and -P make sense".to_owned();
                self.report.unsupported(&command.span, format!("command `{}` is not supported", command.text), Some(hint));
            }
            (other, _) => {
                let hint = "rules begin with `-A CHAIN`".to_owned();
                self.report.error(&command.span, format!("`{other}` is no command"), Some(hint));
            }
        }
    }

    /// A rule for a chain: at its end, or at a position counted from 1.
    fn rule(&mut self, chain: &Word, words: &[Word], insert: Option<(usize, Range<usize>)>) {
        let rules = rule::parse(words, self.family, &mut self.report);
        let Some(&index) = self.by_name.get(&chain.text) else {
            let names = self.by_name.keys().map(String::as_str);
            let hint = crate::config::names::nearest(&chain.text, names).map_or_else(
                || format!("declare it: `:{} - [0:0]`", chain.text),
                |near| format!("did you mean `{near}`?"),
            );
            return self.report.error(&chain.span, format!("there is no chain `{}`", chain.text), Some(hint));
        };
        if index != 1 && self.chains[index].policy.is_some() && !std::mem::replace(&mut self.said_local, true) {
            let message = "rules in INPUT and OUTPUT are kept, but a bump in the wire does not consult them";
            self.report.note(&chain.span, message, None);
        }
        let have = &mut self.chains[index].rules;
        match insert {
            None => have.extend(rules),
            Some((number, _)) if (1..=have.len() + 1).contains(&number) => {
                have.splice(number - 1..number - 1, rules);
            }
            Some((number, span)) => {
                self.report.error(&span, format!("chain `{}` has no position {number}", chain.text), None);
            }
        }
    }

    fn unsupported_table(&mut self, span: &Range<usize>) {
        let message = "tables other than `filter` are not supported yet, unless they are empty";
        self.report.unsupported(span, message, None);
        self.section = Section::Other { said: true };
    }

    fn words(&mut self, line: &str, offset: usize) -> Option<Vec<Word>> {
        lexer::words(line, offset)
            .map_err(|OpenQuote(span)| self.report.error(&span, "this quote is never closed", None))
            .ok()
    }

    /// From chain names to chain numbers; the last checks.
    fn finish(mut self) -> Loaded {
        let mut ruleset = Ruleset { family: self.family, chains: Vec::new(), forward: ChainId(1) };
        let mut texts = Texts::default();
        let mut seen: HashMap<String, u32> = HashMap::new();
        for draft in &self.chains {
            let mut chain = Chain { name: draft.name.clone(), policy: draft.policy, rules: Vec::new() };
            let mut chain_texts: Vec<RuleText> = Vec::new();
            for parsed in &draft.rules {
                let Some(target) = resolve(parsed, &self.by_name, &self.chains, &mut self.report) else { continue };
                let name = format!("{} {}", draft.name, parsed.text.spec);
                let occurrence = seen.entry(name.clone()).and_modify(|count| *count += 1).or_insert(0);
                let id = RuleId::from_normalised(&name, *occurrence);
                chain.rules.push(Rule { id, matches: parsed.matches.clone(), target });
                chain_texts.push(parsed.text.clone());
            }
            ruleset.chains.push(chain);
            texts.rules.push(chain_texts);
        }
        self.find_loops();
        let clean = self.report.is_clean();
        let mut diagnostics = self.report.found;
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        Loaded { rules: clean.then(|| Rules { ruleset: Arc::new(ruleset), texts }), diagnostics }
    }

    /// Reports jumps that lead back to a chain the packet is already in.
    fn find_loops(&mut self) {
        let mut finished = vec![false; self.chains.len()];
        for start in 0..self.chains.len() {
            // Depth first with an explicit stack of (chain, next rule): chains may nest as deep as there are chains.
            let mut path = vec![(start, 0)];
            while let Some((chain, next)) = path.last_mut() {
                let (chain, at) = (*chain, *next);
                *next += 1;
                let Some(parsed) = self.chains[chain].rules.get(at).filter(|_| !finished[chain]) else {
                    finished[chain] = true;
                    path.pop();
                    continue;
                };
                let Some((name, span)) = &parsed.target_name else { continue };
                let Some(&to) = self.by_name.get(name).filter(|_| matches!(parsed.target, Understood::Chain)) else { continue };
                if let Some(from) = path.iter().position(|(on_path, _)| *on_path == to) {
                    let names: Vec<&str> = path[from..].iter().map(|(on_path, _)| self.chains[*on_path].name.as_str()).collect();
                    let message = format!("chains call each other in a loop: {} -> {name}", names.join(" -> "));
                    let span = span.clone();
                    self.report.error(&span, message, None);
                } else if !finished[to] {
                    path.push((to, 0));
                }
            }
        }
    }
}

/// The target of a rule, chains by number.
fn resolve(
    parsed: &ParsedRule,
    by_name: &HashMap<String, usize>,
    chains: &[Draft],
    report: &mut Reporter<'_>,
) -> Option<Target> {
    if let Understood::Final(target) = parsed.target {
        return Some(target);
    }
    let (name, span) = parsed.target_name.as_ref()?;
    let Some(&index) = by_name.get(name) else {
        let targets = ["ACCEPT", "DROP", "REJECT", "RETURN"];
        let near = crate::config::names::nearest(name, by_name.keys().map(String::as_str).chain(targets));
        let hint = near.map_or_else(|| format!("declare it: `:{name} - [0:0]`"), |near| format!("did you mean `{near}`?"));
        report.error(span, format!("there is no target and no chain `{name}`"), Some(hint));
        return None;
    };
    if chains[index].policy.is_some() {
        report.error(span, format!("`{name}` is a built-in chain: rules cannot jump there"), None);
        return None;
    }
    let id = ChainId(u32::try_from(index).ok()?);
    Some(if parsed.goto { Target::Goto(id) } else { Target::Jump(id) })
}

/// `[packets:bytes]`
fn counters(text: &str) -> Option<(u64, u64)> {
    let (packets, bytes) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?;
    Some((packets.parse().ok()?, bytes.parse().ok()?))
}
