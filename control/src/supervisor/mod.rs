//! The daemon: puts the gateway together, watches over it, and takes it apart again.
//!
//! The calling thread is the control thread. It prepares the NICs, compiles the rules, opens the sockets, starts one
//! pinned thread per worker, the ager and the API, and then looks around fifty times a second: signals, links, workers
//! that ended, replaced rules to free. Taking apart happens in the reverse order, on every way out, panics included:
//! workers stop, programs are detached, NICs are put back.

mod backend;
mod captures;
mod frames;
mod ipfix;
mod notes;
mod plane;
mod ports;
mod rss;
mod wall;
mod watch;
mod watchdog;

use crate::api::access::GroupNames;
use crate::api::backend::ApplyError;
use crate::api::limits::Limits;
use crate::api::listener::{Place, Serves};
use crate::api::server::{ServeError, Server};
use crate::config::{Config, FwdArgs, Loaded, Rebalance, Tracking};
use crate::labels::{LabelNames, LabelsError};
use crate::logging::LogSwitch;
use crate::net::NicError;
use crate::publish::{BothRules, Publisher};
use crate::reproducer;
use crate::rules_file::{self, Named, Rules};
use crate::sets::orders::Orders;
use crate::sets::store::Staged;
use crate::sets::{self, Store};
use crate::system::privileges::{self, Target};
use crate::system::{capabilities, signals::Signals};
use crate::web::Access;
use backend::LiveBackend;
use captures::Captures;
use dataplane::clock::Now;
use dataplane::flow::Policies;
use dataplane::packet::Family;
use dataplane::sets::Slot;
use dataplane::worker::{AnswerRate, L2Policy, Settings};
use dataplane::xsk::XskError;
use ipfix::Exporter;
use notes::NoteLog;
use plane::Plane;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};
use watchdog::Watchdog;

/// Why the daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The process lacks rights.
    #[error("{0}")]
    Rights(String),
    /// The rules file is wrong or not supported; every finding was printed.
    #[error("{file} cannot be used: nothing was started")]
    Rules {
        /// Which file.
        file: String,
    },
    /// The names of labels are wrong or cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// The rules do not compile.
    #[error("the rules cannot be compiled: {0}")]
    Compile(String),
    /// A NIC cannot be used.
    #[error(transparent)]
    Nic(#[from] NicError),
    /// XDP cannot be used.
    #[error(transparent)]
    Xdp(#[from] bpf::AttachError),
    /// AF_XDP cannot be used.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// The configuration asks for what this machine does not have.
    #[error("{0}")]
    Layout(String),
    /// The API cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker ended that should not have.
    #[error(
        "worker {0} has stopped: the gateway is taken down. This is a defect; the message above says where"
    )]
    WorkerEnded(u8),
}

/// How often the control thread looks around: a link that comes up is used this much later at most.
const LOOK_AROUND: Duration = Duration::from_millis(20);
/// How often loads are looked at where flows move by themselves, and for how long.
const REBALANCE_EVERY: Duration = Duration::from_secs(30);
const REBALANCE_LOOK: Duration = Duration::from_secs(5);
/// How long workers may take to poll for the first time.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the daemon until it is told to stop. `args` are what `loaded` was loaded from: a reload does so again.
///
/// # Errors
/// Whatever keeps it from starting, or a worker that died. The NICs are as they were by then.
pub fn run(args: FwdArgs, loaded: &Loaded, log: LogSwitch) -> Result<(), Fatal> {
    let config = &loaded.config;
    let system = |what| move |source| Fatal::System { what, source };
    let signals = Signals::catch().map_err(system("catching signals"))?;
    if let Some(missing) = capabilities::missing() {
        return Err(Fatal::Rights(missing));
    }
    let become_user = privileges::target(&config.privileges.user).map_err(Fatal::Rights)?;
    let nics: Vec<_> = config.wires.iter().flat_map(|wire| [wire.left.clone(), wire.right.clone()]).collect();
    let sets = Arc::new(Store::new(&nics));
    load_sets(config, &sets)?;
    let slots = sets.slots();
    let labels = LabelNames::load(&config.rules.labels)?;
    let rules = BothRules {
        v4: Arc::new(load_rules(config, Family::V4, &slots, &labels)?),
        v6: Arc::new(load_rules(config, Family::V6, &slots, &labels)?),
    };
    let mut plane = Plane::build(config, |ports, workers| {
        let track_always = config.flows.tracking == Tracking::Always;
        let made = Publisher::new(rules.clone(), settings(config), ports.to_vec(), workers, track_always);
        made.map_err(|error| {
            Fatal::Compile(reproducer::describe(&error, &config.state.dir, &[&rules.v4, &rules.v6]))
        })
    })?;
    let groups = GroupNames { read: config.api.group.clone(), write: config.api.write_group.clone() };
    let bound = Server::bind(&config.api.socket, groups, &places(config))?;
    give_up_rights(config, args.config.as_deref(), become_user)?;
    plane.leave_workers_cores();
    sets.start_clock(plane.started);
    let asks = std::mem::take(&mut plane.set_asks);
    let waker = Arc::clone(&plane.sets_waker);
    let orders =
        Orders::start(Arc::clone(&sets), asks, waker).map_err(system("starting the thread for sets"))?;
    let backend = Arc::new(LiveBackend::new(args, loaded, log, &plane, Arc::clone(&sets), labels));
    backend.note_sets();
    let server = Server::serve(
        bound,
        Arc::clone(&backend) as _,
        Limits::default(),
        Access::socket(&config.web.hosts.0, config.web.write),
    )?;
    plane.publisher.follow_wall_clock(Now::since(plane.started));
    plane.start(config)?;
    backend.attached(&plane);
    plane.wait_until_polling(START_TIMEOUT)?;
    let mut links = watch::Links::new(&plane);
    // Bringing a link up takes the kernel a moment: what was seen while building may be out of date.
    links.look();
    let exporter = Exporter::start(&config.ipfix, &plane, &backend)?;
    announce_ready();
    let ended = watch(&plane, &backend, &sets, &signals, &mut links);
    drop(links);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    drop(server);
    drop(exporter);
    drop(plane);
    drop(orders);
    info!("stopped; the NICs are as they were");
    ended
}

/// Becomes the user that the daemon is to run as, or stays, and gives up every right that is not needed any more. Before the
/// first thread is started.
fn give_up_rights(config: &Config, source: Option<&Path>, mut target: Target) -> Result<(), Fatal> {
    if let Target::Become(identity) = &target
        && let Err(why) = privileges::hand_over(config, identity)
    {
        if config.privileges.user != "auto" {
            return Err(Fatal::Rights(why));
        }
        target = Target::Stay(Some(format!("the daemon goes on as root, with fewer rights: {why}")));
    }
    match &target {
        Target::Stay(None) => {}
        Target::Stay(Some(why)) => warn!("{why}"),
        Target::Become(identity) => {
            privileges::shortcomings(config, source, identity).iter().for_each(|why| warn!("{why}"));
        }
    }
    let failed = |source| Fatal::System { what: "giving up rights", source };
    privileges::drop_all_but_needed(&target).map_err(failed)
}

/// Where the API listens on TCP.
fn places(config: &Config) -> Vec<Place> {
    let metrics = config.metrics.listen.0.map(|addr| Place {
        addr,
        setting: "metrics.listen",
        serves: Serves::Metrics,
    });
    let web = config.web.listen.0.map(|addr| {
        if !addr.ip().to_canonical().is_loopback() {
            warn!(
                "the web page is on {addr}: whoever reaches it sees rules, flows and counters, unencrypted and without a password; \
                 web.listen = \"127.0.0.1:{}\" keeps it on this machine",
                addr.port()
            );
        }
        Place { addr, setting: "web.listen", serves: Serves::Web(Access::page(&config.web.hosts.0)) }
    });
    metrics.into_iter().chain(web).collect()
}

/// Looks around until it is time to stop.
fn watch(
    plane: &Plane,
    backend: &Arc<LiveBackend>,
    sets: &Store,
    signals: &Signals,
    links: &mut watch::Links<'_>,
) -> Result<(), Fatal> {
    let mut log = backend.configured(|config| config.log.clone());
    let mut notes = NoteLog::new(Captures::new(&log));
    let mut watchdog = Watchdog::new(plane);
    let mut rollback: Option<JoinHandle<()>> = None;
    let mut rebalanced: (Instant, Option<JoinHandle<()>>) = (Instant::now(), None);
    while !signals.stop_asked() {
        if let Some(worker) = plane.ended_worker() {
            error!("worker {worker} has ended");
            return Err(Fatal::WorkerEnded(worker));
        }
        if signals.take_reload() {
            reload(backend, sets);
        }
        let log_now = backend.configured(|config| config.log.clone());
        if log_now != log {
            notes.write_to(Captures::new(&log_now));
            log = log_now;
        }
        if backend.is_overdue() && rollback.as_ref().is_none_or(JoinHandle::is_finished) {
            // Compiling takes its time, and links and signals cannot wait.
            let backend = Arc::clone(backend);
            let thread = std::thread::Builder::new().name("rollback".to_owned());
            let thread = thread.spawn(move || backend.roll_back_overdue());
            rollback = Some(thread.map_err(|source| Fatal::System { what: "starting a thread", source })?);
        }
        watchdog.look();
        if backend.configured(|config| config.workers.rebalance) == Rebalance::Auto
            && rebalanced.0.elapsed() >= REBALANCE_EVERY
            && rebalanced.1.as_ref().is_none_or(JoinHandle::is_finished)
        {
            let backend = Arc::clone(backend);
            let thread = std::thread::Builder::new().name("rebalance".to_owned());
            let thread = thread.spawn(move || backend.rebalance_if_uneven(REBALANCE_LOOK));
            let thread = thread.map_err(|source| Fatal::System { what: "starting a thread", source })?;
            rebalanced = (Instant::now(), Some(thread));
        }
        links.look();
        plane.publisher.reclaim();
        plane.publisher.follow_wall_clock(Now::since(plane.started));
        notes.look(plane);
        std::thread::sleep(LOOK_AROUND);
    }
    notes.look(plane);
    Ok(())
}

/// SIGHUP: reads the configuration, the rules files it names and the names of labels again. Sets that are there stay as they
/// are, further ones are made. Anything wrong is logged, and then nothing has changed.
fn reload(backend: &LiveBackend, sets: &Store) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
    // A family that has lost its file has lost its rules.
    let had = backend.configured(|config| (config.rules.v4.is_some(), config.rules.v6.is_some()));
    let load = |config: &Config| {
        let staged = config.rules.sets.as_deref().map(|path| stage_sets(path, sets)).transpose()?;
        let labels = LabelNames::load(&config.rules.labels)?;
        let slots = staged.as_ref().map_or_else(|| sets.slots(), |staged| sets.slots_with(staged));
        let read = |is_meant: bool, family| {
            is_meant.then(|| load_rules(config, family, &slots, &labels)).transpose()
        };
        let v4 = read(had.0 || config.rules.v4.is_some(), Family::V4)?;
        let v6 = read(had.1 || config.rules.v6.is_some(), Family::V6)?;
        Ok::<_, Fatal>((v4, v6, staged, labels))
    };
    let done = backend.reload_config("SIGHUP", true, |config| {
        let (v4, v6, staged, labels) = load(config).map_err(Reload::Rules)?;
        let report = backend.reload(v4, v6, staged, labels)?;
        info!("SIGHUP: rules read again, generation {}", report.generation);
        Ok::<_, Reload>(())
    });
    let refused = match done {
        Ok(report) => {
            backend.note_reload(&report);
            None
        }
        Err(Reload::Rules(fatal)) => Some(fatal.to_string()),
        Err(Reload::Refused(refused)) => {
            for diagnostic in &refused.diagnostics {
                error!("SIGHUP: {}", diagnostic.rendered);
            }
            Some(refused.to_string())
        }
    };
    if let Some(why) = refused {
        error!("SIGHUP: {why}; the old rules stay in force");
        backend.note_refused_reload(why);
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Why a reload changed nothing.
enum Reload {
    /// Files of rules, sets or labels.
    Rules(Fatal),
    /// The configuration, or others were at it.
    Refused(ApplyError),
}

impl From<ApplyError> for Reload {
    fn from(refused: ApplyError) -> Self {
        Self::Refused(refused)
    }
}

/// Reads rules and prints every finding; without a file, the empty table of a kernel without rules.
fn load_rules(
    config: &Config,
    family: Family,
    sets: &BTreeMap<String, Arc<Slot>>,
    labels: &LabelNames,
) -> Result<Rules, Fatal> {
    let path = if family == Family::V4 { &config.rules.v4 } else { &config.rules.v6 };
    let Some(path) = path.as_deref() else {
        if family == Family::V6 {
            warn!("no IPv6 rules (--rules6): IPv6 is accepted, as in a kernel without ip6tables rules");
        }
        return Ok(Rules::empty(family));
    };
    let named = Named { policies: &config.rules.timeout_policies, sets, labels };
    let loaded = rules_file::load_file(path, family, named, &mut io::stderr());
    loaded.map_err(unwritten)?.map_err(|_| unusable(path))
}

/// Makes the sets of the configured file and prints every finding.
fn load_sets(config: &Config, sets: &Store) -> Result<(), Fatal> {
    let Some(path) = config.rules.sets.as_deref() else { return Ok(()) };
    let loaded = sets::file::load(sets, path, &mut io::stderr()).map_err(unwritten)?;
    if loaded { Ok(()) } else { Err(unusable(path)) }
}

/// Makes aside those that are not there yet.
fn stage_sets(path: &Path, sets: &Store) -> Result<Staged, Fatal> {
    sets::file::stage_new(sets, path, &mut io::stderr()).map_err(unwritten)?.ok_or_else(|| unusable(path))
}

fn unwritten(source: io::Error) -> Fatal {
    Fatal::System { what: "writing to standard error", source }
}

fn unusable(path: &Path) -> Fatal {
    Fatal::Rules { file: path.display().to_string() }
}

/// What workers are to know besides the rules.
pub(crate) fn settings(config: &Config) -> Settings {
    use crate::config::{Full, L2Pass};
    use dataplane::flow::FullPolicy;
    let l2 = match &config.l2.pass {
        L2Pass::All => L2Policy::All,
        L2Pass::Only { ethertypes, llc } => {
            let llc = llc.then_some(L2Policy::LLC);
            L2Policy::Only(llc.into_iter().chain(ethertypes.iter().copied()).collect())
        }
    };
    let answers =
        AnswerRate { per_sec: config.reject.icmp_msgs_per_sec, burst: config.reject.icmp_msgs_burst };
    let idle = Some(plane::idle_policy(config.workers.idle));
    let mut settings = Settings { l2, answers, idle, ..Settings::default() };
    for (policy, wire) in settings.full.iter_mut().zip(&config.wires) {
        *policy = match wire.full {
            Full::DropNew => FullPolicy::DropNew,
            Full::EvictHalfOpen => FullPolicy::EvictHalfOpen,
            Full::PassUntracked => FullPolicy::PassUntracked,
        };
    }
    for (name, value) in config.conntrack.iter() {
        let set = settings.track.set(name, &value.to_string());
        debug_assert!(set.is_ok(), "every name of the configuration is one of the tracker's");
    }
    let policies = Policies::new(config.rules.timeout_policies.clone().into(), &settings.track);
    settings.policies = policies.expect("policies name settings of the tracker, within their ranges");
    settings
}

/// Says that frames flow: a line on standard output, and a word to systemd.
fn announce_ready() {
    let mut out = io::stdout();
    // Nobody may be listening; the gateway runs all the same.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!("ready");
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::flow::TrackSettings;

    #[test]
    fn configuration_and_tracker_know_the_same_settings() {
        let config = Config::default();
        let mut track = TrackSettings::default();
        for (name, value) in config.conntrack.iter() {
            track.set(name, &value.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(track, TrackSettings::default(), "the defaults are the same");
        // At start as many as the tables are made for: that is `flows.max`.
        for (name, _) in track.iter().filter(|(name, _)| *name != "max") {
            assert!(config.conntrack.get(name).is_some(), "{name} cannot be configured");
        }
    }
}
