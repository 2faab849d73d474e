//! Small edits of rules that are loaded, in iptables' words: `-A`, `-I`, `-D`, `-R` behind the chain's name. Control
//! thread only; pure.
//!
//! Of the rules that stay none is looked at more closely than to find the one that is meant, so an edit takes as long
//! among very many rules as among few.
//!
//! Invariant: what comes out has the same chains at the same positions, and is what a file that says the same would be.

use dataplane::packet::Family;
use dataplane::rules::RuleEdit;
use dataplane::rules::model::{ChainId, Ruleset, Table};
use std::sync::Arc;

use super::Loaded;
use super::diagnostics::{Diagnostic, Severity, Span};
use super::lower;
use super::names::nearest;
use super::options;
use super::printer;
use super::syntax::{Chain, File, Rule};
use crate::api::types::EditKind;

/// What to do, and where.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// What.
    pub kind: EditKind,
    /// In which table.
    pub table: Table,
    /// In which chain.
    pub chain: &'a str,
    /// What follows the chain's name.
    pub words: &'a [String],
}

/// What is wrong with an edit, and the line that the places are in.
#[derive(Debug)]
pub struct Refused {
    /// The edit as a line of iptables.
    pub line: String,
    /// Everything found.
    pub diagnostics: Vec<Diagnostic>,
}

/// What an edit makes of rules.
#[derive(Debug)]
pub struct Edited {
    /// What they mean.
    pub ruleset: Ruleset,
    /// How they are written.
    pub file: File,
    /// What is different, step by step; `None` if rules that stay have got other names: a rule that says the same came before
    /// them, or went.
    pub steps: Option<Vec<RuleEdit>>,
}

/// Does an edit. `read` understands text of these rules' family.
///
/// # Errors
/// What is wrong with the edit; rules are as they were.
pub fn edit(
    ruleset: &Ruleset,
    file: &File,
    edit: Edit<'_>,
    read: impl Fn(&[u8]) -> Loaded,
) -> Result<Edited, Refused> {
    let at = find_chain(file, edit)?;
    let (number, words) = number_of(edit)?;
    let rules = match (edit.kind, number, words) {
        (EditKind::Delete, Some(_), []) => Vec::new(),
        _ => specification(file, edit, words, read)?,
    };
    let mut editing = Editing::new(ruleset, file, at);
    let there = file.chains[at].rules.len();
    let place = |number: u32| usize::try_from(number).unwrap_or(usize::MAX) - 1;
    let refused = |message| refuse(edit, message);
    match (edit.kind, number) {
        (EditKind::Add, _) => {
            for (rule, at) in rules.iter().zip(there..) {
                editing.add(at, rule).map_err(refused)?;
            }
        }
        (EditKind::Insert, number) => {
            let at = number.map_or(0, place);
            if at > there {
                return Err(refuse(edit, beyond(edit.chain, there)));
            }
            // One after the other at the same place, as iptables does with address lists: the last comes first.
            for rule in &rules {
                editing.add(at, rule).map_err(refused)?;
            }
        }
        (EditKind::Delete, Some(number)) if place(number) < there => editing.remove(place(number)),
        (EditKind::Delete, Some(_)) => return Err(refuse(edit, beyond(edit.chain, there))),
        (EditKind::Delete, None) => {
            for rule in &rules {
                let found = editing.find(rule);
                let line = || printer::rule_line(edit.chain, rule);
                let found = found.ok_or_else(|| refuse(edit, format!("there is no rule `{}`", line())))?;
                editing.remove(found);
            }
        }
        (EditKind::Replace, number) => {
            let (Some(number), [rule]) = (number, rules.as_slice()) else {
                return Err(refuse(edit, "only one rule by one: no lists of addresses here".to_owned()));
            };
            if place(number) >= there {
                return Err(refuse(edit, beyond(edit.chain, there)));
            }
            editing.remove(place(number));
            editing.add(place(number), rule).map_err(refused)?;
        }
    }
    editing.finish(&rules).map_err(|diagnostics| Refused {
        line: line_of(edit),
        diagnostics: diagnostics.into_iter().map(placeless).collect(),
    })
}

/// A place as it is counted in rules, of which there are never so many.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Rules on their way to others.
struct Editing {
    ruleset: Ruleset,
    file: File,
    /// The chain that is edited.
    at: usize,
    steps: Vec<RuleEdit>,
    /// Whether rules that say the same are among those edited: which of them has which name must be found out anew.
    twins: bool,
}

impl Editing {
    fn new(ruleset: &Ruleset, file: &File, at: usize) -> Self {
        Self { ruleset: ruleset.clone(), file: file.clone(), at, steps: Vec::new(), twins: false }
    }

    fn chain(&self) -> ChainId {
        ChainId(number(self.at))
    }

    fn add(&mut self, at: usize, rule: &Rule) -> Result<(), String> {
        let lowered = lower::lower_one(&self.file, self.at, rule).ok_or("it cannot stand here")?;
        let lowered = Arc::new(lowered);
        let rules = &mut self.ruleset.chains[self.at].rules;
        self.twins |= rules.iter().any(|there| there.id == lowered.id);
        rules.insert(at, Arc::clone(&lowered));
        self.file.chains[self.at].rules.insert(at, Arc::new(rule.clone()));
        self.steps.push(RuleEdit::Add { chain: self.chain(), at: number(at), rule: lowered });
        Ok(())
    }

    /// The first rule that says the same.
    fn find(&self, rule: &Rule) -> Option<usize> {
        let id = lower::lower_one(&self.file, self.at, rule)?.id;
        let is_it = |at: &usize| {
            let (name, chain) = (&self.file.chains[self.at].name, &self.file.chains[self.at].rules);
            printer::rule_line(name, &chain[*at]) == printer::rule_line(name, rule)
        };
        self.ruleset.chains[self.at].rules.iter().position(|there| there.id == id).filter(is_it)
    }

    fn remove(&mut self, at: usize) {
        let rules = &mut self.ruleset.chains[self.at].rules;
        let gone = rules.remove(at);
        let written = self.file.chains[self.at].rules.remove(at);
        let first = lower::first_id(&self.file.chains[self.at], &written);
        self.twins |= gone.id != first || rules.iter().any(|there| there.id == lower::twin(first, 2));
        self.steps.push(RuleEdit::Remove { chain: self.chain(), at: number(at) });
    }

    fn finish(mut self, added: &[Rule]) -> Result<Edited, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        lower::check_edited(&self.file, self.at, added, &mut diagnostics);
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        if self.twins
            && let Some(ruleset) = lower::lower(&self.file)
        {
            self.ruleset = ruleset;
        }
        let steps = (!self.twins).then_some(self.steps);
        Ok(Edited { ruleset: self.ruleset, file: self.file, steps })
    }
}

/// The edit as iptables would be told it.
#[must_use]
pub fn line_of(edit: Edit<'_>) -> String {
    let mut line = format!("{} {}", letter(edit.kind), edit.chain);
    for word in edit.words {
        line.push(' ');
        push_word(&mut line, word);
    }
    line
}

const fn letter(kind: EditKind) -> &'static str {
    match kind {
        EditKind::Add => "-A",
        EditKind::Insert => "-I",
        EditKind::Delete => "-D",
        EditKind::Replace => "-R",
    }
}

/// Appends a word so that the reader of rules files takes it for one.
fn push_word(line: &mut String, word: &str) {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        line.push_str(word);
        return;
    }
    line.push('"');
    for c in word.chars() {
        if matches!(c, '"' | '\\') {
            line.push('\\');
        }
        line.push(c);
    }
    line.push('"');
}

fn placeless(diagnostic: Diagnostic) -> Diagnostic {
    Diagnostic { span: Span::default(), ..diagnostic }
}

fn refuse(edit: Edit<'_>, message: String) -> Refused {
    Refused { line: line_of(edit), diagnostics: vec![Diagnostic::error(Span::default(), message)] }
}

fn beyond(chain: &str, there: usize) -> String {
    format!("there is no such number: `{chain}` has {there} rules")
}

fn find_chain(file: &File, edit: Edit<'_>) -> Result<usize, Refused> {
    let is_it = |chain: &Chain| chain.table == edit.table && chain.name == edit.chain;
    file.chains.iter().position(is_it).ok_or_else(|| {
        let of_table = file.chains.iter().filter(|chain| chain.table == edit.table);
        let names: Vec<&str> = of_table.map(|chain| chain.name.as_str()).take(1000).collect();
        let mut refused =
            refuse(edit, format!("there is no chain `{}` in table {}", edit.chain, edit.table.name()));
        if let Some(near) = nearest(edit.chain, names.into_iter()) {
            refused.diagnostics = refused
                .diagnostics
                .into_iter()
                .map(|diagnostic| diagnostic.hint(format!("did you mean `{near}`?")))
                .collect();
        }
        refused
    })
}

/// The number that stands before the specification, or alone, and what is left.
fn number_of(edit: Edit<'_>) -> Result<(Option<u32>, &[String]), Refused> {
    let first = edit.words.first().filter(|word| !word.starts_with(['-', '!']));
    let (number, rest) = match (edit.kind, first) {
        (EditKind::Add, _) | (_, None) => (None, edit.words),
        (_, Some(word)) => {
            let number =
                options::number(word, u64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok());
            let number = number.filter(|number| *number > 0);
            if number.is_none() {
                return Err(refuse(edit, format!("`{word}` is no number of a rule; they count from 1")));
            }
            (number, &edit.words[1..])
        }
    };
    match edit.kind {
        EditKind::Replace if number.is_none() => {
            Err(refuse(edit, "which rule? Give its number behind the chain".to_owned()))
        }
        EditKind::Delete if number.is_some() && !rest.is_empty() => {
            Err(refuse(edit, "a rule is named by its number or by what it says, not by both".to_owned()))
        }
        EditKind::Delete if number.is_none() && rest.is_empty() => {
            Err(refuse(edit, "which rule? Give its number or what it says".to_owned()))
        }
        _ => Ok((number, rest)),
    }
}

/// The rules that a specification makes, several for lists of addresses.
fn specification(
    file: &File,
    edit: Edit<'_>,
    words: &[String],
    read: impl Fn(&[u8]) -> Loaded,
) -> Result<Vec<Rule>, Refused> {
    if words.iter().any(|word| word.contains(['\n', '\r', '\0'])) {
        return Err(refuse(edit, "a line break within an argument".to_owned()));
    }
    let mut line = format!("-A {}", edit.chain);
    for word in words {
        line.push(' ');
        push_word(&mut line, word);
    }
    let mut text = format!("*{}\n", edit.table.name());
    for chain in file.chains.iter().filter(|chain| chain.table == edit.table && chain.policy.is_none()) {
        text.push_str(&format!(":{} - [0:0]\n", chain.name));
    }
    let from = text.len();
    text.push_str(&line);
    text.push_str("\nCOMMIT\n");
    if edit.table != Table::Filter {
        text.push_str("*filter\nCOMMIT\n");
    }
    let loaded = read(text.as_bytes());
    let is_bad = |found: &Diagnostic| found.severity >= Severity::Unsupported;
    if loaded.diagnostics.iter().any(is_bad) {
        let here = |found: Diagnostic| {
            let start = found.span.start.saturating_sub(from).min(line.len());
            let end = found.span.end.saturating_sub(from).clamp(start, line.len());
            Diagnostic { span: Span { line: 1, start, end }, ..found }
        };
        let diagnostics = loaded.diagnostics.into_iter().filter(is_bad).map(here).collect();
        return Err(Refused { line, diagnostics });
    }
    let chain = loaded.syntax.into_iter().flat_map(|file| file.chains);
    let mut chain = chain.filter(|chain| chain.table == edit.table && chain.name == edit.chain);
    let unplaced = |rule: Arc<Rule>| Rule { span: Span::default(), ..Arc::unwrap_or_clone(rule) };
    Ok(chain.next().map(|chain| chain.rules.into_iter().map(unplaced).collect()).unwrap_or_default())
}

/// The table of that name, if these rules have it.
///
/// # Errors
/// Says which there are.
pub fn table_of(file: &File, name: &str) -> Result<Table, String> {
    let tables = printer::tables(file);
    tables.iter().copied().find(|table| table.name() == name).ok_or_else(|| {
        let names: Vec<&str> = tables.iter().map(|table| table.name()).collect();
        let family = if file.family == Family::V4 { "IPv4" } else { "IPv6" };
        format!("no table `{name}` is loaded for {family}; there is {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::load;

    const RULES: &str = "*filter\n:web - [0:0]\n-A FORWARD -p tcp -j web\n-A FORWARD -j DROP\n-A web -s 1.1.1.1/32 -j ACCEPT\nCOMMIT\n";

    fn run(kind: EditKind, chain: &str, words: &str) -> Result<Vec<String>, String> {
        let Loaded { ruleset, syntax, .. } = load(RULES, "t", Family::V4);
        let (ruleset, file) = (ruleset.unwrap(), syntax.unwrap());
        let words: Vec<String> =
            words.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('_', " ")).collect();
        let done = edit(&ruleset, &file, Edit { kind, table: Table::Filter, chain, words: &words }, |text| {
            load(text, "t", Family::V4)
        });
        let Edited { ruleset, file, .. } = done.map_err(|refused| refused.diagnostics[0].message.clone())?;
        let text = printer::save(&file, None);
        assert_eq!(load(&text, "t", Family::V4).ruleset.as_ref(), Some(&ruleset), "as if read from a file");
        let is_of_chain = |line: &&str| line.starts_with(&format!("-A {chain}"));
        Ok(text.lines().filter(is_of_chain).map(|line| line[3..].to_owned()).collect())
    }

    #[test]
    fn rules_come_and_go_as_iptables_has_it() {
        let (jump, drop) = ("FORWARD -p tcp -j web", "FORWARD -j DROP");
        let udp = "FORWARD -p udp -m udp --dport 53 -j ACCEPT";
        let spec = "-p udp --dport domain -j ACCEPT";
        assert_eq!(run(EditKind::Add, "FORWARD", spec).unwrap(), [jump, drop, udp]);
        assert_eq!(run(EditKind::Insert, "FORWARD", spec).unwrap(), [udp, jump, drop]);
        assert_eq!(run(EditKind::Insert, "FORWARD", &format!("2 {spec}")).unwrap(), [jump, udp, drop]);
        assert_eq!(run(EditKind::Insert, "FORWARD", &format!("3 {spec}")).unwrap(), [jump, drop, udp]);
        assert_eq!(run(EditKind::Delete, "FORWARD", "1").unwrap(), [drop]);
        assert_eq!(run(EditKind::Delete, "FORWARD", "-p 6 --jump web").unwrap(), [drop]);
        assert_eq!(run(EditKind::Replace, "FORWARD", &format!("2 {spec}")).unwrap(), [jump, udp]);
        assert_eq!(
            run(EditKind::Insert, "web", "-s 3.3.3.3,2.2.2.2 -m comment --comment two_words").unwrap(),
            [
                "web -s 2.2.2.2/32 -m comment --comment \"two words\"",
                "web -s 3.3.3.3/32 -m comment --comment \"two words\"",
                "web -s 1.1.1.1/32 -j ACCEPT"
            ]
        );
    }

    #[test]
    fn rules_that_say_the_same_are_told_apart_as_in_a_file() {
        let (jump, drop) = ("FORWARD -p tcp -j web", "FORWARD -j DROP");
        // `run` holds the names of all rules against those of a file that says the same.
        assert_eq!(run(EditKind::Insert, "FORWARD", "-j DROP").unwrap(), [drop, jump, drop]);
        assert_eq!(run(EditKind::Add, "FORWARD", "-p tcp -j web").unwrap(), [jump, drop, jump]);
        let text = RULES
            .replace("-A FORWARD -j DROP\n", "-A FORWARD -j DROP\n-A FORWARD -p udp\n-A FORWARD -j DROP\n");
        let Loaded { ruleset, syntax, .. } = load(&text, "t", Family::V4);
        let (ruleset, file) = (ruleset.unwrap(), syntax.unwrap());
        for (number, is_known) in [("1", true), ("2", false), ("3", true), ("4", false)] {
            let words = [number.to_owned()];
            let wanted =
                Edit { kind: EditKind::Delete, table: Table::Filter, chain: "FORWARD", words: &words };
            let edited = edit(&ruleset, &file, wanted, |text| load(text, "t", Family::V4)).unwrap();
            let text = printer::save(&edited.file, None);
            assert_eq!(load(&text, "t", Family::V4).ruleset.as_ref(), Some(&edited.ruleset), "{number}");
            assert_eq!(edited.steps.is_some(), is_known, "{number}");
        }
    }

    #[test]
    fn wrong_edits_are_refused_and_say_why() {
        for (kind, chain, words, why) in [
            (EditKind::Add, "FORWRD", "-j DROP", "there is no chain `FORWRD` in table filter"),
            (EditKind::Add, "FORWARD", "-p tpc", "unknown protocol `tpc`"),
            (EditKind::Add, "FORWARD", "5 -j DROP", "bad argument `5`"),
            (EditKind::Insert, "FORWARD", "4 -j DROP", "there is no such number: `FORWARD` has 2 rules"),
            (EditKind::Insert, "FORWARD", "0 -j DROP", "`0` is no number of a rule; they count from 1"),
            (EditKind::Delete, "FORWARD", "3", "there is no such number: `FORWARD` has 2 rules"),
            (EditKind::Delete, "FORWARD", "-j ACCEPT", "there is no rule `-A FORWARD -j ACCEPT`"),
            (EditKind::Delete, "FORWARD", "", "which rule? Give its number or what it says"),
            (EditKind::Replace, "FORWARD", "-j DROP", "which rule? Give its number behind the chain"),
            (EditKind::Replace, "FORWARD", "9 -j DROP", "there is no such number: `FORWARD` has 2 rules"),
            (EditKind::Add, "web", "-j web", "jumps go round in a loop: web -> web"),
            (EditKind::Add, "FORWARD", "-A FORWARD", "a line has one command only"),
        ] {
            assert_eq!(run(kind, chain, words).unwrap_err(), why, "{chain} {words}");
        }
    }
}
