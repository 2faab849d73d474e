//! The daemon's sets by name. Control threads: whoever edits or lists holds the lock; packets are looked up past it.

mod stage;

pub use stage::{Replaced, Staged};

use super::command::{Asked, Command, Form, parse};
use super::listing::Listing;
use super::overlay::Overlay;
use super::run::Run;
use super::words::{lines, words};
use crate::iptables::diagnostics::Diagnostic;
use crate::iptables::names::Services;
use dataplane::clock::Now;
use dataplane::rules::conn::Effect;
use dataplane::rules::model::{Match, Ruleset, Target};
use dataplane::sets::{Kind, SetAsk, Slot, SlotId, Spec};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Most findings reported of one file.
const FINDINGS_MAX: usize = 100;

/// What a command has to say.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// For standard error.
    pub notes: Vec<String>,
    /// Of a test: whether it is in the set.
    pub is_in: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) slot: Arc<Slot>,
}

/// The sets, under the lock.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// In the order they were made.
    pub(super) sets: Vec<Named>,
    /// Shared with sets that are made aside: no number is given twice.
    pub(super) last_id: Arc<AtomicU32>,
    /// How often rules in force name a set.
    in_rules: HashMap<SlotId, usize>,
}

/// The sets.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    ports: Arc<[String]>,
    /// Zero of the daemon's clock, once it runs.
    started: OnceLock<Instant>,
}

impl Store {
    /// No sets, on a gateway whose NICs are called `ports`.
    #[must_use]
    pub fn new(ports: &[String]) -> Self {
        Self { inner: Mutex::default(), ports: ports.into(), started: OnceLock::new() }
    }

    /// The daemon's clock runs from now on; timeouts of sets that are there begin with it.
    pub fn start_clock(&self, started: Instant) {
        let _ = self.started.set(started);
    }

    fn now(&self) -> Now {
        self.started.get().map_or_else(Now::default, |started| Now::since(*started))
    }

    /// How a set is made, if there is one of that name.
    pub(super) fn spec(&self, name: &str) -> Option<Spec> {
        self.inner().find(name).map(|named| named.slot.set().spec().clone())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sets that rules may name.
    #[must_use]
    pub fn slots(&self) -> BTreeMap<String, Arc<Slot>> {
        self.inner().sets.iter().map(|named| (named.name.clone(), Arc::clone(&named.slot))).collect()
    }

    /// Takes down which sets these rules use, which are those in force.
    pub fn used_by(&self, rulesets: &[&Ruleset]) {
        let mut in_rules = HashMap::new();
        for id in rulesets.iter().flat_map(|ruleset| slots_of(ruleset)) {
            *in_rules.entry(id).or_default() += 1;
        }
        self.inner().in_rules = in_rules;
    }

    /// Removes what has expired, a part each time.
    pub fn sweep(&self) {
        let now = self.now();
        for named in &self.inner().sets {
            named.slot.set().sweep(now);
        }
    }

    /// Carries out what a rule has asked for.
    pub fn carry_out(&self, ask: &SetAsk) {
        let inner = self.inner();
        for (used, adds) in [(ask.order.add, true), (ask.order.del, false)] {
            let Some(used) = used else { continue };
            if let Some(named) = inner.sets.iter().find(|named| named.slot.id() == used.slot) {
                ask.carry_out(&named.slot.set(), used.directions, adds);
            }
        }
    }

    /// One command, given as its line.
    ///
    /// # Errors
    /// What is wrong; nothing has changed then, but for what a range had reached.
    pub fn command(&self, line: &[u8], services: &dyn Services) -> Result<Answer, Diagnostic> {
        let asked = parse(words(line, 1, 0)?, &|name| self.spec(name), services)?;
        self.run(&asked, 0)
    }

    /// A whole file, as `ipset restore` takes it. It is read as a whole before any of it is carried out.
    ///
    /// # Errors
    /// Everything that is wrong with its text, and then nothing has changed; or where a line could not be carried out,
    /// and then those before it have been.
    pub fn restore(
        &self,
        text: &[u8],
        exist: bool,
        services: &dyn Services,
    ) -> Result<Answer, Vec<Diagnostic>> {
        self.restore_but(&HashSet::new(), text, exist, services)
    }

    fn restore_but(
        &self,
        kept: &HashSet<String>,
        text: &[u8],
        exist: bool,
        services: &dyn Services,
    ) -> Result<Answer, Vec<Diagnostic>> {
        let sizes = if kept.is_empty() { self.check(text, services)? } else { HashMap::new() };
        let mut answer = Answer::default();
        for (number, start, line) in lines(text) {
            let read = words(line, number, start).map_err(|error| vec![error])?;
            let name = read.iter().skip(1).find(|word| !word.text.starts_with('-'));
            // What names no set is about all of them.
            if name.map_or(!kept.is_empty(), |name| kept.contains(&name.text)) {
                continue;
            }
            let said = parse(read, &|name| self.spec(name), services).and_then(|mut asked| {
                asked.options.exist |= exist;
                let size = match &asked.command {
                    Command::Create(name, _) => sizes.get(name).copied().unwrap_or(0),
                    _ => 0,
                };
                self.run(&asked, size)
            });
            let said = said.map_err(|error| vec![error])?;
            answer.text.push_str(&said.text);
            answer.notes.extend(said.notes);
        }
        Ok(answer)
    }

    /// Reads a file without carrying it out. How many lines add to each set.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(
        &self,
        text: &[u8],
        services: &dyn Services,
    ) -> Result<HashMap<String, usize>, Vec<Diagnostic>> {
        let mut overlay = Overlay::new(self);
        let mut sizes: HashMap<String, usize> = HashMap::new();
        let mut found = Vec::new();
        for (number, start, line) in lines(text) {
            let spec_of = |name: &str| overlay.spec(name);
            match words(line, number, start).and_then(|words| parse(words, &spec_of, services)) {
                Err(error) => found.push(error),
                Ok(Asked { command: Command::Add(name, _), .. }) => match sizes.get_mut(&name) {
                    Some(size) => *size += 1,
                    None => {
                        sizes.insert(name, 1);
                    }
                },
                Ok(asked) => overlay.foresee(asked.command),
            }
            if found.len() >= FINDINGS_MAX {
                break;
            }
        }
        if found.is_empty() { Ok(sizes) } else { Err(found) }
    }

    /// Carries a command out. A new set has room for `size` entries.
    fn run(&self, asked: &Asked, size: usize) -> Result<Answer, Diagnostic> {
        let (now, mut inner) = (self.now(), self.inner());
        let listing = match &asked.command {
            Command::List(name) => Listing::new(&inner, name.as_deref(), asked, Form::Plain)?,
            Command::Save(name) => Listing::new(&inner, name.as_deref(), asked, Form::Save)?,
            _ => return Run { inner: &mut inner, ports: &self.ports, asked, now }.command(size),
        };
        // A million entries take a while to print, and others want to edit meanwhile.
        drop(inner);
        Ok(Answer { text: listing.print(now), ..Answer::default() })
    }
}

impl Inner {
    pub(super) fn find(&self, name: &str) -> Option<&Named> {
        self.sets.iter().find(|named| named.name == name)
    }

    /// How often rules and lists name it.
    pub(super) fn references(&self, slot: &Slot) -> usize {
        let lists = self.sets.iter().filter(|named| named.slot.set().spec().kind == Kind::ListSet);
        let members = lists.flat_map(|named| named.slot.set().members());
        let in_rules = self.in_rules.get(&slot.id()).copied().unwrap_or(0);
        in_rules + members.filter(|member| member.id() == slot.id()).count()
    }
}

/// The sets that rules name, each as often as they do.
pub fn slots_of(ruleset: &Ruleset) -> impl Iterator<Item = SlotId> + '_ {
    ruleset.rules().flat_map(|rule| {
        let asked = rule.matches.iter().filter_map(|condition| match condition {
            Match::Set(set) => Some(set.slot.id()),
            _ => None,
        });
        let ordered = match rule.target {
            Target::Effect(Effect::Set(order)) => [order.add, order.del],
            _ => [None, None],
        };
        asked.chain(ordered.into_iter().flatten().map(|used| used.slot))
    })
}
