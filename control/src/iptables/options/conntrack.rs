//! `-m conntrack --ctstate` and `-m state --state`.

use std::fmt::Write as _;

use dataplane::rules::model::{CtState, CtStateSet, Match};

use super::ports::REFUSED;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};

const fn refused(name: &'static str) -> OptionSpec {
    OptionSpec { name, id: REFUSED, slot: 0, args: 1, invertible: true }
}

/// `-m conntrack`.
pub static CONNTRACK: Extension = Extension {
    kind: Kind::Match,
    names: &["conntrack"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "ctstate", id: 1, slot: 1, args: 1, invertible: true },
        refused("ctproto"),
        refused("ctorigsrc"),
        refused("ctorigdst"),
        refused("ctreplsrc"),
        refused("ctrepldst"),
        refused("ctorigsrcport"),
        refused("ctorigdstport"),
        refused("ctreplsrcport"),
        refused("ctrepldstport"),
        refused("ctstatus"),
        refused("ctexpire"),
        refused("ctdir"),
    ],
    new: |_| Box::new(State { words: &CTSTATE, states: None, invert: false }),
};

/// `-m state`.
pub static STATE: Extension = Extension {
    kind: Kind::Match,
    names: &["state"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "state", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(State { words: &STATE_WORDS, states: None, invert: false }),
};

/// How the two spellings differ.
#[derive(Debug)]
struct Words {
    module: &'static str,
    option: &'static str,
}

static CTSTATE: Words = Words { module: "conntrack", option: "ctstate" };
static STATE_WORDS: Words = Words { module: "state", option: "state" };

/// States in the order iptables prints them.
const STATES: [(&str, CtState); 5] = [
    ("INVALID", CtState::Invalid),
    ("NEW", CtState::New),
    ("RELATED", CtState::Related),
    ("ESTABLISHED", CtState::Established),
    ("UNTRACKED", CtState::Untracked),
];

#[derive(Debug)]
struct State {
    words: &'static Words,
    states: Option<CtStateSet>,
    invert: bool,
}

impl State {
    fn names(&self) -> String {
        let set = self.states.unwrap_or_default();
        STATES
            .iter()
            .filter(|&&(_, state)| set.contains(state))
            .map(|&(name, _)| name)
            .collect::<Vec<_>>()
            .join(",")
    }
}

impl Instance for State {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let mut set = CtStateSet::default();
        let mut from = 0;
        for item in word.text.split(',') {
            let span = part_of(word, from, from + item.len());
            from += item.len() + 1;
            let upper = item.to_ascii_uppercase();
            // iptables takes any beginning of a name; an empty item never.
            let state = STATES.iter().find(|(name, _)| !upper.is_empty() && name.starts_with(&upper));
            match state {
                Some(&(_, state)) => set = set.with(state),
                None if self.words.option == "ctstate" && (upper == "SNAT" || upper == "DNAT") => {
                    return Err(Diagnostic::unsupported(
                        span,
                        format!("`--ctstate {upper}` is not supported yet"),
                    )
                    .hint("it needs address translation, which this gateway does not do"));
                }
                None => {
                    return Err(Diagnostic::error(span, format!("bad connection state `{item}`"))
                        .hint("states are NEW ESTABLISHED RELATED INVALID UNTRACKED, separated by commas, no blanks"));
                }
            }
        }
        self.states = Some(set);
        self.invert = given.invert;
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let Words { module, option } = self.words;
        if self.states.is_none() {
            return Err(Diagnostic::error(span, format!("`-m {module}` without a state"))
                .hint(format!("add `--{option} STATES`")));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let Words { module, option } = self.words;
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, " -m {module}{bang} --{option} {}", self.names());
    }

    fn list(&self, out: &mut String) {
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, "{bang} {} {}", self.words.option, self.names());
    }

    fn lower(&self) -> Lowered {
        let states = self.states.unwrap_or_default();
        Lowered::Matches(vec![Match::CtState { states, invert: self.invert }])
    }
}
