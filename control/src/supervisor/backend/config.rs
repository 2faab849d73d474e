//! The configuration while the daemon runs: what it works with, where each setting comes from, and changes of it. API
//! threads and the control thread, one change at a time.
//!
//! A change is looked through as a whole first: every problem is found, and whatever could fail has been tried, before the
//! first setting changes. So either all that can change does, or nothing. A reload makes everything what file and command
//! line say, changes at run time included, but for what needs a restart: that stays, and is told.

use super::LiveBackend;
use crate::api::backend::ApplyError;
use crate::api::types::{ConfigReport, ConfigView, Diagnostic, ErrorKind, SettingChange, SettingView};
use crate::audit::{Record, Who};
use crate::config::{Change, Config, ConfigErrors, Difference, FwdArgs, Loaded, Origin, Origins};
use crate::logging::LogSwitch;
use crate::supervisor::settings;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::info;

/// The configuration of a running daemon.
#[derive(Debug)]
pub(super) struct Live {
    args: FwdArgs,
    log: LogSwitch,
    running: Mutex<Running>,
    /// One change at a time, from looking it through to its end.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Running {
    config: Config,
    origins: Origins,
    /// What file and command line say otherwise, for the next start.
    waiting: Vec<Difference>,
}

/// A change that is being made, the only one: what it was made from is still what runs when it ends.
pub(super) struct OneChange<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

/// A change that is right and possible.
struct Prepared {
    next: Config,
    origins: Origins,
    changed: Vec<Difference>,
    waiting: Vec<Difference>,
}

impl Live {
    pub(super) fn new(args: FwdArgs, loaded: &Loaded, log: LogSwitch) -> Self {
        let Loaded { config, origins } = loaded.clone();
        let running = Running { config, origins, waiting: Vec::new() };
        Self { args, log, running: Mutex::new(running), changing: Mutex::new(()) }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to change settings, once nobody else does.
    pub(super) fn change(&self) -> OneChange<'_> {
        OneChange(self.changing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a connection tracking setting was changed by its own command.
    pub(super) fn note(&self, _one: &OneChange<'_>, name: &str, value: u32, by: &str) {
        let mut running = self.running();
        let set = format!("conntrack.{name}={value}");
        // What has no place in the file (`max`) is not the configuration's.
        if let Ok(Loaded { config, .. }) = running.config.with_settings(&[set]) {
            running.config = config;
            running.origins.set(&format!("conntrack.{name}"), at_run_time(by));
        }
    }

    fn prepare_set(&self, set: &[String], by: &str) -> Result<Prepared, ApplyError> {
        let running = self.running();
        let Loaded { config, origins } =
            running.config.with_settings(set).map_err(|errors| refused(&errors))?;
        let changed = running.config.differences(&config);
        check_hot(&changed)?;
        let mut next_origins = running.origins.clone();
        for name in origins.names() {
            next_origins.set(name, at_run_time(by));
        }
        Ok(Prepared { next: config, origins: next_origins, changed, waiting: running.waiting.clone() })
    }

    fn prepare_reload(&self, loaded: Loaded, with_rules: bool) -> Prepared {
        let Loaded { config, mut origins } = loaded;
        let running = self.running();
        let differences = running.config.differences(&config);
        let mut next = running.config.clone();
        for Difference { name, change, .. } in &differences {
            match change {
                Change::Hot => next.take_over(name, &config),
                Change::Rules if with_rules => next.take_over(name, &config),
                Change::Rules | Change::Restart => origins.set(name, running.origins.get(name)),
            }
        }
        let (waiting, changed) = differences.into_iter().partition(|one| one.change == Change::Restart);
        Prepared { next, origins, changed, waiting }
    }
}

impl LiveBackend {
    /// Something of the configuration in force.
    pub(in crate::supervisor) fn configured<T>(&self, of: impl FnOnce(&Config) -> T) -> T {
        of(&self.live.running().config)
    }

    pub(super) fn config_view(&self) -> ConfigView {
        let running = self.live.running();
        let settings = running.config.items().into_iter().map(|item| SettingView {
            origin: running.origins.get(&item.name),
            name: item.name,
            value: item.value,
            default: item.default,
            change: item.change,
            takes: item.takes,
            about: item.doc.to_owned(),
        });
        ConfigView {
            file: self.live.args.config.as_ref().map(|file| file.display().to_string()),
            settings: settings.collect(),
            waiting: told(&running.waiting),
        }
    }

    /// Changes settings, until the daemon ends or its file is read again.
    pub(super) fn set_config(&self, set: &[String], by: &str) -> Result<ConfigReport, ApplyError> {
        let one = self.live.change();
        let prepared = self.live.prepare_set(set, by)?;
        self.look_through(&prepared)?;
        Ok(self.commit(&one, prepared, by))
    }

    /// Reads the file again; what says where rules come from stays unless they are read again, too. `between` is done once
    /// everything is known to be right, with the configuration to come; if it fails, nothing has changed.
    pub(in crate::supervisor) fn reload_config<E: From<ApplyError>>(
        &self,
        by: &str,
        with_rules: bool,
        between: impl FnOnce(&Config) -> Result<(), E>,
    ) -> Result<ConfigReport, E> {
        let one = self.live.change();
        let loaded = Config::load_with_origins(&self.live.args).map_err(|errors| refused(&errors))?;
        let prepared = self.live.prepare_reload(loaded, with_rules);
        self.look_through(&prepared)?;
        between(&prepared.next)?;
        Ok(self.commit(&one, prepared, by))
    }

    /// Writes down in the audit log what SIGHUP changed of the settings; of the rules that is done already.
    pub(in crate::supervisor) fn note_reload(&self, report: &ConfigReport) {
        if report.changed.is_empty() {
            return;
        }
        let values = |of: fn(&SettingChange) -> &Value| {
            Value::Object(report.changed.iter().map(|one| (one.name.clone(), of(one).clone())).collect())
        };
        self.audit.write(Record {
            who: Who::daemon("SIGHUP"),
            action: "config reload".to_owned(),
            before: values(|one| &one.before),
            after: values(|one| &one.after),
            ..Record::default()
        });
    }

    /// Tries what may fail.
    fn look_through(&self, prepared: &Prepared) -> Result<(), ApplyError> {
        let is_new = |name: &str| prepared.changed.iter().any(|one| one.name == name);
        if is_new("log.nflog_dir")
            && let Some(dir) = &prepared.next.log.nflog_dir
        {
            try_dir(dir).map_err(|error| {
                let message = format!(
                    "log.nflog_dir: {} cannot be written to by the daemon: {error}; nothing was changed",
                    dir.display()
                );
                ApplyError::new(ErrorKind::BadRequest, message)
            })?;
        }
        Ok(())
    }

    /// Puts a change into effect. Nothing here can fail.
    fn commit(&self, _one: &OneChange<'_>, prepared: Prepared, by: &str) -> ConfigReport {
        let Prepared { next, origins, changed, waiting } = prepared;
        if changed.iter().any(|one| is_of_workers(&one.name)) {
            self.publisher.reconfigure(settings(&next));
            self.hub.enable(self.publisher.track_settings().events.0 != 0);
        }
        for Difference { name, change, before, after } in &changed {
            match change {
                Change::Rules => info!("{name} is {after} now (was {before}), from the next SIGHUP on: {by}"),
                _ => info!("{name} is {after} now (was {before}): {by}"),
            }
            match name.as_str() {
                "log.level" => self.live.log.set(next.log.level),
                "state.history_max" => self.keep_history(next.state.history_max),
                _ => {}
            }
        }
        for Difference { name, before, after, .. } in &waiting {
            info!("{name} is {after} in the configuration and {before} here: it needs a restart");
        }
        let report = ConfigReport { changed: told(&changed), waiting: told(&waiting) };
        *self.live.running() = Running { config: next, origins, waiting };
        report
    }
}

/// Whether workers have to know of it.
fn is_of_workers(name: &str) -> bool {
    ["conntrack.", "l2.", "reject.", "wire.", "workers.idle"].iter().any(|begin| name.starts_with(begin))
}

fn told(differences: &[Difference]) -> Vec<SettingChange> {
    let one = |difference: &Difference| {
        let Difference { name, change, before, after } = difference.clone();
        SettingChange { name, change, before, after }
    };
    differences.iter().map(one).collect()
}

fn at_run_time(by: &str) -> Origin {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Origin::Runtime { by: by.to_owned(), at_us: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX) }
}

/// Whether all of these can change by themselves, while the daemon runs.
fn check_hot(changed: &[Difference]) -> Result<(), ApplyError> {
    for (stuck, needs, instead) in [
        (Change::Restart, "a restart", "and restart fwd"),
        // The signal reads the file again first, and puts back what it says.
        (Change::Rules, "the rules to be read again", "and send SIGHUP, or load rules with `fwctl apply`"),
    ] {
        let one = |one: &Difference| format!("{} ({} here, {} wanted)", one.name, one.before, one.after);
        let each: Vec<String> = changed.iter().filter(|one| one.change == stuck).map(one).collect();
        if !each.is_empty() {
            let message = format!(
                "needs {needs}: {}. Nothing was changed: write it into the configuration file {instead}",
                each.join(", ")
            );
            return Err(ApplyError::new(ErrorKind::Unsupported, message));
        }
    }
    Ok(())
}

/// Everything that is wrong, as an answer.
fn refused(errors: &ConfigErrors) -> ApplyError {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let one = |problem: &crate::config::Problem| {
        let (file, line, column) = errors.place(problem).unwrap_or(("", 0, 0));
        Diagnostic {
            file: file.to_owned(),
            line: number(line),
            column: number(column),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
            rendered: errors.render_one(problem, false),
        }
    };
    let diagnostics: Vec<Diagnostic> = errors.problems().iter().map(one).collect();
    let message = format!("{} problem(s) in the configuration: nothing was changed", diagnostics.len());
    ApplyError { kind: ErrorKind::BadRequest, message, diagnostics }
}

/// Whether files can be made in a directory, which is made if it is not there.
fn try_dir(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let probe = dir.join(".palisade-probe");
    fs::write(&probe, b"")?;
    fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(set: &[&str]) -> Loaded {
        let set: Vec<String> = set.iter().map(|&one| one.to_owned()).collect();
        Config::default().with_settings(&set).unwrap()
    }

    fn live(set: &[&str]) -> Live {
        Live::new(FwdArgs::default(), &loaded(set), LogSwitch::none())
    }

    #[test]
    fn where_rules_come_from_is_not_set_by_itself() {
        let live = live(&["rules.v4=one"]);
        for (set, needs) in [("rules.v4=two", "needs the rules"), ("flows.max=5000", "needs a restart")] {
            let refused = live.prepare_set(&[set.to_owned()], "me").err().unwrap();
            assert_eq!(refused.kind, ErrorKind::Unsupported);
            assert!(refused.message.starts_with(needs), "{refused}");
        }
        let prepared = live.prepare_set(&["udp_timeout=5".to_owned()], "me").unwrap();
        assert_eq!(prepared.changed.len(), 1);
    }

    #[test]
    fn a_reload_without_rules_leaves_where_they_come_from() {
        let live = live(&["rules.v4=one", "rules.v6=six"]);
        let next = |with_rules| live.prepare_reload(loaded(&["rules.v4=two", "udp_timeout=5"]), with_rules);
        let Prepared { next: config, changed, .. } = next(false);
        assert_eq!((config.rules.v4, config.rules.v6), (Some("one".into()), Some("six".into())));
        assert_eq!((config.conntrack.get("udp_timeout"), changed.len()), (Some(5), 3), "told all the same");
        let config = next(true).next;
        assert_eq!((config.rules.v4, config.rules.v6), (Some("two".into()), None));
    }
}
