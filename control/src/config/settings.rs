//! Every setting there is: name, what it takes, what it does, where it goes. The file reader, `--set`, the hints for
//! misspelled names and the default file are all made from these lists.

use dataplane::flow::TrackSettings;

use super::field::{Field, Missing};
use super::value::Value;
use super::{
    Auto, Config, Full, Idle, Irqs, LogLevel, Offloads, Rebalance, Rss, Seccomp, Tracking, WireConfig,
    XdpMode,
};

pub use super::value::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When another value of a setting takes effect in a daemon that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// At once, by `fwctl config set`, `fwctl config reload` and SIGHUP.
    Hot,
    /// When the rules files are read the next time: SIGHUP.
    Rules,
    /// When the daemon is started the next time.
    Restart,
}

impl Change {
    /// What the default file says of it, in a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Hot => "Changes while it runs.",
            Self::Rules => "Takes effect when the rules are read again (SIGHUP).",
            Self::Restart => "Needs a restart.",
        }
    }
}

/// A setting of `T`.
pub struct Setting<T> {
    /// Name with its section, `workers.idle`.
    pub name: &'static str,
    /// When another value takes effect.
    pub change: Change,
    /// What it takes.
    pub kind: Kind,
    /// What it does, for the operator.
    pub doc: &'static str,
    /// What to write in the default file when there is no default.
    pub(super) example: &'static str,
    pub(super) put: fn(&mut T, Value),
    pub(super) show: fn(&T) -> Option<String>,
    /// Takes the value over from another configuration.
    pub(super) copy: fn(&mut T, &T),
}

macro_rules! setting {
    ($name:literal, $change:ident, $kind:expr, |$t:ident| $field:expr, $doc:literal) => {
        Setting {
            name: $name,
            change: Change::$change,
            kind: $kind,
            doc: $doc,
            example: "",
            put: |$t, value| Field::put(&mut $field, value),
            show: |$t| Field::show(&$field),
            copy: |$t, from| {
                let value = {
                    let $t = from;
                    $field.clone()
                };
                $field = value;
            },
        }
    };
    ($name:literal, $change:ident, optional $kind:expr, |$t:ident| $field:expr, $example:literal, $doc:literal) => {
        Setting {
            name: $name,
            change: Change::$change,
            kind: $kind,
            doc: $doc,
            example: $example,
            put: |$t, value| Missing(&mut $field).put(value),
            show: |$t| $field.as_ref().and_then(Field::show),
            copy: |$t, from| {
                let value = {
                    let $t = from;
                    $field.clone()
                };
                $field = value;
            },
        }
    };
}

/// Settings of the daemon, section by section, [`CONNTRACK`] and [`WIRE`] aside.
pub const SETTINGS: &[Setting<Config>] = &[
    setting!("rules.v4", Rules, optional Kind::File, |c| c.rules.v4, "rules.v4",
        "IPv4 rules, as iptables-save prints them. Relative to this file's directory."),
    setting!("rules.v6", Rules, optional Kind::File, |c| c.rules.v6, "rules.v6",
        "IPv6 rules, as ip6tables-save prints them. Without rules a family is forwarded, as in the kernel."),
    setting!("rules.sets", Rules, optional Kind::File, |c| c.rules.sets, "sets",
        "Sets that rules name, as ipset save prints them: made at start. fwctl set changes them."),
    setting!(
        "rules.labels",
        Rules,
        Kind::File,
        |c| c.rules.labels,
        "Names of connection labels (-m connlabel), as iptables reads them. Without the file labels have numbers."
    ),
    setting!(
        "rules.timeout_policies",
        Restart,
        Kind::TimeoutPolicies,
        |c| c.rules.timeout_policies,
        "Timeout policies that rules name with -j CT --timeout, each as nfct(8) adds it: \
         [\"slow inet tcp established 86400 close 30\", \"dns inet udp unreplied 5 replied 10\"]."
    ),
    setting!(
        "workers.cores",
        Restart,
        Kind::Cores,
        |c| c.workers.cores,
        "Worker threads: how many (2), on which cores ([2, 3]), or \"auto\" for one per NIC queue."
    ),
    setting!(
        "workers.idle",
        Hot,
        Kind::Words(Idle::words),
        |c| c.workers.idle,
        "What a worker does when no packet comes: \"spin\", \"sleep\", or \"adaptive\" for one, then the other."
    ),
    setting!(
        "workers.rebalance",
        Hot,
        Kind::Words(Rebalance::words),
        |c| c.workers.rebalance,
        "When flows move from busy workers to idle ones: \"manual\" on fwctl workers rebalance, \"auto\" also when the busiest \
         has 30 % more than the mean, looked at twice a minute."
    ),
    setting!(
        "xdp.mode",
        Restart,
        Kind::Words(XdpMode::words),
        |c| c.xdp.mode,
        "Where the XDP program runs. \"auto\": in the driver, else (slower, with a warning) in the generic hook."
    ),
    setting!(
        "xdp.zero_copy",
        Restart,
        Kind::Words(Auto::words),
        |c| c.xdp.zero_copy,
        "Whether the NIC reads and writes our memory itself. \"on\" refuses to start where it cannot."
    ),
    setting!(
        "xdp.busy_poll_us",
        Restart,
        Kind::Int(0, 10_000),
        |c| c.xdp.busy_poll_us,
        "Time a call may spend polling the driver, in microseconds; 0: no busy polling. With it workers do the driver's \
         work, and its interrupts are put off meanwhile."
    ),
    setting!(
        "umem.frames_per_worker",
        Restart,
        Kind::AutoInt(128, 1 << 24),
        |c| c.umem.frames_per_worker,
        "Packet buffers per worker. \"auto\": enough for every ring and the bursts in flight."
    ),
    setting!(
        "umem.frame_size_bytes",
        Restart,
        Kind::AutoPow2(2048, 4096),
        |c| c.umem.frame_size_bytes,
        "Size of a packet buffer. \"auto\": 2048, or 4096 where the MTU asks for it."
    ),
    setting!(
        "umem.ring_size_descs",
        Restart,
        Kind::Pow2(64, 32_768),
        |c| c.umem.ring_size_descs,
        "Length of the rx and tx rings of each queue."
    ),
    setting!(
        "umem.hugepages",
        Restart,
        Kind::Words(Auto::words),
        |c| c.umem.hugepages,
        "Whether packet memory is made of 2 MiB pages. \"on\" refuses to start without them."
    ),
    setting!(
        "flows.max",
        Restart,
        Kind::Int(64, 1 << 28),
        |c| c.flows.max,
        "Most connections tracked, all workers together."
    ),
    setting!(
        "flows.tracking",
        Restart,
        Kind::Words(Tracking::words),
        |c| c.flows.tracking,
        "\"auto\" tracks a family only if its rules ask for connection state, as netfilter does."
    ),
    setting!(
        "l2.pass",
        Hot,
        Kind::EtherTypes,
        |c| c.l2.pass,
        "Which frames that are not IP are forwarded: \"all\" as a Linux bridge does, or a list of EtherTypes by name \
         or number ([\"arp\", \"lldp\", \"0x8864\"]); \"llc\" stands for 802.3 frames. [] forwards none, ARP neither."
    ),
    setting!(
        "reject.icmp_msgs_per_sec",
        Hot,
        Kind::Int(0, 1_000_000),
        |c| c.reject.icmp_msgs_per_sec,
        "Most ICMP errors a second that each worker sends for REJECT; 0: no limit."
    ),
    setting!(
        "reject.icmp_msgs_burst",
        Hot,
        Kind::Int(1, 1_000_000),
        |c| c.reject.icmp_msgs_burst,
        "How many of them may go out at once after a pause."
    ),
    setting!(
        "api.socket",
        Restart,
        Kind::AbsoluteFile,
        |c| c.api.socket,
        "Socket that fwctl talks to. Each daemon on a machine needs its own."
    ),
    setting!("api.group", Restart, optional Kind::Name("the name of a group"), |c| c.api.group, "netadmin",
        "Group whose members may see everything with fwctl, and change nothing."),
    setting!("api.write_group", Restart, optional Kind::Name("the name of a group"), |c| c.api.write_group, "netadmin",
        "Group whose members may see and change everything with fwctl, as root may."),
    setting!(
        "metrics.listen",
        Restart,
        Kind::Listen,
        |c| c.metrics.listen,
        "TCP address on which /metrics is served, \"127.0.0.1:9100\" or \"[::]:9100\", to whoever can reach it; nothing else is. \
         \"\": on the API's socket only."
    ),
    setting!(
        "metrics.rules",
        Hot,
        Kind::Int(0, 10_000),
        |c| c.metrics.rules,
        "How many rules are told of one by one, by chain and comment. Rules without a comment are not."
    ),
    setting!("ipfix.collector", Restart, optional Kind::Endpoint, |c| c.ipfix.collector, "collector.example:4739",
        "Collector of flow records: IPFIX (RFC 7011) over UDP, both directions in one record. Without it none are sent. \
         Flows are known while they are tracked (flows.tracking)."),
    setting!(
        "ipfix.observation_domain",
        Restart,
        Kind::Int(0, u32::MAX),
        |c| c.ipfix.observation_domain,
        "By which the collector tells this gateway from others at the same address."
    ),
    setting!(
        "ipfix.active_secs",
        Restart,
        Kind::Int(1, 604_800),
        |c| c.ipfix.active_secs,
        "Seconds after which a flow that goes on is reported, again and again."
    ),
    setting!(
        "ipfix.idle_secs",
        Restart,
        Kind::Int(1, 604_800),
        |c| c.ipfix.idle_secs,
        "Seconds without a packet after which a flow is reported that is still in the table."
    ),
    setting!(
        "ipfix.template_secs",
        Restart,
        Kind::Int(1, 86_400),
        |c| c.ipfix.template_secs,
        "Seconds between two times that templates are sent, which a collector has to know."
    ),
    setting!(
        "ipfix.message_bytes",
        Restart,
        Kind::Int(512, 8952),
        |c| c.ipfix.message_bytes,
        "Most octets of a message: the MTU towards the collector less 28, or 48 with IPv6."
    ),
    setting!(
        "web.listen",
        Restart,
        Kind::Listen,
        |c| c.web.listen,
        "TCP address on which the web page is served, \"127.0.0.1:8080\", for looking only, to whoever can reach it: rules, flows \
         and counters. \"\": on the API's socket only, which ssh -L 8080:/run/palisade/fwd.sock HOST brings to a browser."
    ),
    setting!(
        "web.hosts",
        Restart,
        Kind::HostNames,
        |c| c.web.hosts,
        "Names by which browsers may call the page, besides addresses and localhost: [\"gw.example.org\"]. Requests by any \
         other name are refused."
    ),
    setting!(
        "web.write",
        Restart,
        Kind::Switch,
        |c| c.web.write,
        "Whether the page may confirm and roll back changes of the rules: on the API's socket only, with the rights of whoever \
         connects to it. On TCP it never may."
    ),
    setting!(
        "net.offloads",
        Restart,
        Kind::Words(Offloads::words),
        |c| c.net.offloads,
        "NIC offloads that break AF_XDP (GRO, LRO, VLAN stripping, checksums): \"fix\" switches them off and puts them \
         back at exit, \"leave\" does not touch them."
    ),
    setting!(
        "net.irqs",
        Restart,
        Kind::Words(Irqs::words),
        |c| c.net.irqs,
        "Interrupts of NIC queues: \"steer\" sends each to the core of the worker that serves the queue and back at exit, \
         \"leave\" does not touch them."
    ),
    setting!(
        "net.rss",
        Restart,
        Kind::Words(Rss::words),
        |c| c.net.rss,
        "How the NICs spread packets over their queues: \"program\" sets RSS key, table, hash fields and queue count alike \
         on both NICs of a wire, so that packets come in at the worker that owns their flow, and puts them back at exit; \
         \"leave\" does not touch them."
    ),
    setting!(
        "net.promiscuous",
        Restart,
        Kind::Switch,
        |c| c.net.promiscuous,
        "Whether the NICs take frames for other stations. A bump in the wire must."
    ),
    setting!(
        "net.journal_dir",
        Restart,
        Kind::AbsoluteFile,
        |c| c.net.journal_dir,
        "Where it is noted what was changed on a NIC, so that the next start can undo it after a crash."
    ),
    setting!(
        "privileges.user",
        Restart,
        Kind::Name("the name of a user, USER:GROUP, \"auto\" or \"root\""),
        |c| c.privileges.user,
        "User that the daemon becomes once it is set up; it keeps CAP_NET_ADMIN and no other right. \"auto\": palisade if there \
         is such a user and it can do the daemon's work, else root with a warning; \"root\": root without one. Either way all \
         other capabilities go."
    ),
    setting!(
        "privileges.seccomp",
        Restart,
        Kind::Words(Seccomp::words),
        |c| c.privileges.seccomp,
        "Filter of the workers' system calls: \"on\" refuses what a worker does not call and ends the process at what only an \
         intruder would, \"log\" has the kernel log both, \"off\" is none."
    ),
    setting!(
        "state.dir",
        Restart,
        Kind::AbsoluteFile,
        |c| c.state.dir,
        "Where the rulesets that ran before are kept (fwctl history). Each daemon on a machine needs its own."
    ),
    setting!(
        "state.history_max",
        Hot,
        Kind::Int(1, 1000),
        |c| c.state.history_max,
        "How many of them are kept, the one that runs included."
    ),
    setting!(
        "log.level",
        Hot,
        Kind::Words(LogLevel::words),
        |c| c.log.level,
        "How much the daemon says on standard error."
    ),
    setting!("log.nflog_dir", Hot, optional Kind::AbsoluteFile, |c| c.log.nflog_dir, "/var/log/palisade",
        "Directory for the packets of -j NFLOG rules: nflog-GROUP.pcapng, older ones with .1, .2, ... behind the group. Without it they are counted as not logged."),
    setting!(
        "log.nflog_file_kib",
        Hot,
        Kind::Int(64, 1 << 22),
        |c| c.log.nflog_file_kib,
        "Size at which such a file is put aside and another one begun, in KiB."
    ),
    setting!(
        "log.nflog_files",
        Hot,
        Kind::Int(1, 1000),
        |c| c.log.nflog_files,
        "How many files are kept of each group."
    ),
    setting!(
        "log.audit",
        Restart,
        Kind::FileOr(&["state", "log"]),
        |c| c.log.audit,
        "Where it is written down who changed what (fwctl audit): a file, \"state\" for audit.log in state.dir, or \"log\" for \
         the daemon's own log."
    ),
    setting!(
        "log.audit_file_kib",
        Restart,
        Kind::Int(64, 1 << 22),
        |c| c.log.audit_file_kib,
        "Size at which that file is put aside and another one begun, in KiB."
    ),
    setting!(
        "log.audit_files",
        Restart,
        Kind::Int(1, 1000),
        |c| c.log.audit_files,
        "How many of these files are kept."
    ),
];

/// Settings of a wire, one `[[wire]]` each.
pub const WIRE: &[Setting<WireConfig>] = &[
    setting!(
        "name",
        Restart,
        Kind::Name("a name for the wire"),
        |w| w.name,
        "What reports call this wire. Without it: wire0, wire1, ..."
    ),
    setting!("left", Restart, Kind::Iface, |w| w.left, "Interface name of the left NIC."),
    setting!("right", Restart, Kind::Iface, |w| w.right, "Interface name of the right NIC."),
    setting!(
        "queues",
        Restart,
        Kind::AutoInt(1, 64),
        |w| w.queues,
        "Queues to serve on each NIC. \"auto\": all the NIC has."
    ),
    setting!(
        "full",
        Hot,
        Kind::Words(Full::words),
        |w| w.full,
        "When the flow table is full: \"drop-new\", \"evict-half-open\", or \"pass-untracked\" to let new flows pass unseen."
    ),
];

/// Sections in the order of the default file, with what they are about.
pub const SECTIONS: &[(&str, &str)] = &[
    ("rules", "What is let through."),
    ("workers", "The threads that move packets."),
    ("xdp", "How packets get from the NICs to us."),
    ("umem", "The memory packets live in."),
    ("flows", "The table of connections."),
    (
        "conntrack",
        "How connections are followed. Names, meaning and defaults are those of the sysctls \
                   net.netfilter.nf_conntrack_* and net.ipv4.ipfrag_*; times are in seconds. All change while the daemon runs.",
    ),
    ("l2", "Frames that are not IP."),
    ("reject", "Answers to rejected packets."),
    ("api", "Where fwctl finds the daemon."),
    ("metrics", "What is told to monitoring."),
    ("web", "The page for browsers."),
    ("ipfix", "Flow records for a collector."),
    ("net", "What is done to the NICs."),
    ("privileges", "The rights the daemon gives up once it is set up."),
    ("state", "What is kept across restarts."),
    ("log", "What the daemon says."),
];

/// A connection tracking setting, named as netfilter's sysctl without `nf_conntrack_`.
pub struct ConntrackSetting {
    /// Name without section.
    pub name: &'static str,
    /// Value unless told otherwise: netfilter's.
    pub default: u32,
    /// Switch, seconds or a count.
    pub kind: Kind,
    /// What it does, for the operator.
    pub doc: &'static str,
}

const fn switch(name: &'static str, default: u32, doc: &'static str) -> ConntrackSetting {
    ConntrackSetting { name, default, kind: Kind::Switch, doc }
}

/// A number. The tracker says in which range, for all ways to set it.
const fn number(name: &'static str, default: u32, doc: &'static str) -> ConntrackSetting {
    let kind = match TrackSettings::range(name) {
        Some((min, max)) => Kind::Int(min, max),
        None => panic!("a setting that the tracker does not have"),
    };
    ConntrackSetting { name, default, kind, doc }
}

/// Every connection tracking setting. Defaults as seen on Linux 6.18, but for `acct`; `tcp_timeout_syn_sent2` has no sysctl
/// there.
pub const CONNTRACK: &[ConntrackSetting] = &[
    switch(
        "acct",
        1,
        "Whether flows are shown with packets and bytes. They are counted either way, hence 1 where netfilter has 0.",
    ),
    number(
        "adaptive_start_percent",
        90,
        "Share of max from which on timeouts of flows not ASSURED or closing shrink; 0: never. Ours, not netfilter's.",
    ),
    switch("checksum", 1, "Whether a wrong TCP, UDP or ICMP checksum makes a packet INVALID."),
    number("events", 2, "Whether fwctl flows -E hears anything: 0 no; 1 and 2 yes."),
    number("expect_max", 4096, "Most connections that helpers expect at one time."),
    number(
        "frag6_high_thresh",
        4_194_304,
        "IPv6 fragments: bytes a worker holds at most; 0: no fragment passes where connections are tracked.",
    ),
    number(
        "frag6_low_thresh",
        3_145_728,
        "Kept because it is a sysctl; without effect, as in Linux since 4.17.",
    ),
    number("frag6_timeout", 60, "IPv6 fragments: time for the rest of a datagram to come."),
    number("generic_timeout", 600, "Protocols without a tracker of their own."),
    number("gre_timeout", 30, "GRE, seen in one direction."),
    number("gre_timeout_stream", 180, "GRE, seen in both."),
    number(
        "half_open_percent",
        25,
        "Share of max that half-open flows may take; then a new one replaces an old one. Ours, not netfilter's.",
    ),
    number("icmp_timeout", 30, "ICMP echo and the other queries."),
    number("icmpv6_timeout", 30, "The same for ICMPv6."),
    number(
        "ipfrag_high_thresh",
        4_194_304,
        "IPv4 fragments: bytes a worker holds at most; 0: no fragment passes where connections are tracked.",
    ),
    number(
        "ipfrag_low_thresh",
        3_145_728,
        "Kept because it is a sysctl; without effect, as in Linux since 4.17.",
    ),
    number(
        "ipfrag_max_dist",
        64,
        "IPv4 fragments: how many others of a sender may come between two of one datagram; 0: any number.",
    ),
    number(
        "ipfrag_secret_interval",
        0,
        "Kept because it is a sysctl; without effect, as in Linux since 4.17.",
    ),
    number("ipfrag_time", 30, "IPv4 fragments: time for the rest of a datagram to come."),
    number(
        "log_invalid",
        0,
        "Protocol whose INVALID packets are logged, at most 50 a second and worker; 255: all protocols; 0: none.",
    ),
    number(
        "management_reserve_percent",
        1,
        "Share of max kept for rules whose comment begins with palisade:management. Ours, not netfilter's.",
    ),
    number("sctp_timeout_closed", 10, "SCTP, before the first answer and after the end."),
    number("sctp_timeout_cookie_echoed", 3, "SCTP, COOKIE ECHO seen."),
    number("sctp_timeout_cookie_wait", 3, "SCTP, INIT seen."),
    number("sctp_timeout_established", 210, "SCTP, association up."),
    number("sctp_timeout_heartbeat_sent", 30, "SCTP, HEARTBEAT on a new path."),
    number("sctp_timeout_shutdown_ack_sent", 3, "SCTP, SHUTDOWN ACK seen."),
    number("sctp_timeout_shutdown_recd", 3, "SCTP, SHUTDOWN seen from the other side."),
    number("sctp_timeout_shutdown_sent", 3, "SCTP, SHUTDOWN seen."),
    switch("tcp_be_liberal", 0, "Whether segments outside the window pass as ESTABLISHED."),
    switch("tcp_ignore_invalid_rst", 0, "Whether a RST below the window passes, without effect."),
    switch("tcp_loose", 1, "Whether a connection may be picked up in the middle."),
    number(
        "tcp_max_retrans",
        3,
        "Retransmissions without an answer after which tcp_timeout_max_retrans holds.",
    ),
    number("tcp_timeout_close", 10, "TCP, after a RST."),
    number("tcp_timeout_close_wait", 60, "TCP, one side has closed and was answered."),
    number("tcp_timeout_established", 432_000, "TCP, connection up: five days."),
    number("tcp_timeout_fin_wait", 120, "TCP, one side has closed."),
    number("tcp_timeout_last_ack", 30, "TCP, both sides have closed."),
    number("tcp_timeout_max_retrans", 300, "TCP, retransmitting without an answer."),
    number("tcp_timeout_syn_recv", 60, "TCP, SYN answered."),
    number("tcp_timeout_syn_sent", 120, "TCP, SYN seen."),
    number("tcp_timeout_syn_sent2", 120, "TCP, SYN seen from both sides."),
    number("tcp_timeout_time_wait", 120, "TCP, closed and acknowledged."),
    number("tcp_timeout_unacknowledged", 300, "TCP, data not acknowledged."),
    switch("timestamp", 0, "Whether flows are shown with the time at which they began."),
    number("udp_timeout", 30, "UDP, seen in one direction, or not yet for two seconds."),
    number("udp_timeout_stream", 120, "UDP, seen in both."),
];

/// A setting found by name.
#[derive(Clone, Copy)]
pub(super) enum Known {
    Main(&'static Setting<Config>),
    Conntrack(&'static ConntrackSetting),
}

impl Known {
    /// Every setting but the wires'.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        SETTINGS.iter().map(Self::Main).chain(CONNTRACK.iter().map(Self::Conntrack))
    }

    /// The setting of this full name, `section.leaf`.
    pub(super) fn find(name: &str) -> Option<Self> {
        Self::all().find(|known| known.section() == section_of(name) && known.leaf() == leaf_of(name))
    }

    /// The section it stands in.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::Main(setting) => section_of(setting.name),
            Self::Conntrack(_) => "conntrack",
        }
    }

    /// Its name within the section.
    pub(super) fn leaf(self) -> &'static str {
        match self {
            Self::Main(setting) => leaf_of(setting.name),
            Self::Conntrack(setting) => setting.name,
        }
    }

    /// Its name with the section.
    pub(super) fn name(self) -> String {
        format!("{}.{}", self.section(), self.leaf())
    }

    /// When another value takes effect. Every connection tracking setting changes at once, as sysctls do.
    pub(super) fn change(self) -> Change {
        match self {
            Self::Main(setting) => setting.change,
            Self::Conntrack(_) => Change::Hot,
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Main(setting) => setting.kind,
            Self::Conntrack(setting) => setting.kind,
        }
    }

    pub(super) fn doc(self) -> &'static str {
        match self {
            Self::Main(setting) => setting.doc,
            Self::Conntrack(setting) => setting.doc,
        }
    }

    pub(super) fn put(self, config: &mut Config, value: Value) {
        match (self, value) {
            (Self::Main(setting), value) => (setting.put)(config, value),
            (Self::Conntrack(setting), Value::Switch(on)) => {
                config.conntrack.set(setting.name, u32::from(on));
            }
            (Self::Conntrack(setting), Value::Int(number)) => config.conntrack.set(setting.name, number),
            (Self::Conntrack(_), value) => {
                unreachable!("connection tracking takes switches and numbers: {value:?}")
            }
        }
    }

    /// Takes its value over from another configuration.
    pub(super) fn copy(self, to: &mut Config, from: &Config) {
        match self {
            Self::Main(setting) => (setting.copy)(to, from),
            Self::Conntrack(setting) => {
                if let Some(value) = from.conntrack.get(setting.name) {
                    to.conntrack.set(setting.name, value);
                }
            }
        }
    }

    /// Its value as TOML, if it has one.
    pub(super) fn show(self, config: &Config) -> Option<String> {
        match self {
            Self::Main(setting) => (setting.show)(config),
            Self::Conntrack(setting) => {
                let value = config.conntrack.get(setting.name)?;
                Some(if matches!(setting.kind, Kind::Switch) {
                    (value != 0).to_string()
                } else {
                    value.to_string()
                })
            }
        }
    }

    /// What the default file shows, commented out, when there is no default.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Main(setting) => setting.example,
            Self::Conntrack(_) => "",
        }
    }
}

fn section_of(name: &str) -> &str {
    name.split_once('.').map_or("", |(section, _)| section)
}

fn leaf_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, leaf)| leaf)
}
