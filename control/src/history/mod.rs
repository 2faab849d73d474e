//! The rulesets that ran, so that any of them can come back: who changed the rules, when, what for and what became of
//! it. Control threads, one at a time.
//!
//! Invariant: numbers only grow and are never given twice, and the ruleset that runs is never forgotten. Where the disk
//! fails, rulesets are remembered in memory and the reason is told; rules change all the same.

mod store;
#[cfg(test)]
mod tests;

use crate::api::types::{HistoryEntry, Outcome};
use crate::iptables::syntax::{Counters, File};
use crate::publish::BothRules;
use dataplane::packet::Family;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::Store;

/// Longest comment kept, in characters; the same for who did it and what.
const TEXT_MAX: usize = 400;

/// Both families' rules as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// IPv4, as iptables-save prints them.
    pub v4: Arc<str>,
    /// IPv6.
    pub v6: Arc<str>,
}

/// What is noted about a change.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Who did it.
    pub who: String,
    /// What was done.
    pub what: String,
    /// Why.
    pub comment: Option<String>,
    /// The entry whose rules came back.
    pub restores: Option<u64>,
    /// Whether it must be confirmed.
    pub unconfirmed: bool,
}

/// The rulesets that ran, oldest first.
#[derive(Debug)]
pub struct History {
    store: Result<Store, String>,
    keep: usize,
    entries: VecDeque<Kept>,
    running: u64,
    next: u64,
    /// What went wrong on disk last.
    trouble: Option<String>,
    /// The rules of the newest entry, to know which of them the next one shares.
    newest: Option<(u64, [Arc<File>; 2])>,
}

#[derive(Debug)]
struct Kept {
    entry: HistoryEntry,
    /// The text, where it is not on disk.
    texts: Option<Texts>,
}

impl History {
    /// Opens the history in a directory, which becomes this process's own. At most `keep` rulesets are kept.
    #[must_use]
    pub fn open(dir: &Path, keep: usize) -> Self {
        let opened = Store::open(dir).map_err(|error| format!("{}: {error}", dir.display()));
        let (mut entries, mut trouble) = (VecDeque::new(), opened.as_ref().err().cloned());
        if let Ok(store) = &opened {
            let (found, next_trouble) = store.entries();
            trouble = next_trouble;
            entries = found.into_iter().map(|entry| Kept { entry, texts: None }).collect();
        }
        let next = entries.back().map_or(1, |kept: &Kept| kept.entry.number + 1);
        let mut history =
            Self { store: opened, keep: keep.max(1), entries, running: 0, next, trouble, newest: None };
        // A daemon that ended before the confirmation came back with its files: the change is gone.
        let left: Vec<u64> = history.of_outcome(Outcome::Unconfirmed);
        for number in left {
            history.set_outcome(number, Outcome::RolledBack);
        }
        history
    }

    fn of_outcome(&self, outcome: Outcome) -> Vec<u64> {
        let entries = self.entries.iter().map(|kept| &kept.entry);
        entries.filter(|entry| entry.outcome == outcome).map(|entry| entry.number).collect()
    }

    /// Notes the rules the daemon starts with. Another start with the same rules is the same entry.
    pub fn start(&mut self, rules: &BothRules, note: Note) -> u64 {
        let newest = self.entries.back().map(|kept| kept.entry.number);
        if let Some(number) = newest
            && self.texts(number).is_ok_and(|before| before == texts(rules))
        {
            self.running = number;
            self.newest = Some((number, files(rules)));
            return number;
        }
        self.record(rules, note)
    }

    /// Notes rules that run from now on; gives their number.
    pub fn record(&mut self, rules: &BothRules, note: Note) -> u64 {
        let Note { who, what, comment, restores, unconfirmed } = note;
        let short = |text: String| text.chars().take(TEXT_MAX).collect::<String>();
        let entry = HistoryEntry {
            number: self.next,
            at_us: now_us(),
            who: short(who),
            what: short(what),
            comment: comment.map(short),
            outcome: if unconfirmed { Outcome::Unconfirmed } else { Outcome::Applied },
            replaces: (self.running != 0).then_some(self.running),
            restores,
            rules: rule_count(rules),
        };
        let (number, files) = (entry.number, files(rules));
        let texts = texts(rules);
        let shared = self.newest.as_ref().map(|(number, before)| {
            (*number, [Arc::ptr_eq(&before[0], &files[0]), Arc::ptr_eq(&before[1], &files[1])])
        });
        let stored = match &self.store {
            Ok(store) => store.write(&entry, &texts, shared).map_err(|error| {
                let trouble =
                    format!("ruleset {number} cannot be kept in {}: {error}", store.dir().display());
                tracing::warn!("{trouble}");
                trouble
            }),
            Err(why) => Err(why.clone()),
        };
        self.trouble = stored.as_ref().err().cloned();
        self.entries.push_back(Kept { entry, texts: stored.is_err().then_some(texts) });
        (self.running, self.next, self.newest) = (number, number + 1, Some((number, files)));
        self.forget_oldest();
        number
    }

    /// Keeps at most so many rulesets from now on.
    pub fn set_keep(&mut self, keep: usize) {
        self.keep = keep.max(1);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.entries.len() > self.keep {
            let Some(gone) = self.entries.pop_front() else { return };
            if let Ok(store) = &self.store {
                store.remove(gone.entry.number);
            }
        }
    }

    /// Notes what became of a change.
    pub fn set_outcome(&mut self, number: u64, outcome: Outcome) {
        let Some(kept) = self.entries.iter_mut().find(|kept| kept.entry.number == number) else { return };
        kept.entry.outcome = outcome;
        if let (Ok(store), None) = (&self.store, &kept.texts)
            && let Err(error) = store.write_entry(&kept.entry)
        {
            self.trouble = Some(format!("what became of ruleset {number} cannot be noted: {error}"));
        }
    }

    /// The rules of an entry.
    ///
    /// # Errors
    /// If there is no such entry, or its files are gone.
    pub fn texts(&self, number: u64) -> Result<Texts, String> {
        let kept = self.entries.iter().find(|kept| kept.entry.number == number);
        let Some(kept) = kept else {
            let (first, last) = (self.entries.front(), self.entries.back());
            let range = first.zip(last).map_or_else(String::new, |(first, last)| {
                format!("; there are {} to {}", first.entry.number, last.entry.number)
            });
            return Err(format!("there is no ruleset {number} in the history{range}"));
        };
        match (&kept.texts, &self.store) {
            (Some(texts), _) => Ok(texts.clone()),
            (None, Ok(store)) => store.texts(number).map_err(|error| {
                format!("ruleset {number} cannot be read from {}: {error}", store.dir().display())
            }),
            (None, Err(why)) => Err(why.clone()),
        }
    }

    /// What ran before the rules in force: what a rollback without a number goes back to.
    ///
    /// # Errors
    /// If nothing is remembered.
    pub fn before(&self) -> Result<u64, String> {
        let find =
            |number: u64| self.entries.iter().map(|kept| &kept.entry).find(|entry| entry.number == number);
        let mut entry = find(self.running);
        // Rules that came back stand where they stood the first time, so that the next rollback goes one further.
        while let Some(restored) = entry.and_then(|entry| entry.restores) {
            entry = find(restored);
        }
        let before = entry.and_then(|entry| entry.replaces).filter(|number| find(*number).is_some());
        before.ok_or_else(|| "nothing is remembered from before the rules in force".to_owned())
    }

    /// Everything remembered, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.entries.iter().map(|kept| &kept.entry)
    }

    /// The entry whose rules run.
    #[must_use]
    pub const fn running(&self) -> u64 {
        self.running
    }

    /// Where it is kept; `None` if in memory only.
    #[must_use]
    pub fn dir(&self) -> Option<PathBuf> {
        self.store.as_ref().ok().map(|store| store.dir().to_owned())
    }

    /// Why it is not on disk, or not all of it.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

/// Rules as they are kept: without what they have counted.
fn texts(rules: &BothRules) -> Texts {
    let text = |family| rules.family(family).save(&|_| Counters::default()).into();
    Texts { v4: text(Family::V4), v6: text(Family::V6) }
}

fn files(rules: &BothRules) -> [Arc<File>; 2] {
    [Arc::clone(&rules.v4.file), Arc::clone(&rules.v6.file)]
}

fn rule_count(rules: &BothRules) -> u64 {
    let of = |family| rules.family(family).ruleset.rules().count() as u64;
    of(Family::V4) + of(Family::V6)
}

fn now_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}
