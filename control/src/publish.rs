//! Publication of rules: compiles off the path, offers the result to the workers, and keeps the rule counters of what
//! it replaced, by stable rule id, so that a reload loses no count.
//!
//! Control threads only. A replaced snapshot stays here until every worker has moved on; then the counts of rules that no
//! other snapshot runs are folded into the history and it is freed, here and not on a worker.

use crate::net::minutes_west;
use crate::rules_file::Rules;
use crate::system::cores;
use dataplane::clock::Now;
use dataplane::flow::{SettingError, TrackSettings};
use dataplane::ids::{Generation, WorkerId};
use dataplane::packet::Family;
use dataplane::rules::model::{RuleId, RuleRef, Ruleset, Table};
use dataplane::rules::rate::Tables;
use dataplane::rules::{CompileError, Compiled, RuleEdit};
use dataplane::worker::tap::{TAPS_MAX, Tap};
use dataplane::worker::{FamilyRules, Mailbox, Settings, Snapshot};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Packets and bytes (IP lengths, as iptables counts them).
pub type Counts = (u64, u64);

/// What a counter belongs to, across reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CounterKey {
    /// A rule.
    Rule(Family, RuleId),
    /// The policy of a chain of that name.
    Policy(Family, Table, String),
    /// What met no rules.
    Kept(Family),
}

/// The rules of both families.
#[derive(Clone, Debug)]
pub struct BothRules {
    /// IPv4.
    pub v4: Arc<Rules>,
    /// IPv6.
    pub v6: Arc<Rules>,
}

impl BothRules {
    /// The rules of one family.
    #[must_use]
    pub fn family(&self, family: Family) -> &Arc<Rules> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn family_mut(&mut self, family: Family) -> &mut Arc<Rules> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// As many taps are there as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{TAPS_MAX} captures and traces are running, and no more can")]
pub struct TooManyTaps;

/// Compiles and publishes.
#[derive(Debug)]
pub struct Publisher {
    mailbox: Arc<Mailbox>,
    workers: usize,
    ports: Vec<String>,
    track_always: bool,
    /// What `hashlimit` and `recent` rules have seen, by name: kept while rules in force name it.
    tables: Tables,
    /// Whoever changes rules holds it for as long as they take to compile, and takes it before `state`.
    changing: Mutex<()>,
    /// Held for moments: nobody who asks, or changes a setting, waits for rules.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: BothRules,
    settings: Settings,
    generation: Generation,
    /// Replaced snapshots that some worker may still run.
    retired: Vec<Arc<Snapshot>>,
    /// Counts of snapshots that nobody runs any more.
    history: HashMap<CounterKey, Counts>,
    behind: Behind,
}

/// The families whose edited rules are being compiled as a whole.
#[derive(Debug, Default)]
struct Behind {
    v4: Option<Compiling>,
    v6: Option<Compiling>,
}

/// Rules being compiled as a whole.
#[derive(Debug)]
struct Compiling {
    rules: Arc<Rules>,
    /// Edits that came since that began.
    steps: Vec<RuleEdit>,
    thread: JoinHandle<()>,
}

impl Behind {
    fn get_mut(&mut self, family: Family) -> &mut Option<Compiling> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl Publisher {
    /// Compiles the first rules and makes the mailbox that workers read.
    ///
    /// # Errors
    /// If the rules do not compile.
    pub fn new(
        rules: BothRules,
        settings: Settings,
        ports: Vec<String>,
        workers: usize,
        track_always: bool,
    ) -> Result<Self, CompileError> {
        let generation = Generation(1);
        let tables = Tables::default();
        let compile = |rules: &Rules| {
            let compiled = Compiled::with_tables(Arc::clone(&rules.ruleset), &ports, &tables, None)?;
            Ok(Arc::new(FamilyRules::new(compiled, generation, workers, track_always)))
        };
        let (v4, v6) = (compile(&rules.v4)?, compile(&rules.v6)?);
        let first = Snapshot { generation, v4, v6, settings: settings.clone() };
        let mailbox = Arc::new(Mailbox::new(first, workers));
        let (retired, history, behind) = (Vec::new(), HashMap::new(), Behind::default());
        let state = State { rules, settings, generation, retired, history, behind };
        let (changing, state) = (Mutex::default(), Mutex::new(state));
        Ok(Self { mailbox, workers, ports, track_always, tables, changing, state })
    }

    /// What workers read.
    #[must_use]
    pub fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// Replaces the rules of the families given; the other keeps its own. Returns the new generation, which workers
    /// adopt between their next two bursts.
    ///
    /// # Errors
    /// If the rules do not compile; nothing has changed then.
    pub fn publish(&self, v4: Option<Rules>, v6: Option<Rules>) -> Result<Generation, CompileError> {
        self.publish_rules(v4, v6, false)
    }

    /// The same, but flows that the rules so far let pass go on, whatever the new ones say.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_keeping(&self, v4: Option<Rules>, v6: Option<Rules>) -> Result<Generation, CompileError> {
        self.publish_rules(v4, v6, true)
    }

    fn publish_rules(
        &self,
        v4: Option<Rules>,
        v6: Option<Rules>,
        keeps_flows: bool,
    ) -> Result<Generation, CompileError> {
        let _changing = self.changing();
        let running = self.mailbox.newest();
        let compile = |new: Option<Rules>, running: &Arc<FamilyRules>| {
            let compiled = new.map(|new| {
                let (ruleset, before) = (Arc::clone(&new.ruleset), Some(running.compiled.ruleset()));
                let compiled = Compiled::with_tables(ruleset, &self.ports, &self.tables, before)?;
                Ok((Arc::new(new), compiled))
            });
            compiled.transpose()
        };
        let (v4, v6) = (compile(v4, &running.v4)?, compile(v6, &running.v6)?);
        let mut state = self.state();
        let generation = state.next_generation();
        // The other family's rules go on as they are, with the verdicts and counts that hang on them.
        let take_up =
            |new: Option<(Arc<Rules>, Compiled)>, old: &Arc<Rules>, running: &Arc<FamilyRules>| match new {
                None => (Arc::clone(old), Arc::clone(running)),
                Some((new, compiled)) => {
                    let rules = FamilyRules::new(compiled, generation, self.workers, self.track_always);
                    (new, Arc::new(if keeps_flows { rules.keeping_flows_of(running) } else { rules }))
                }
            };
        let (rules_v4, v4) = take_up(v4, &state.rules.v4, &running.v4);
        let (rules_v6, v6) = take_up(v6, &state.rules.v6, &running.v6);
        let settings = state.settings.clone();
        // What is being compiled is of no use where its rules are gone.
        for (family, new) in [(Family::V4, &rules_v4), (Family::V6, &rules_v6)] {
            if !Arc::ptr_eq(new, state.rules.family(family)) {
                *state.behind.get_mut(family) = None;
            }
        }
        state.rules = BothRules { v4: rules_v4, v6: rules_v6 };
        Ok(self.offer(&mut state, Snapshot { generation, v4, v6, settings }))
    }

    /// Replaces one family's rules by those with a few edits. Packets meet them at once; they are compiled as a whole
    /// behind that. What cannot be done in this way is compiled first.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_edited(
        self: &Arc<Self>,
        rules: Rules,
        steps: &[RuleEdit],
    ) -> Result<Generation, CompileError> {
        let changing = self.changing();
        let family = rules.ruleset.family;
        let running = Arc::clone(self.mailbox.newest().rules(family));
        let Some(compiled) = running.compiled.edited(steps, &self.ports)? else {
            drop(changing);
            let (v4, v6) = if family == Family::V4 { (Some(rules), None) } else { (None, Some(rules)) };
            return self.publish(v4, v6);
        };
        let rules = Arc::new(rules);
        let mut state = self.state();
        *state.rules.family_mut(family) = Arc::clone(&rules);
        let generation = self.offer_rules(&mut state, family, compiled);
        let behind = state.behind.get_mut(family);
        if let Some(compiling) = behind.as_mut().filter(|compiling| !compiling.thread.is_finished()) {
            compiling.steps.extend_from_slice(steps);
            return Ok(generation);
        }
        let (publisher, started) = (Arc::clone(self), Arc::clone(&rules));
        let thread = std::thread::Builder::new().name("compiler".to_owned());
        match thread.spawn(move || publisher.compile_behind(started, family)) {
            Ok(thread) => *behind = Some(Compiling { rules, steps: Vec::new(), thread }),
            // Rules are right as they are; packets pay a little more until the next change.
            Err(error) => tracing::warn!("edited rules cannot be compiled as a whole: no thread: {error}"),
        }
        Ok(generation)
    }

    /// Compiles edited rules as a whole, until there are no edits left beside what is compiled.
    fn compile_behind(&self, mut rules: Arc<Rules>, family: Family) {
        // The next edit first of all.
        cores::come_last();
        loop {
            let running = Arc::clone(self.mailbox.newest().rules(family));
            if let Err(error) = running.compiled.recheck(&self.ports) {
                tracing::error!("edited rules: {error}");
            }
            let (ruleset, before) = (Arc::clone(&rules.ruleset), Some(running.compiled.ruleset()));
            let compiled = Compiled::with_tables(ruleset, &self.ports, &self.tables, before);
            let _changing = self.changing();
            let mut state = self.state();
            let newest = Arc::clone(state.rules.family(family));
            let Some(compiling) = state.behind.get_mut(family) else { return };
            if !Arc::ptr_eq(&compiling.rules, &rules) {
                return;
            }
            let steps = std::mem::take(&mut compiling.steps);
            compiling.rules = Arc::clone(&newest);
            rules = newest;
            let compiled = compiled.and_then(|compiled| {
                Ok(if steps.is_empty() { Some(compiled) } else { compiled.edited(&steps, &self.ports)? })
            });
            match compiled {
                Ok(Some(compiled)) => {
                    let is_whole = !compiled.is_edited();
                    self.offer_rules(&mut state, family, compiled);
                    if is_whole {
                        *state.behind.get_mut(family) = None;
                        return;
                    }
                }
                // More edits meanwhile than can be looked at beside it.
                Ok(None) => {}
                Err(error) => {
                    tracing::error!("edited rules cannot be compiled as a whole: {error}");
                    *state.behind.get_mut(family) = None;
                    return;
                }
            }
        }
    }

    /// Offers other compiled rules of one family.
    fn offer_rules(&self, state: &mut State, family: Family, compiled: Compiled) -> Generation {
        let generation = state.next_generation();
        let rules = FamilyRules::new(compiled, generation, self.workers, self.track_always);
        let running = self.mailbox.newest();
        let (mut v4, mut v6) = (Arc::clone(&running.v4), Arc::clone(&running.v6));
        *(if family == Family::V4 { &mut v4 } else { &mut v6 }) = Arc::new(rules);
        let settings = state.settings.clone();
        self.offer(state, Snapshot { generation, v4, v6, settings })
    }

    /// Waits until edited rules are compiled as a whole: only then can be foreseen what they say of a flow.
    pub fn wait_until_whole(&self) {
        while self.is_behind() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether edited rules are still to be compiled as a whole.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let Behind { v4, v6 } = &self.state().behind;
        v4.iter().chain(v6).any(|compiling| !compiling.thread.is_finished())
    }

    /// Changes a connection tracking setting; the rules stay as they are. Returns the new generation.
    ///
    /// # Errors
    /// When there is no such setting or the value is not in its range; nothing has changed then.
    pub fn set(&self, name: &str, value: &str) -> Result<Generation, SettingError> {
        let mut state = self.state();
        let mut settings = state.settings.clone();
        settings.track.set(name, value)?;
        settings.policies = settings.policies.over(&settings.track)?;
        Ok(self.offer_settings(&mut state, settings))
    }

    /// Puts other settings in the place of those in force; the rules stay as they are, and so do the clock on the wall, the
    /// most flows there may be, and who looks at packets. Returns the new generation.
    pub fn reconfigure(&self, settings: Settings) -> Generation {
        let mut state = self.state();
        let track = TrackSettings { max: state.settings.track.max, ..settings.track };
        let Settings { wall, taps, .. } = &state.settings;
        let settings = Settings { track, wall: Arc::clone(wall), taps: Arc::clone(taps), ..settings };
        self.offer_settings(&mut state, settings)
    }

    /// Changes who looks at packets; the rest stays as it is. What `change` refuses is not published.
    fn change_taps<E>(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>) -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state();
        let mut taps = state.settings.taps.to_vec();
        change(&mut taps)?;
        let settings = Settings { taps: taps.into(), ..state.settings.clone() };
        self.offer_settings(&mut state, settings);
        Ok(())
    }

    /// Has workers show packets to one more tap, from their next bursts on.
    ///
    /// # Errors
    /// If there are as many as there may be.
    pub fn add_tap(&self, tap: &Arc<Tap>) -> Result<(), TooManyTaps> {
        self.change_taps(|taps| {
            if taps.len() >= TAPS_MAX {
                return Err(TooManyTaps);
            }
            taps.push(Arc::clone(tap));
            Ok(())
        })
    }

    /// Has them stop. They may still write until they have taken that up ([`Self::is_settled`]).
    pub fn remove_tap(&self, tap: &Arc<Tap>) {
        let removed: Result<(), TooManyTaps> = self.change_taps(|taps| {
            taps.retain(|other| !Arc::ptr_eq(other, tap));
            Ok(())
        });
        debug_assert!(removed.is_ok(), "one less is never too many");
    }

    /// One family's rules as workers run them, with the generation by which they name them.
    #[must_use]
    pub fn rules_since(&self, family: Family) -> (Generation, Arc<Rules>) {
        let state = self.state();
        (self.mailbox.newest().rules(family).since, Arc::clone(state.rules.family(family)))
    }

    /// Offers other settings with the rules in force.
    fn offer_settings(&self, state: &mut State, settings: Settings) -> Generation {
        state.settings = settings.clone();
        let running = self.mailbox.newest();
        let (v4, v6) = (Arc::clone(&running.v4), Arc::clone(&running.v6));
        let generation = state.next_generation();
        self.offer(state, Snapshot { generation, v4, v6, settings })
    }

    fn offer(&self, state: &mut State, next: Snapshot) -> Generation {
        state.generation = next.generation;
        state.retired.push(self.mailbox.publish(next));
        state.generation
    }

    /// The connection tracking settings in force.
    #[must_use]
    pub fn track_settings(&self) -> TrackSettings {
        self.state().settings.track
    }

    /// Folds and frees replaced snapshots that no worker runs any more. Called now and then by the supervisor.
    pub fn reclaim(&self) {
        let mut state = self.state();
        if !self.mailbox.all_adopted(state.generation) {
            return;
        }
        let State { retired, history, .. } = &mut *state;
        let newest = self.mailbox.newest();
        for family in [Family::V4, Family::V6] {
            let over = distinct(&*retired, family);
            for rules in over.into_iter().filter(|rules| !Arc::ptr_eq(rules, newest.rules(family))) {
                for (key, counts) in counted(rules) {
                    add(history.entry(key).or_default(), counts);
                }
            }
        }
        let over = std::mem::take(retired);
        // Freeing very many rules takes a while.
        drop(state);
        drop(over);
    }

    /// Tells workers what the clock on the wall shows at `now`. Called now and then: somebody may set it.
    pub fn follow_wall_clock(&self, now: Now) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let unix_nanos = i64::try_from(since_1970).unwrap_or(i64::MAX);
        self.state().settings.wall.set(now, unix_nanos, minutes_west());
    }

    /// Tables of `hashlimit` and `recent` rules.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The generation last published.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.state().generation
    }

    /// The generation a worker runs.
    #[must_use]
    pub fn adopted(&self, worker: WorkerId) -> Generation {
        self.mailbox.adopted(worker)
    }

    /// Whether every worker runs what was last published.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.mailbox.all_adopted(self.state().generation)
    }

    /// The rules in force and what each of them (and each policy, `rule: None`) has counted since the daemon started.
    #[must_use]
    pub fn rules(&self, family: Family) -> (Arc<Rules>, HashMap<RuleRef, Counts>) {
        let (rules, by_ref, _) = self.rules_and_kept(family);
        (rules, by_ref)
    }

    /// The same, and what has met no rules since the daemon started, because its flow went on under earlier ones.
    #[must_use]
    pub fn rules_and_kept(&self, family: Family) -> (Arc<Rules>, HashMap<RuleRef, Counts>, Counts) {
        let (totals, rules) = {
            let state = self.state();
            (self.totals(&state, family), Arc::clone(state.rules.family(family)))
        };
        let by_ref = rules
            .ruleset
            .references()
            .map(|by| (by, totals.get(&key(&rules.ruleset, by)).copied().unwrap_or_default()))
            .collect();
        (rules, by_ref, totals.get(&CounterKey::Kept(family)).copied().unwrap_or_default())
    }

    /// What a family's rules and policies have counted since the daemon started, whether in force or not; only what has
    /// counted anything.
    #[must_use]
    pub fn counted(&self, family: Family) -> HashMap<CounterKey, Counts> {
        self.totals(&self.state(), family)
    }

    /// All that was counted since the daemon started.
    fn totals(&self, state: &State, family: Family) -> HashMap<CounterKey, Counts> {
        let mut totals = state.history.clone();
        let newest = self.mailbox.newest();
        for rules in distinct(state.retired.iter().chain([&newest]), family) {
            for (key, counts) in counted(rules) {
                add(totals.entry(key).or_default(), counts);
            }
        }
        totals
    }

    /// The rules in force.
    #[must_use]
    pub fn running(&self) -> BothRules {
        self.state().rules.clone()
    }

    /// The same, and the snapshot that has them.
    #[must_use]
    pub fn running_as_published(&self) -> (BothRules, Arc<Snapshot>) {
        let state = self.state();
        (state.rules.clone(), self.mailbox.newest())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_generation(&self) -> Generation {
        Generation(self.generation.0.wrapping_add(1).max(1))
    }
}

/// One family's rules in these snapshots, each once however many share them.
fn distinct<'a>(
    snapshots: impl IntoIterator<Item = &'a Arc<Snapshot>>,
    family: Family,
) -> Vec<&'a Arc<FamilyRules>> {
    let mut all: Vec<&Arc<FamilyRules>> = Vec::new();
    for rules in snapshots.into_iter().map(|snapshot| snapshot.rules(family)) {
        if !all.iter().any(|known| Arc::ptr_eq(known, rules)) {
            all.push(rules);
        }
    }
    all
}

/// What rules have counted so far, over all workers, by key.
fn counted(rules: &FamilyRules) -> HashMap<CounterKey, Counts> {
    let mut sums = HashMap::new();
    for counters in &rules.counters {
        let lines = rules.compiled.lines().zip(counters.totals());
        for (line, counts) in lines.filter(|(_, counts)| *counts != (0, 0)) {
            if let Some(line) = line {
                add(sums.entry(key(rules.compiled.ruleset(), line.by)).or_default(), counts);
            }
        }
        let kept = CounterKey::Kept(rules.compiled.ruleset().family);
        add(sums.entry(kept).or_default(), counters.kept());
    }
    sums
}

/// What the counter of a rule or policy is called.
#[must_use]
pub fn key(ruleset: &Ruleset, by: RuleRef) -> CounterKey {
    let chain = ruleset.chain(by.chain);
    match by.rule {
        Some(rule) => CounterKey::Rule(ruleset.family, chain.rules[rule as usize].id),
        None => CounterKey::Policy(ruleset.family, chain.table, chain.name.clone()),
    }
}

fn add(sum: &mut Counts, counts: Counts) {
    sum.0 += counts.0;
    sum.1 += counts.1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules_file::understand;

    fn rules(text: &str, family: Family) -> Rules {
        let text = format!("*filter\n{text}\nCOMMIT\n");
        Rules::from_loaded(understand(text.as_bytes(), "test", family, &[])).unwrap()
    }

    fn publisher() -> Publisher {
        let both = BothRules {
            v4: Arc::new(rules("-A FORWARD -p tcp -j ACCEPT", Family::V4)),
            v6: Arc::new(Rules::empty(Family::V6)),
        };
        let ports = vec!["left".to_owned(), "right".to_owned()];
        Publisher::new(both, Settings::default(), ports, 1, false).unwrap()
    }

    /// Packets counted by all rules and policies of a family.
    fn packets(publisher: &Publisher, family: Family) -> u64 {
        publisher.rules(family).1.values().map(|(packets, _)| packets).sum()
    }

    fn adopt(publisher: &Publisher) {
        publisher.mailbox.adopt(WorkerId(0), publisher.generation());
        publisher.reclaim();
    }

    #[test]
    fn a_setting_changes_without_new_rules_and_every_packet_counts_once() {
        let publisher = publisher();
        let first = publisher.mailbox.newest();
        first.v4.counters[0].count_lines(&[0], 100);
        publisher.set("udp_timeout", "7").unwrap();
        let second = publisher.mailbox.newest();
        assert!(Arc::ptr_eq(&first.v4, &second.v4) && Arc::ptr_eq(&first.v6, &second.v6));
        assert_eq!((second.generation, second.v4.since), (Generation(2), Generation(1)));
        assert_eq!(second.settings.track.udp_timeout, 7);
        assert_eq!(packets(&publisher, Family::V4), 1, "before workers have adopted it");
        adopt(&publisher);
        assert_eq!(packets(&publisher, Family::V4), 1, "and after");
        assert!(publisher.set("udp_timeout", "0").is_err());
        assert_eq!(publisher.generation(), Generation(2));
    }

    /// As they do while rules compile, which takes seconds where there are very many.
    #[test]
    fn nobody_who_asks_or_changes_a_setting_waits_for_rules() {
        let publisher = Arc::new(publisher());
        let compiling = publisher.changing();
        let (asking, (done, answered)) = (Arc::clone(&publisher), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            asking.set("udp_timeout", "7").unwrap();
            let all = (asking.generation(), asking.track_settings().udp_timeout, asking.is_settled());
            let counted = (asking.rules_and_kept(Family::V4).2, asking.counted(Family::V6).len());
            asking.reclaim();
            done.send((all, counted, asking.rules_since(Family::V4).0)).unwrap();
        });
        let answer = answered.recv_timeout(Duration::from_secs(20));
        assert_eq!(answer.unwrap(), ((Generation(2), 7, false), ((0, 0), 1), Generation(1)));
        drop(compiling);
        thread.join().unwrap();
    }

    #[test]
    fn other_settings_leave_rules_clock_and_room_as_they_are() {
        let publisher = publisher();
        let first = publisher.mailbox.newest();
        publisher.set("max", "100").unwrap();
        let answers = dataplane::worker::AnswerRate { per_sec: 7, burst: 7 };
        assert_eq!(publisher.reconfigure(Settings { answers, ..Settings::default() }), Generation(3));
        let third = publisher.mailbox.newest();
        assert!(Arc::ptr_eq(&first.v4, &third.v4) && Arc::ptr_eq(&first.settings.wall, &third.settings.wall));
        assert_eq!((third.settings.answers, third.settings.track.max.0), (answers, 100));
    }

    #[test]
    fn rules_of_one_family_leave_the_other_as_it_is() {
        let publisher = publisher();
        let first = publisher.mailbox.newest();
        first.v4.counters[0].count_lines(&[0], 100);
        first.v6.counters[0].count_lines(&[0], 100);
        publisher.set("tcp_loose", "0").unwrap();
        publisher.publish(Some(rules("-A FORWARD -p tcp -j ACCEPT", Family::V4)), None).unwrap();
        let third = publisher.mailbox.newest();
        assert!(!Arc::ptr_eq(&first.v4, &third.v4) && Arc::ptr_eq(&first.v6, &third.v6));
        assert_eq!((third.v4.since, third.v6.since), (Generation(3), Generation(1)));
        for _ in 0..2 {
            // Counted under the old rules, and by the same rule's name still.
            assert_eq!((packets(&publisher, Family::V4), packets(&publisher, Family::V6)), (1, 1));
            adopt(&publisher);
        }
        third.v4.counters[0].count_lines(&[0], 100);
        assert_eq!((packets(&publisher, Family::V4), packets(&publisher, Family::V6)), (2, 1));
    }

    #[test]
    fn what_is_kept_counts_beside_the_rules_and_outlives_them() {
        use dataplane::flow::Tenure;
        use dataplane::rules::PathId;
        let publisher = publisher();
        let rules = || Some(rules("-A FORWARD -p tcp -j DROP", Family::V4));
        publisher.publish_keeping(rules(), None).unwrap();
        let newest = publisher.mailbox.newest();
        assert_eq!(newest.v4.tenure(), Tenure::of(Generation(1)).after(Generation(2)));
        assert_eq!(newest.v6.tenure(), Tenure::of(Generation(1)));
        newest.v4.counters[0].count_path(PathId::KEPT, 100);
        publisher.set("udp_timeout", "7").unwrap();
        publisher.publish(rules(), None).unwrap();
        for _ in 0..2 {
            let kept = [Family::V4, Family::V6].map(|family| publisher.rules_and_kept(family).2);
            assert_eq!(kept, [(1, 100), (0, 0)]);
            assert_eq!(packets(&publisher, Family::V4), 0);
            adopt(&publisher);
        }
        assert!(!publisher.mailbox.newest().v4.tenure().keeps());
    }

    #[test]
    fn an_edit_is_met_at_once_and_the_whole_is_compiled_behind_it() {
        use crate::api::types::EditKind;
        use crate::iptables::edit::{Edit, Edited, edit};
        let publisher = Arc::new(publisher());
        let running = publisher.running().v4;
        let words = ["-p", "udp", "-j", "DROP"].map(str::to_owned);
        let wanted = Edit { kind: EditKind::Add, table: Table::Filter, chain: "FORWARD", words: &words };
        let read = |text: &[u8]| understand(text, "test", Family::V4, &[]);
        let Edited { ruleset, file, steps } = edit(&running.ruleset, &running.file, wanted, read).unwrap();
        let rules = Rules { ruleset: Arc::new(ruleset), file: Arc::new(file) };
        let generation = publisher.publish_edited(rules, &steps.unwrap()).unwrap();
        assert_eq!(generation, Generation(2));
        publisher.wait_until_whole();
        let newest = publisher.mailbox.newest();
        assert_eq!((newest.generation, newest.v4.compiled.is_edited()), (Generation(3), false));
        assert_eq!(newest.v4.compiled.ruleset().rules().count(), 2);
    }

    /// Whether rules of a generation let a packet pass.
    fn passes(publisher: &Publisher) -> bool {
        use dataplane::rules::conn::{Marks, NoFlows};
        use dataplane::rules::model::{CtState, Verdict};
        use dataplane::rules::rate::Rates;
        use dataplane::rules::{Facts, Matched};
        let newest = publisher.mailbox.newest();
        let packet = dataplane::packet::Packet::EMPTY;
        let port = dataplane::ids::PortId(0);
        let facts = Facts {
            packet: &packet,
            bytes: &[],
            now: Now::from_secs(5),
            rates: Rates::Live(&newest.settings.wall),
            ct_state: CtState::New,
            conn: None,
            flows: &NoFlows,
            notes: &dataplane::rules::log::NoNotes,
            mtu: 1500,
            is_raw: false,
            ingress: port,
            egress: port.peer(),
        };
        let decision = newest.v4.compiled.classify(&facts, &mut Marks::default(), &mut Matched::default());
        decision.verdict == Verdict::Accept
    }

    #[test]
    fn what_rules_have_counted_outlives_a_load_of_the_same_rules() {
        let table = "-A FORWARD -m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-name t -j ACCEPT";
        let quicker = table.replace("burst 2", "burst 3");
        let list = "-A FORWARD -m recent ! --rcheck --hitcount 2 --name t -m recent --set --name t -j ACCEPT";
        let limit = "-A FORWARD -m limit --limit 1/hour --limit-burst 2 -j ACCEPT";
        let other = "-A FORWARD -p tcp -j ACCEPT\n";
        for rule in [table, limit, list] {
            let publisher = publisher();
            let load = |text: &str| {
                let text = format!(":FORWARD DROP\n{text}");
                publisher.publish(Some(rules(&text, Family::V4)), None).unwrap();
                adopt(&publisher);
            };
            load(rule);
            assert!(passes(&publisher), "{rule}");
            load(&format!("{other}{rule}"));
            assert!(passes(&publisher) && !passes(&publisher), "{rule}: one was left");
            load(rule);
            assert!(!passes(&publisher), "{rule}");
            load(other);
            load(rule);
            assert!(passes(&publisher), "{rule}: nobody remembers it");
        }
        let publisher = publisher();
        for (text, wanted) in [(table, 2), (&quicker, 3)] {
            let text = format!(":FORWARD DROP\n{text}");
            publisher.publish(Some(rules(&text, Family::V4)), None).unwrap();
            assert_eq!(
                (0..9).filter(|_| passes(&publisher)).count(),
                wanted,
                "another limit is another table"
            );
        }
        let mixed =
            format!("{table}\n{}", table.replace("1/hour", "1mb/s").replace(" --hashlimit-burst 2", ""));
        let error = publisher.publish(Some(rules(&mixed, Family::V4)), None).unwrap_err();
        assert!(error.to_string().contains("--hashlimit-name t"), "{error}");
    }
}
