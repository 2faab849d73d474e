//! What the daemon is told to do: command line, configuration file and `--set`, checked as a whole.
//!
//! Control thread only, at start. Precedence: built-in defaults, then `--config FILE`, then the named options
//! (`--left`, `--rules`, ...), then `--set`. Every problem of every source is found in one go and shown with its
//! place. The list of settings in [`settings`] is the only one: the file reader, `--set`, the hints for misspelled
//! names and [`Config::default_toml`] all come from it.
//!
//! Invariant: a [`Config`] that [`Config::load`] returned is within all limits and free of contradictions that can be
//! seen without asking the kernel (whether a NIC exists is not).

mod args;
mod check;
mod default_file;
mod differ;
mod endpoint;
mod error;
mod field;
mod file_check;
mod hints;
pub mod listing;
mod load;
pub mod names;
mod origin;
mod schema;
pub mod settings;
#[cfg(test)]
mod tests;
mod timeout_policy;
mod value;

pub use args::FwdArgs;
pub use differ::Difference;
pub use endpoint::{HostNames, Listen};
pub use error::{ConfigErrors, Problem};
pub use file_check::{Checked, check_file};
pub use origin::{Loaded, Origin, Origins};
pub use schema::schema;
pub use settings::Change;

use dataplane::flow::TimeoutPolicy;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The wires, in the order given. Never empty once loaded.
    pub wires: Vec<WireConfig>,
    /// Where the rules are.
    pub rules: RulesConfig,
    /// The polling threads.
    pub workers: WorkersConfig,
    /// How frames get in and out.
    pub xdp: XdpConfig,
    /// The memory frames live in.
    pub umem: UmemConfig,
    /// The flow table.
    pub flows: FlowsConfig,
    /// Connection tracking, named as netfilter's sysctls are.
    pub conntrack: ConntrackConfig,
    /// Frames that are not IP.
    pub l2: L2Config,
    /// Answers to rejected packets.
    pub reject: RejectConfig,
    /// The socket `fwctl` talks to.
    pub api: ApiConfig,
    /// What is told to monitoring.
    pub metrics: MetricsConfig,
    /// The web page.
    pub web: WebConfig,
    /// Flow records for a collector.
    pub ipfix: IpfixConfig,
    /// What is done to our NICs.
    pub net: NetConfig,
    /// The rights the daemon gives up once it is set up.
    pub privileges: PrivilegesConfig,
    /// What is kept across restarts.
    pub state: StateConfig,
    /// The daemon's log.
    pub log: LogConfig,
}

/// Two NICs joined: what comes in on one leaves on the other.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WireConfig {
    /// What reports call it; unique.
    pub name: String,
    /// Interface name of the left NIC.
    pub left: String,
    /// Interface name of the right NIC.
    pub right: String,
    /// Queues to serve on each NIC; `None`: as many as the NIC has.
    pub queues: Option<u16>,
    /// What happens to new flows when the table is full.
    pub full: Full,
}

/// Where the rules are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesConfig {
    /// IPv4 rules in `iptables-save` form; `None`: an empty table, policy ACCEPT, as in the kernel.
    pub v4: Option<PathBuf>,
    /// IPv6 rules in `ip6tables-save` form.
    pub v6: Option<PathBuf>,
    /// Sets that rules name, in the form of `ipset save`.
    pub sets: Option<PathBuf>,
    /// Names of connection labels, in the form of connlabel.conf; need not be there.
    pub labels: PathBuf,
    /// What `-j CT --timeout` may name; no name twice.
    pub timeout_policies: Vec<TimeoutPolicy>,
}

/// The polling threads.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WorkersConfig {
    /// How many, and on which cores.
    pub cores: Cores,
    /// What a worker does when no packet comes.
    pub idle: Idle,
    /// Whether buckets of flows move from busy workers to idle ones by themselves.
    pub rebalance: Rebalance,
}

/// Which cores the workers are pinned to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Cores {
    /// One worker per NIC queue, at most one per core we may run on, the first core left to control if there are two.
    #[default]
    Auto,
    /// This many workers, cores chosen as with [`Self::Auto`].
    Count(u16),
    /// One worker on each of these cores.
    List(Vec<u16>),
}

/// Defines an enum whose variants are words in the configuration.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $vdoc:literal])+ $(#[$attr:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub enum $name { $($(#[doc = $vdoc])+ $(#[$attr])* $variant,)+ }

        impl $name {
            /// The words as written, with what they stand for.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];

            /// The word as written.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// What a worker does when no packet comes.
    Idle {
        /// Keeps polling: lowest latency, a core at full load.
        Spin => "spin",
        /// Polls for a while, then sleeps until the kernel has a packet.
        #[default]
        Adaptive => "adaptive",
        /// Sleeps at once.
        Sleep => "sleep",
    }
}

words! {
    /// Where the XDP program runs.
    XdpMode {
        /// Native, and generic with a warning where the driver has no native XDP.
        #[default]
        Auto => "auto",
        /// In the driver, or not at all.
        Native => "native",
        /// In the kernel's generic hook.
        Generic => "generic",
    }
}

words! {
    /// A feature that depends on hardware or system.
    Auto {
        /// If it can be had.
        #[default]
        Auto => "auto",
        /// Or do not start.
        On => "on",
        /// Never.
        Off => "off",
    }
}

words! {
    /// Which packets are tracked.
    Tracking {
        /// A family's packets only if its rules ask for connection state, as in netfilter.
        #[default]
        Auto => "auto",
        /// All.
        Always => "always",
    }
}

words! {
    /// What happens to new flows when the table is full.
    Full {
        /// Their packets are dropped.
        #[default]
        DropNew => "drop-new",
        /// Half-open flows make room.
        EvictHalfOpen => "evict-half-open",
        /// Their packets pass, and are forgotten.
        PassUntracked => "pass-untracked",
    }
}

words! {
    /// What happens to the interrupts of NIC queues.
    Irqs {
        /// Each goes to the core of the worker that serves its queue, and back at exit.
        #[default]
        Steer => "steer",
        /// Left where they are.
        Leave => "leave",
    }
}

words! {
    /// What happens to offloads that break AF_XDP (GRO, LRO, VLAN stripping, checksum offload).
    Offloads {
        /// Switched off at start, put back at exit.
        #[default]
        Fix => "fix",
        /// Left as they are.
        Leave => "leave",
    }
}

words! {
    /// When buckets of flows move from busy workers to idle ones.
    Rebalance {
        /// When `fwctl workers rebalance` says so.
        #[default]
        Manual => "manual",
        /// Also when loads are far apart for a while.
        Auto => "auto",
    }
}

words! {
    /// What happens to the NICs' spreading of packets over queues (RSS key, table, hash fields, queue count).
    Rss {
        /// Set as workers own flows, put back at exit.
        #[default]
        Program => "program",
        /// Left as it is.
        Leave => "leave",
    }
}

words! {
    /// The workers' filter of system calls.
    Seccomp {
        /// What a worker does not call is refused, and what only an intruder calls ends the process.
        #[default]
        On => "on",
        /// Such calls are let be made, and the kernel logs them.
        Log => "log",
        /// There is none.
        Off => "off",
    }
}

words! {
    /// How much the daemon says.
    LogLevel {
        /// Only what went wrong.
        Error => "error",
        /// And what may go wrong.
        Warn => "warn",
        /// And what happened.
        #[default]
        Info => "info",
        /// And why.
        Debug => "debug",
        /// Everything.
        Trace => "trace",
    }
}

/// How frames get in and out.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct XdpConfig {
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// Whether the NIC reads and writes our memory itself.
    pub zero_copy: Auto,
    /// Busy-poll time per call in microseconds; 0: no busy polling.
    pub busy_poll_us: u32,
}

/// The memory frames live in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UmemConfig {
    /// Frames per worker; `None`: enough to fill every ring the worker serves, and the bursts in its hands.
    pub frames_per_worker: Option<u32>,
    /// Bytes per frame; a power of two. `None`: 2048, or 4096 where the MTU asks for it.
    pub frame_size_bytes: Option<u32>,
    /// Descriptors per rx and tx ring; a power of two.
    pub ring_size_descs: u32,
    /// Whether the memory is made of 2 MiB pages.
    pub hugepages: Auto,
}

/// The flow table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsConfig {
    /// Most flows, all workers together.
    pub max: u32,
    /// Which packets are tracked.
    pub tracking: Tracking,
}

/// Connection tracking, named as netfilter's sysctls are (without `nf_conntrack_`). Holds a value for every name in
/// [`settings::CONNTRACK`] and no other; switches are 0 and 1, timeouts are seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackConfig {
    values: BTreeMap<&'static str, u32>,
}

/// Frames that are not IP.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct L2Config {
    /// Which of them are forwarded.
    pub pass: L2Pass,
}

/// Which frames that are not IP are forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum L2Pass {
    /// All, as a Linux bridge does.
    #[default]
    All,
    /// Only these.
    Only {
        /// EtherTypes, ascending, each once.
        ethertypes: Vec<u16>,
        /// Whether 802.3 frames with a length in place of the EtherType (LLC, SNAP) are forwarded.
        llc: bool,
    },
}

/// Answers to rejected packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectConfig {
    /// Most ICMP errors a second, per worker, that REJECT sends; 0: no limit.
    pub icmp_msgs_per_sec: u32,
    /// How many may be sent at once after a pause.
    pub icmp_msgs_burst: u32,
}

/// The socket `fwctl` talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Absolute path; one per daemon.
    pub socket: PathBuf,
    /// Group whose members may see everything; `None`: root alone, and [`Self::write_group`].
    pub group: Option<String>,
    /// Group whose members may change everything, too; `None`: root alone.
    pub write_group: Option<String>,
}

/// What is told to monitoring.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetricsConfig {
    /// TCP address of `/metrics`, besides the API's socket.
    pub listen: Listen,
    /// Most rules with series of their own; only rules with a comment have any.
    pub rules: u32,
}

/// The web page.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WebConfig {
    /// TCP address of the page, besides the API's socket.
    pub listen: Listen,
    /// Names by which browsers may call it, besides addresses and `localhost`.
    pub hosts: HostNames,
    /// Whether the page may change anything, on the API's socket.
    pub write: bool,
}

/// Flow records for a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpfixConfig {
    /// Where they go, `HOST:PORT` over UDP; `None`: there are none.
    pub collector: Option<String>,
    /// Observation domain in every message.
    pub observation_domain: u32,
    /// Seconds between two reports of a flow that goes on.
    pub active_secs: u32,
    /// Seconds without a packet after which a flow is reported.
    pub idle_secs: u32,
    /// Seconds between two times that templates are sent.
    pub template_secs: u32,
    /// Most octets of a message.
    pub message_bytes: u32,
}

impl Default for IpfixConfig {
    fn default() -> Self {
        Self {
            collector: None,
            observation_domain: 0,
            active_secs: 60,
            idle_secs: 60,
            template_secs: 60,
            message_bytes: 1400,
        }
    }
}

/// What is done to our NICs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Offloads that break AF_XDP.
    pub offloads: Offloads,
    /// Interrupts of their queues.
    pub irqs: Irqs,
    /// How packets are spread over queues.
    pub rss: Rss,
    /// Whether NICs take frames for other stations; a bump in the wire must.
    pub promiscuous: bool,
    /// Where it is written down what was changed on a NIC, so that the next start can undo it after a crash.
    pub journal_dir: PathBuf,
}

/// The rights the daemon gives up once it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivilegesConfig {
    /// User it becomes: a name, `USER:GROUP`, `auto`, or `root`.
    pub user: String,
    /// The workers' filter of system calls.
    pub seccomp: Seccomp,
}

/// What is kept across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// Directory of the rulesets that ran before, and of reports of defects.
    pub dir: PathBuf,
    /// Rulesets kept, the one that runs included.
    pub history_max: u32,
}

/// The daemon's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How much the daemon says.
    pub level: LogLevel,
    /// Directory of the capture files that `-j NFLOG` rules write; `None`: they write none.
    pub nflog_dir: Option<PathBuf>,
    /// Bytes a capture file may have before another one is begun, in KiB.
    pub nflog_file_kib: u32,
    /// How many files are kept of a group, the newest included.
    pub nflog_files: u32,
    /// Where changes are written down: a file, `state` for one in the state directory, `log` for the daemon's own log.
    pub audit: String,
    /// Bytes that file may have before another one is begun, in KiB.
    pub audit_file_kib: u32,
    /// How many of these files are kept, the newest included.
    pub audit_files: u32,
}

/// Where daemon and `fwctl` meet unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/palisade/fwd.sock";

/// Where the packaged daemon has its configuration file.
pub const DEFAULT_CONFIG: &str = "/etc/palisade/fwd.toml";

impl Default for UmemConfig {
    fn default() -> Self {
        Self { frames_per_worker: None, frame_size_bytes: None, ring_size_descs: 2048, hugepages: Auto::Auto }
    }
}

impl Default for FlowsConfig {
    fn default() -> Self {
        Self { max: 1 << 20, tracking: Tracking::Auto }
    }
}

impl Default for RejectConfig {
    fn default() -> Self {
        // icmp_msgs_per_sec and icmp_msgs_burst of net.ipv4: 1000 and 50 when these were written.
        Self { icmp_msgs_per_sec: 1000, icmp_msgs_burst: 50 }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { socket: DEFAULT_SOCKET.into(), group: None, write_group: None }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            nflog_dir: None,
            nflog_file_kib: 16 * 1024,
            nflog_files: 8,
            audit: "state".to_owned(),
            audit_file_kib: 16 * 1024,
            audit_files: 8,
        }
    }
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            offloads: Offloads::Fix,
            irqs: Irqs::Steer,
            rss: Rss::Program,
            promiscuous: true,
            journal_dir: "/run/palisade".into(),
        }
    }
}

impl Default for RulesConfig {
    fn default() -> Self {
        let labels = crate::labels::LABELS_PATH.into();
        Self { v4: None, v6: None, sets: None, labels, timeout_policies: Vec::new() }
    }
}

impl Default for PrivilegesConfig {
    fn default() -> Self {
        Self { user: "auto".to_owned(), seccomp: Seccomp::On }
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { dir: "/var/lib/palisade".into(), history_max: 20 }
    }
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        Self { values: settings::CONNTRACK.iter().map(|s| (s.name, s.default)).collect() }
    }
}

impl ConntrackConfig {
    /// The value of a setting named in [`settings::CONNTRACK`]; `None` for any other name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u32> {
        self.values.get(name).copied()
    }

    /// Every setting with its value, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.values.iter().map(|(name, value)| (*name, *value))
    }

    fn set(&mut self, name: &'static str, value: u32) {
        self.values.insert(name, value);
    }
}

impl Config {
    /// Puts together what the operator asked for.
    ///
    /// # Errors
    /// Every problem found: unreadable file, syntax, unknown names, values out of range, contradictions.
    pub fn load(args: &FwdArgs) -> Result<Self, ConfigErrors> {
        load::load(args).map(|loaded| loaded.config)
    }

    /// The same, and where each setting comes from.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with_origins(args: &FwdArgs) -> Result<Loaded, ConfigErrors> {
        load::load(args)
    }

    /// This configuration with some settings changed, each written `NAME=VALUE`, and which they were.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn with_settings(&self, set: &[String]) -> Result<Loaded, ConfigErrors> {
        load::with_settings(self, set)
    }

    /// Defaults with some settings changed, each written `NAME=VALUE`: for programs that use the dataplane without NICs.
    ///
    /// # Errors
    /// As [`Self::load`], save that wires and rules may be missing.
    pub fn from_settings(set: &[String]) -> Result<Self, ConfigErrors> {
        load::from_settings(set)
    }

    /// The text of a configuration file with every setting at its default, explained. Settings that have no default
    /// are commented out, so the text reads back as [`Config::default`].
    #[must_use]
    pub fn default_toml() -> String {
        default_file::default_toml()
    }
}
