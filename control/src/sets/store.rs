//! The daemon's sets by name, and commands carried out on them. Control threads: whoever edits holds the lock; packets are
//! looked up past it.

mod stage;

pub use stage::{Replaced, Staged};

use super::command::{Asked, Command, Form, Options, What, parse};
use super::element::Pattern;
use super::print;
use super::words::{lines, words};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::Services;
use dataplane::clock::Now;
use dataplane::packet::Family;
use dataplane::rules::conn::Effect;
use dataplane::rules::model::{Match, Ruleset, Target};
use dataplane::sets::{EditError, Element, Extras, Kind, Set, SetAsk, Slot, SlotId, Spec};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
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
struct Named {
    name: String,
    slot: Arc<Slot>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In the order they were made.
    sets: Vec<Named>,
    /// Shared with sets that are made aside: no number is given twice.
    last_id: Arc<AtomicU32>,
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

/// What a line of a file would leave behind, without its being carried out.
type Overlay = HashMap<String, Option<Spec>>;

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
        let spec_of = |name: &str| self.inner().spec(name);
        let asked = parse(words(line, 1, 0)?, &spec_of, services)?;
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

    /// The same of a file whose sets may be there already: those stay as they are.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn restore_new(&self, text: &[u8], services: &dyn Services) -> Result<Answer, Vec<Diagnostic>> {
        // By itself the file must be right as a whole.
        Self::new(&self.ports).check(text, services)?;
        let kept = self.slots().into_keys().collect();
        self.restore_but(&kept, text, false, services)
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
            if name.is_some_and(|name| kept.contains(&name.text)) {
                continue;
            }
            let spec_of = |name: &str| self.inner().spec(name);
            let said = parse(read, &spec_of, services).and_then(|mut asked| {
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
        let mut overlay = Overlay::new();
        let mut sizes: HashMap<String, usize> = HashMap::new();
        let mut found = Vec::new();
        for (number, start, line) in lines(text) {
            let spec_of = |name: &str| match overlay.get(name) {
                Some(known) => known.clone(),
                None => self.inner().spec(name),
            };
            match words(line, number, start).and_then(|words| parse(words, &spec_of, services)) {
                Err(error) => found.push(error),
                Ok(Asked { command: Command::Add(name, _), .. }) => match sizes.get_mut(&name) {
                    Some(size) => *size += 1,
                    None => {
                        sizes.insert(name, 1);
                    }
                },
                Ok(asked) => self.foresee(&mut overlay, asked.command),
            }
            if found.len() >= FINDINGS_MAX {
                break;
            }
        }
        if found.is_empty() { Ok(sizes) } else { Err(found) }
    }

    /// What sets there will be behind a command.
    fn foresee(&self, overlay: &mut Overlay, command: Command) {
        let mut take = |name: &str| {
            let known = overlay.get(name).cloned().unwrap_or_else(|| self.inner().spec(name));
            overlay.insert(name.to_owned(), None);
            known
        };
        match command {
            Command::Create(name, spec) => {
                overlay.insert(name, Some(*spec));
            }
            Command::Destroy(Some(name)) => {
                overlay.insert(name, None);
            }
            Command::Destroy(None) => {
                let names: Vec<_> = self.inner().sets.iter().map(|named| named.name.clone()).collect();
                let names: Vec<_> = names.into_iter().chain(overlay.keys().cloned()).collect();
                overlay.extend(names.into_iter().map(|name| (name, None)));
            }
            Command::Rename(from, to) => {
                let spec = take(&from);
                overlay.insert(to, spec);
            }
            Command::Swap(from, to) => {
                let (a, b) = (take(&from), take(&to));
                overlay.insert(from, b);
                overlay.insert(to, a);
            }
            _ => {}
        }
    }

    /// Carries a command out. A new set has room for `size` entries.
    fn run(&self, asked: &Asked, size: usize) -> Result<Answer, Diagnostic> {
        let (now, mut inner) = (self.now(), self.inner());
        let mut run = Run { inner: &mut inner, ports: &self.ports, asked, now };
        run.command(size)
    }
}

impl Inner {
    fn find(&self, name: &str) -> Option<&Named> {
        self.sets.iter().find(|named| named.name == name)
    }

    fn spec(&self, name: &str) -> Option<Spec> {
        self.find(name).map(|named| named.slot.set().spec().clone())
    }

    /// How often rules and lists name it.
    fn references(&self, slot: &Slot) -> usize {
        let lists = self.sets.iter().filter(|named| named.slot.set().spec().kind == Kind::ListSet);
        let members = lists.flat_map(|named| named.slot.set().members());
        let in_rules = self.in_rules.get(&slot.id()).copied().unwrap_or(0);
        in_rules + members.filter(|member| member.id() == slot.id()).count()
    }
}

struct Run<'a> {
    inner: &'a mut Inner,
    ports: &'a Arc<[String]>,
    asked: &'a Asked,
    now: Now,
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

/// What kind of thing a set's elements are made of: sets that differ in it do not swap.
fn features(kind: Kind) -> (bool, bool, bool, bool, bool) {
    let is_nic = kind == Kind::HashNetIface;
    let has_port = kind.has_port() || kind == Kind::BitmapPort;
    let is_net = kind.net() != dataplane::sets::NetPart::None;
    (kind.has_address(), has_port, kind.has_second_address(), is_nic || kind == Kind::HashMac, is_net)
}

impl Run<'_> {
    fn options(&self) -> Options {
        self.asked.options
    }

    /// Something wrong with the word at that position.
    fn wrong(&self, at: usize, message: impl Into<String>) -> Diagnostic {
        let words = &self.asked.words;
        let span = words.get(at).or(words.first()).map_or(Span::default(), |word: &Word| word.span);
        Diagnostic::error(span, message)
    }

    fn slot(&self, name: &str, at: usize) -> Result<Arc<Slot>, Diagnostic> {
        let missing = || self.wrong(at, format!("there is no set `{name}`"));
        self.inner.find(name).map(|named| Arc::clone(&named.slot)).ok_or_else(missing)
    }

    fn command(&mut self, size: usize) -> Result<Answer, Diagnostic> {
        let done = Ok(Answer::default());
        match &self.asked.command {
            Command::Create(name, spec) => self.create(name, spec, size).and(done),
            Command::Add(name, added) => self.add(name, &added.0, &added.1).and(done),
            Command::Del(name, what) => self.del(name, what).and(done),
            Command::Test(name, what) => self.test(name, what),
            Command::Destroy(Some(name)) => self.destroy(name).and(done),
            Command::Destroy(None) => self.destroy_all().and(done),
            Command::Flush(Some(name)) => {
                self.slot(name, 1)?.set().flush();
                done
            }
            Command::Flush(None) => {
                self.inner.sets.iter().for_each(|named| named.slot.set().flush());
                done
            }
            Command::Rename(from, to) => self.rename(from, to).and(done),
            Command::Swap(from, to) => self.swap(from, to).and(done),
            Command::List(name) => self.show(name.as_deref(), self.options().form.unwrap_or(Form::Plain)),
            Command::Save(name) => self.show(name.as_deref(), Form::Save),
            Command::Commit => done,
        }
    }

    fn create(&mut self, name: &str, spec: &Spec, size: usize) -> Result<(), Diagnostic> {
        if let Some(known) = self.inner.find(name) {
            let known = known.slot.set();
            // Sizes of the hash aside.
            let Spec { hashsize, bucketsize, initval, forceadd, .. } = *known.spec();
            let alike = Spec { hashsize, bucketsize, initval, forceadd, ..spec.clone() };
            if self.options().exist && alike == *known.spec() {
                return Ok(());
            }
            return Err(self.wrong(1, format!("there is a set `{name}` already")));
        }
        let entries = size.max(spec.hashsize as usize / 2);
        let set = Set::new(spec.clone(), entries, self.ports);
        let id = self.inner.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = Arc::new(Slot::new(SlotId(id), Arc::new(set)));
        self.inner.sets.push(Named { name: name.to_owned(), slot });
        Ok(())
    }

    fn edit_error(&self, error: EditError) -> Diagnostic {
        self.wrong(2, error.to_string())
    }

    fn add(&self, name: &str, what: &What, extras: &Extras) -> Result<(), Diagnostic> {
        let set = self.slot(name, 1)?.set();
        let exist = self.options().exist;
        let refused = |error| self.edit_error(error);
        let pattern = match what {
            What::Elements(pattern) => pattern,
            What::Member(member, beside) => {
                let slot = self.member(member)?;
                let beside = match beside {
                    Some((by, is_after)) => Some((self.slot(by, 4)?.id(), *is_after)),
                    None => None,
                };
                return set.add_member(&slot, beside, extras, exist, self.now).map(|_| ()).map_err(refused);
            }
        };
        self.check_ends(&set, pattern)?;
        let iface = self.iface(&set, pattern)?;
        let added = pattern.each(set.spec(), iface, |element| {
            let done = self.check(&set, &element);
            let done = done.and_then(|()| set.add(element, extras, exist, self.now).map_err(refused));
            match done {
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        });
        if let ControlFlow::Break(error) = added { Err(error) } else { Ok(()) }
    }

    fn del(&self, name: &str, what: &What) -> Result<(), Diagnostic> {
        let set = self.slot(name, 1)?.set();
        let exist = self.options().exist;
        let refused = |error| self.edit_error(error);
        let pattern = match what {
            What::Elements(pattern) => pattern,
            What::Member(member, _) => {
                let removed = set.remove_member(self.member(member)?.id(), self.now);
                return if exist { Ok(()) } else { removed.map_err(refused) };
            }
        };
        self.check_ends(&set, pattern)?;
        let iface = self.iface(&set, pattern)?;
        let removed = pattern.each(set.spec(), iface, |element| {
            let done = self.check(&set, &element);
            let removed = |()| match set.remove(element, self.now) {
                Err(error) if !exist => Err(refused(error)),
                _ => Ok(()),
            };
            match done.and_then(removed) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        });
        if let ControlFlow::Break(error) = removed { Err(error) } else { Ok(()) }
    }

    fn test(&self, name: &str, what: &What) -> Result<Answer, Diagnostic> {
        let set = self.slot(name, 1)?.set();
        let is_in = match what {
            What::Elements(pattern) => {
                let element = pattern.first(set.spec(), self.iface(&set, pattern)?);
                self.check(&set, &element)?;
                set.is_in(element, self.now) == Some(false)
            }
            What::Member(member, beside) => {
                let id = self.member(member)?.id();
                let members: Vec<_> = set.members().iter().map(|slot| slot.id()).collect();
                let at = members.iter().position(|known| *known == id);
                match beside {
                    None => at.is_some(),
                    Some((by, is_after)) => {
                        let by = self.slot(by, 4)?.id();
                        let by = members.iter().position(|known| *known == by);
                        let (first, then) = if *is_after { (by, at) } else { (at, by) };
                        first.zip(then).is_some_and(|(first, then)| first + 1 == then)
                    }
                }
            }
        };
        let word = self.asked.words.get(2).map_or("", |word| word.text.as_str());
        let note = if is_in {
            format!("Warning: {word} is in set {name}.")
        } else {
            format!("{word} is NOT in set {name}.")
        };
        let notes = if self.options().quiet { Vec::new() } else { vec![note] };
        Ok(Answer { notes, is_in: Some(is_in), ..Answer::default() })
    }

    /// Whether all of a range is within that of a bitmap.
    fn check_ends(&self, set: &Set, pattern: &Pattern) -> Result<(), Diagnostic> {
        let spec = set.spec();
        let (from, to) = pattern.ends();
        let is_bitmap = matches!(spec.kind, Kind::BitmapIp | Kind::BitmapPort);
        if is_bitmap && (from < spec.range.0 || to > spec.range.1) {
            return Err(self.wrong(2, "the element is out of the range of the set"));
        }
        Ok(())
    }

    /// Whether the set may hold it.
    fn check(&self, set: &Set, element: &Element) -> Result<(), Diagnostic> {
        let spec = set.spec();
        let is_within = match spec.kind {
            Kind::BitmapIp => (u128::from(spec.range.0)..=u128::from(spec.range.1)).contains(&element.addr),
            Kind::BitmapPort => (spec.range.0..=spec.range.1).contains(&u32::from(element.port)),
            _ => true,
        };
        if !is_within {
            return Err(self.wrong(2, "the element is out of the range of the set"));
        }
        if matches!(spec.kind, Kind::HashIp | Kind::HashMac) && element.masked(spec).addr == 0 {
            return Err(self.wrong(2, "an address of zero is no element of a hash"));
        }
        // Linux loops over addresses from there, and finds none.
        if spec.kind == Kind::HashIpPort && spec.family == Some(Family::V4) && element.addr == 0 {
            return Err(self.wrong(2, "0.0.0.0 is no element of hash:ip,port"));
        }
        Ok(())
    }

    fn iface(&self, set: &Set, pattern: &Pattern) -> Result<u16, Diagnostic> {
        let Some(name) = &pattern.iface else { return Ok(0) };
        set.iface(name).ok_or_else(|| self.wrong(2, "the set knows 65535 names of NICs and takes no more"))
    }

    /// A set that a list may have.
    fn member(&self, name: &str) -> Result<Arc<Slot>, Diagnostic> {
        let slot = self.slot(name, 2)?;
        if slot.set().spec().kind == Kind::ListSet {
            return Err(self.wrong(2, "a list cannot stand in a list"));
        }
        Ok(slot)
    }

    /// A set that nothing names.
    fn unused(&self, name: &str, done: &str) -> Result<Arc<Slot>, Diagnostic> {
        let slot = self.slot(name, 1)?;
        match self.inner.references(&slot) {
            0 => Ok(slot),
            count => Err(self
                .wrong(1, format!("set `{name}` cannot be {done}: it is in use"))
                .hint(format!("rules and lists name it {count} time(s)"))),
        }
    }

    fn destroy(&mut self, name: &str) -> Result<(), Diagnostic> {
        if self.options().exist && self.inner.find(name).is_none() {
            return Ok(());
        }
        let id = self.unused(name, "destroyed")?.id();
        self.inner.sets.retain(|named| named.slot.id() != id);
        Ok(())
    }

    fn destroy_all(&mut self) -> Result<(), Diagnostic> {
        let used = self.inner.sets.iter().find(|named| self.inner.references(&named.slot) > 0);
        if let Some(named) = used {
            return Err(self.wrong(0, format!("set `{}` cannot be destroyed: it is in use", named.name)));
        }
        self.inner.sets.clear();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), Diagnostic> {
        let id = self.unused(from, "renamed")?.id();
        if self.inner.find(to).is_some() {
            return Err(self.wrong(2, format!("there is a set `{to}` already")));
        }
        if let Some(named) = self.inner.sets.iter_mut().find(|named| named.slot.id() == id) {
            to.clone_into(&mut named.name);
        }
        Ok(())
    }

    fn swap(&self, from: &str, to: &str) -> Result<(), Diagnostic> {
        let (a, b) = (self.slot(from, 1)?, self.slot(to, 2)?);
        let (in_a, in_b) = (a.set(), b.set());
        let of = |set: &Set| (features(set.spec().kind), set.spec().family);
        let is_list = |set: &Set| set.spec().kind == Kind::ListSet;
        if of(&in_a) != of(&in_b) || is_list(&in_a) != is_list(&in_b) {
            return Err(self.wrong(2, "sets of different types cannot be swapped"));
        }
        a.replace(in_b);
        b.replace(in_a);
        Ok(())
    }

    /// Prints one set, or all: lists behind the sets they name.
    fn show(&self, name: Option<&str>, form: Form) -> Result<Answer, Diagnostic> {
        let wanted: Vec<&Named> = match name {
            Some(name) => {
                let missing = || self.wrong(1, format!("there is no set `{name}`"));
                vec![self.inner.find(name).ok_or_else(missing)?]
            }
            None => {
                let is_list = |named: &&Named| named.slot.set().spec().kind == Kind::ListSet;
                let lists = self.inner.sets.iter().filter(is_list);
                self.inner.sets.iter().filter(|named| !is_list(named)).chain(lists).collect()
            }
        };
        let Options { terse, names, sorted, .. } = self.options();
        let mut text = String::new();
        for (at, named) in wanted.into_iter().enumerate() {
            let (name, set) = (&named.name, named.slot.set());
            let _ = match form {
                _ if names => writeln!(text, "{name}"),
                Form::Save => {
                    let spec = set.spec();
                    writeln!(text, "create {name} {} {}", spec.kind.name(), print::header(spec))
                }
                Form::Plain => {
                    let blank = if at > 0 { "\n" } else { "" };
                    let head = print::head(name, &set, self.inner.references(&named.slot));
                    write!(text, "{blank}{head}{}", if terse { "" } else { "Members:\n" })
                }
            };
            if !names && !terse {
                self.members(&mut text, name, &set, form, sorted);
            }
        }
        Ok(Answer { text, ..Answer::default() })
    }

    fn members(&self, text: &mut String, name: &str, set: &Set, form: Form, sorted: bool) {
        let name_of = |id: SlotId| {
            let named = self.inner.sets.iter().find(|named| named.slot.id() == id);
            named.map_or_else(String::new, |named| named.name.clone())
        };
        for entry in print::entries(set, sorted, self.now) {
            let entry = print::entry(set, &entry, &name_of);
            let _ = match form {
                Form::Save => writeln!(text, "add {name} {entry}"),
                Form::Plain => writeln!(text, "{entry}"),
            };
        }
    }
}
