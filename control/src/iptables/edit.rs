//! Small edits of rules that are loaded, in iptables' words: `-A`, `-I`, `-D`, `-R` behind the chain's name. Control
//! thread only; pure.
//!
//! Invariant: what comes out has the same chains at the same positions, and is checked like a file that was read.

use dataplane::packet::Family;
use dataplane::rules::model::{Ruleset, Table};

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

/// Does an edit. `read` understands text of these rules' family.
///
/// # Errors
/// What is wrong with the edit; rules are as they were.
pub fn edit(file: &File, edit: Edit<'_>, read: impl Fn(&[u8]) -> Loaded) -> Result<(Ruleset, File), Refused> {
    let at = find_chain(file, edit)?;
    let (number, words) = number_of(edit)?;
    let rules = match (edit.kind, number, words) {
        (EditKind::Delete, Some(_), []) => Vec::new(),
        _ => specification(file, edit, words, read)?,
    };
    let mut edited = file.clone();
    let chain = &mut edited.chains[at];
    let there = chain.rules.len();
    let place = |number: u32| usize::try_from(number).unwrap_or(usize::MAX) - 1;
    match (edit.kind, number) {
        (EditKind::Add, _) => chain.rules.extend(rules),
        (EditKind::Insert, number) => {
            let at = number.map_or(0, place);
            if at > there {
                return Err(refuse(edit, beyond(edit.chain, there)));
            }
            // One after the other at the same place, as iptables does with address lists: the last comes first.
            chain.rules.splice(at..at, rules.into_iter().rev());
        }
        (EditKind::Delete, Some(number)) if place(number) < there => {
            chain.rules.remove(place(number));
        }
        (EditKind::Delete, Some(_)) => return Err(refuse(edit, beyond(edit.chain, there))),
        (EditKind::Delete, None) => delete(chain, &rules).map_err(|message| refuse(edit, message))?,
        (EditKind::Replace, number) => {
            let (Some(number), [rule]) = (number, rules.as_slice()) else {
                return Err(refuse(edit, "only one rule by one: no lists of addresses here".to_owned()));
            };
            let there = chain.rules.get_mut(place(number));
            let Some(old) = there else { return Err(refuse(edit, beyond(edit.chain, chain.rules.len()))) };
            *old = rule.clone();
        }
    }
    let mut diagnostics = Vec::new();
    let ruleset = lower::relower(&edited, &mut diagnostics);
    match ruleset {
        Some(ruleset) => Ok((ruleset, edited)),
        None => Err(Refused {
            line: line_of(edit),
            diagnostics: diagnostics.into_iter().map(placeless).collect(),
        }),
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
    let unplaced = |rule: Rule| Rule { span: Span::default(), ..rule };
    Ok(chain.next().map(|chain| chain.rules.into_iter().map(unplaced).collect()).unwrap_or_default())
}

/// Takes out the first rule that says the same, for each.
fn delete(chain: &mut Chain, rules: &[Rule]) -> Result<(), String> {
    for rule in rules {
        let wanted = printer::rule_line(&chain.name, rule);
        let at = chain.rules.iter().position(|there| printer::rule_line(&chain.name, there) == wanted);
        match at {
            Some(at) => {
                chain.rules.remove(at);
            }
            None => return Err(format!("there is no rule `{wanted}`")),
        }
    }
    Ok(())
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
        let file = load(RULES, "t", Family::V4).syntax.unwrap();
        let words: Vec<String> =
            words.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('_', " ")).collect();
        let done = edit(&file, Edit { kind, table: Table::Filter, chain, words: &words }, |text| {
            load(text, "t", Family::V4)
        });
        let (ruleset, file) = done.map_err(|refused| refused.diagnostics[0].message.clone())?;
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
