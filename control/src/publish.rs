//! Publication of rules: compiles off the path, offers the result to the workers, and keeps the rule counters of what
//! it replaced, by stable rule id, so that a reload loses no count.
//!
//! Control threads only. A replaced snapshot stays here until every worker has moved on; then its counts are folded
//! into the history and it is freed, here and not on a worker.

use crate::rules_file::Rules;
use dataplane::flow::{SettingError, TrackSettings};
use dataplane::ids::{Generation, WorkerId};
use dataplane::packet::Family;
use dataplane::rules::model::{RuleId, RuleRef, Ruleset, Table};
use dataplane::rules::{CompileError, Compiled};
use dataplane::worker::{FamilyRules, Mailbox, Settings, Snapshot};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Packets and bytes (IP lengths, as iptables counts them).
pub type Counts = (u64, u64);

/// What a counter belongs to, across reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum CounterKey {
    Rule(Family, RuleId),
    Policy(Family, Table, String),
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
}

/// Compiles and publishes.
#[derive(Debug)]
pub struct Publisher {
    mailbox: Arc<Mailbox>,
    workers: usize,
    ports: Vec<String>,
    track_always: bool,
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
        let first = compile(&rules, &settings, &ports, workers, track_always, generation)?;
        let mailbox = Arc::new(Mailbox::new(first, workers));
        let state = State { rules, settings, generation, retired: Vec::new(), history: HashMap::new() };
        Ok(Self { mailbox, workers, ports, track_always, state: Mutex::new(state) })
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
        let mut state = self.state();
        let rules = BothRules {
            v4: v4.map_or_else(|| Arc::clone(&state.rules.v4), Arc::new),
            v6: v6.map_or_else(|| Arc::clone(&state.rules.v6), Arc::new),
        };
        let generation = Generation(state.generation.0.wrapping_add(1).max(1));
        let next =
            compile(&rules, &state.settings, &self.ports, self.workers, self.track_always, generation)?;
        state.retired.push(self.mailbox.publish(next));
        state.rules = rules;
        state.generation = generation;
        Ok(generation)
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
        let generation = Generation(state.generation.0.wrapping_add(1).max(1));
        let (rules, ports) = (&state.rules, &self.ports);
        let next = compile(rules, &settings, ports, self.workers, self.track_always, generation);
        let next = next.expect("rules that were compiled once compile again");
        state.retired.push(self.mailbox.publish(next));
        state.settings = settings;
        state.generation = generation;
        Ok(generation)
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
        for snapshot in retired.drain(..) {
            for family in [Family::V4, Family::V6] {
                for (key, counts) in counted(&snapshot, family) {
                    add(history.entry(key).or_default(), counts);
                }
            }
        }
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
        let state = self.state();
        let mut totals = state.history.clone();
        let newest = self.mailbox.newest();
        for snapshot in state.retired.iter().chain([&newest]) {
            for (key, counts) in counted(snapshot, family) {
                add(totals.entry(key).or_default(), counts);
            }
        }
        let rules = Arc::clone(state.rules.family(family));
        let by_ref = rules
            .ruleset
            .references()
            .map(|by| (by, totals.get(&key(&rules.ruleset, by)).copied().unwrap_or_default()))
            .collect();
        (rules, by_ref)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compile(
    rules: &BothRules,
    settings: &Settings,
    ports: &[String],
    workers: usize,
    track_always: bool,
    generation: Generation,
) -> Result<Snapshot, CompileError> {
    let family = |rules: &Arc<Rules>| -> Result<FamilyRules, CompileError> {
        Ok(FamilyRules::new(Compiled::new(Arc::clone(&rules.ruleset), ports)?, workers, track_always))
    };
    Ok(Snapshot { generation, v4: family(&rules.v4)?, v6: family(&rules.v6)?, settings: settings.clone() })
}

/// What one snapshot has counted so far, over all workers, by key.
fn counted(snapshot: &Snapshot, family: Family) -> HashMap<CounterKey, Counts> {
    let rules = snapshot.rules(family);
    let mut sums = HashMap::new();
    for counters in &rules.counters {
        for (line, counts) in rules.compiled.lines().iter().zip(counters.totals()) {
            add(sums.entry(key(rules.compiled.ruleset(), line.by)).or_default(), counts);
        }
    }
    sums
}

fn key(ruleset: &Ruleset, by: RuleRef) -> CounterKey {
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
