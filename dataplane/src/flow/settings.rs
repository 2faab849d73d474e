//! Every timeout and switch of the tracker, under its sysctl's name without the `nf_conntrack_` prefix, and the range it
//! may be set in, by whatever way. Plain values in a snapshot: control sets them, workers read them.

use crate::packet::Family;
use std::sync::Arc;

/// Longest timeout that can be set, in seconds: deadlines are compared within half the wrap of a
/// [`crate::clock::Tick`], 248 days.
pub const TIMEOUT_MAX_SECS: u32 = 20_000_000;

/// Why a setting was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no setting of that name.
    #[error("no such setting: {name}")]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// The value is not a number in the setting's range.
    #[error("{name}: {value:?} is not a whole number from {min} to {max}")]
    BadValue {
        /// The setting.
        name: &'static str,
        /// The value as given.
        value: String,
        /// Smallest value taken.
        min: u32,
        /// Largest value taken.
        max: u32,
    },
}

/// A kind of setting: its range, and its place between text, number and field.
trait Kind: Copy {
    const MIN: u32;
    const MAX: u32;
    fn from_number(number: u32) -> Self;
    fn number(self) -> u32;
}

/// A duration in seconds.
impl Kind for u32 {
    const MIN: Self = 1;
    const MAX: Self = TIMEOUT_MAX_SECS;
    fn from_number(number: Self) -> Self {
        number
    }
    fn number(self) -> Self {
        self
    }
}

/// A number of things; 0 has a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u32);

impl Kind for Count {
    const MIN: u32 = 0;
    const MAX: u32 = 1 << 30;
    fn from_number(number: u32) -> Self {
        Self(number)
    }
    fn number(self) -> u32 {
        self.0
    }
}

/// A small count.
impl Kind for u8 {
    const MIN: u32 = 0;
    const MAX: u32 = 255;
    fn from_number(number: u32) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
    fn number(self) -> u32 {
        u32::from(self)
    }
}

/// When events are told of: `0` never, `1` and `2` while somebody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMode(pub u8);

impl Kind for EventMode {
    const MIN: u32 = 0;
    const MAX: u32 = 2;
    fn from_number(number: u32) -> Self {
        Self(u8::from_number(number))
    }
    fn number(self) -> u32 {
        u32::from(self.0)
    }
}

/// A switch, `0` or `1`.
impl Kind for bool {
    const MIN: u32 = 0;
    const MAX: u32 = 1;
    fn from_number(number: u32) -> Self {
        number != 0
    }
    fn number(self) -> u32 {
        u32::from(self)
    }
}

fn parse<K: Kind>(name: &'static str, (min, max): (u32, u32), value: &str) -> Result<K, SettingError> {
    match value.trim().parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Ok(K::from_number(number)),
        _ => Err(SettingError::BadValue { name, value: value.to_owned(), min, max }),
    }
}

/// The range of a setting: its own, or that of its kind.
macro_rules! range {
    ($kind:ty) => {
        (<$kind as Kind>::MIN, <$kind as Kind>::MAX)
    };
    ($kind:ty, $min:literal, $max:literal) => {
        ($min, $max)
    };
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty $([$min:literal, $max:literal])? = $default:expr,)+) => {
        /// What the tracker goes by. Timeouts are in seconds of idleness; defaults are the kernel's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct TrackSettings { $($(#[doc = $doc])+ pub $name: $kind,)+ }

        impl Default for TrackSettings {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl TrackSettings {
            /// Names of all settings, in listing order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)+];

            /// Smallest and largest value of each, in the same order.
            const RANGES: &'static [(u32, u32)] = &[$(range!($kind $(, $min, $max)?),)+];

            /// Changes one setting.
            ///
            /// # Errors
            /// When there is no such setting, or the value is not a number in its range.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
                match name {
                    $(stringify!($name) => {
                        self.$name = parse(stringify!($name), range!($kind $(, $min, $max)?), value)?;
                    })+
                    _ => return Err(SettingError::Unknown { name: name.to_owned() }),
                }
                Ok(())
            }

            /// All settings by name; switches are 0 or 1.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u32)> + use<> {
                [$((stringify!($name), Kind::number(self.$name)),)+].into_iter()
            }
        }
    };
}

settings! {
    /// Most flows, all workers together; 0, and anything above, is what the tables were made for (`flows.max`).
    max: Count = Count(0),
    /// Most half-open flows, in percent of `max`: a new one then replaces an old one.
    half_open_percent: u8 [1, 100] = 25,
    /// Flows kept for rules marked as management, in percent of `max`.
    management_reserve_percent: u8 [0, 99] = 1,
    /// From this share of `max` on, in percent, timeouts of flows that are not ASSURED or are closing shrink; 0: never.
    adaptive_start_percent: u8 [0, 100] = 90,
    /// IPv4 fragments: time for the rest of a datagram to come (`net.ipv4.ipfrag_time`).
    ipfrag_time: u32 = 30,
    /// IPv4 fragments: bytes held by a worker above which no fragment is taken (`net.ipv4.ipfrag_high_thresh`); 0: none
    /// ever is.
    ipfrag_high_thresh: Count = Count(4_194_304),
    /// Kept because it is a sysctl (`net.ipv4.ipfrag_low_thresh`); without effect, as in Linux since 4.17.
    ipfrag_low_thresh: Count = Count(3_145_728),
    /// IPv4 fragments: a datagram is given up when more than so many other fragments of its sender came between two of
    /// its own (`net.ipv4.ipfrag_max_dist`), as a worker counts them; 0: however many.
    ipfrag_max_dist: Count = Count(64),
    /// Kept because it is a sysctl (`net.ipv4.ipfrag_secret_interval`); without effect, as in Linux since 4.17.
    ipfrag_secret_interval: Count = Count(0),
    /// IPv6 fragments: time for the rest of a datagram to come (`nf_conntrack_frag6_timeout`).
    frag6_timeout: u32 = 60,
    /// IPv6 fragments: bytes held by a worker above which no fragment is taken (`nf_conntrack_frag6_high_thresh`); 0:
    /// none ever is.
    frag6_high_thresh: Count = Count(4_194_304),
    /// Kept because it is a sysctl (`nf_conntrack_frag6_low_thresh`); without effect, as in Linux since 4.17.
    frag6_low_thresh: Count = Count(3_145_728),
    /// Most connections expected by helpers at one time.
    expect_max: Count = Count(4096),
    /// Verify upper-layer checksums; a packet whose checksum is wrong is INVALID.
    checksum: bool = true,
    /// TCP: the first SYN was seen.
    tcp_timeout_syn_sent: u32 = 120,
    /// TCP: the SYN-ACK was seen.
    tcp_timeout_syn_recv: u32 = 60,
    /// TCP: open. RFC 5382 REQ-5 asks for at least 7,440.
    tcp_timeout_established: u32 = 432_000,
    /// TCP: one side has closed.
    tcp_timeout_fin_wait: u32 = 120,
    /// TCP: the first FIN was acknowledged.
    tcp_timeout_close_wait: u32 = 60,
    /// TCP: both sides have closed.
    tcp_timeout_last_ack: u32 = 30,
    /// TCP: the last FIN was acknowledged.
    tcp_timeout_time_wait: u32 = 120,
    /// TCP: reset.
    tcp_timeout_close: u32 = 10,
    /// TCP: SYNs from both sides (the kernel has it in timeout policies only).
    tcp_timeout_syn_sent2: u32 = 120,
    /// TCP: cap after `tcp_max_retrans` repeats of one segment, and while the window is zero.
    tcp_timeout_max_retrans: u32 = 300,
    /// TCP: cap while data is unacknowledged, or only one side has been heard.
    tcp_timeout_unacknowledged: u32 = 300,
    /// TCP: pick up connections from the middle.
    tcp_loose: bool = true,
    /// TCP: only out-of-window resets are INVALID.
    tcp_be_liberal: bool = false,
    /// TCP: repeats of one segment before the timer is cut to `tcp_timeout_max_retrans`.
    tcp_max_retrans: u8 = 3,
    /// TCP: let resets below the acknowledged data pass without effect, instead of calling them INVALID.
    tcp_ignore_invalid_rst: bool = false,
    /// UDP and UDP-Lite: one direction seen, or younger than two seconds.
    udp_timeout: u32 = 30,
    /// UDP and UDP-Lite: both directions seen, two seconds after the start.
    udp_timeout_stream: u32 = 120,
    /// ICMP queries.
    icmp_timeout: u32 = 30,
    /// ICMPv6 queries.
    icmpv6_timeout: u32 = 30,
    /// GRE: one direction seen.
    gre_timeout: u32 = 30,
    /// GRE: both directions seen.
    gre_timeout_stream: u32 = 180,
    /// SCTP: closed.
    sctp_timeout_closed: u32 = 10,
    /// SCTP: INIT seen.
    sctp_timeout_cookie_wait: u32 = 3,
    /// SCTP: COOKIE ECHO seen.
    sctp_timeout_cookie_echoed: u32 = 3,
    /// SCTP: open.
    sctp_timeout_established: u32 = 210,
    /// SCTP: SHUTDOWN sent.
    sctp_timeout_shutdown_sent: u32 = 3,
    /// SCTP: SHUTDOWN received.
    sctp_timeout_shutdown_recd: u32 = 3,
    /// SCTP: SHUTDOWN ACK sent.
    sctp_timeout_shutdown_ack_sent: u32 = 3,
    /// SCTP: a path probed.
    sctp_timeout_heartbeat_sent: u32 = 30,
    /// Every other protocol.
    generic_timeout: u32 = 600,
    /// Show packets and bytes of flows. They are counted either way, so unlike the kernel we show them unless told not to.
    acct: bool = true,
    /// Show when flows began. It is known either way.
    timestamp: bool = false,
    /// Log INVALID packets of this protocol; 255: of all; 0: of none.
    log_invalid: u8 = 0,
    /// Tell of events.
    events: EventMode = EventMode(2),
}

impl TrackSettings {
    /// Smallest and largest value of a setting; `None` if there is none of that name.
    #[must_use]
    pub const fn range(name: &str) -> Option<(u32, u32)> {
        let mut at = 0;
        while at < Self::NAMES.len() {
            if is_same(Self::NAMES[at].as_bytes(), name.as_bytes()) {
                return Some(Self::RANGES[at]);
            }
            at += 1;
        }
        None
    }
}

/// Equality, where constants are made.
const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// A timeout policy: timeouts in place of those in the settings, for the flows that `-j CT --timeout` gives it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutPolicy {
    /// What rules call it.
    pub name: String,
    /// Family of the flows it is for.
    pub family: Family,
    /// Protocol of the flows it is for; `None`: those without a tracker of their own.
    pub proto: Option<u8>,
    /// Settings it replaces, by name, in seconds.
    pub timeouts: Vec<(&'static str, u32)>,
}

/// Every timeout policy, with the settings of the flows under it. Rules name them by their place.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: Arc<[TimeoutPolicy]>,
    settings: Arc<[TrackSettings]>,
}

impl Policies {
    /// Most policies there can be.
    pub const MAX: usize = 255;

    /// These policies over these settings.
    ///
    /// # Errors
    /// When a policy replaces a setting that does not exist, or with a value out of its range.
    pub fn new(policies: Arc<[TimeoutPolicy]>, base: &TrackSettings) -> Result<Self, SettingError> {
        let under = |policy: &TimeoutPolicy| {
            let mut settings = *base;
            policy.timeouts.iter().try_for_each(|(name, secs)| settings.set(name, &secs.to_string()))?;
            Ok(settings)
        };
        let settings = policies.iter().map(under).collect::<Result<_, _>>()?;
        Ok(Self { policies, settings })
    }

    /// The same policies over other settings.
    ///
    /// # Errors
    /// Never for policies that exist, see [`Self::new`].
    pub fn over(&self, base: &TrackSettings) -> Result<Self, SettingError> {
        Self::new(Arc::clone(&self.policies), base)
    }

    /// The settings of the flows under each.
    #[must_use]
    pub const fn settings(&self) -> &Arc<[TrackSettings]> {
        &self.settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_set_by_the_name_it_is_listed_under() {
        let mut settings = TrackSettings::default();
        for name in TrackSettings::NAMES {
            settings.set(name, "1").unwrap();
        }
        assert!(settings.iter().all(|(_, value)| value == 1));
        assert!(settings.iter().map(|(name, _)| name).eq(TrackSettings::NAMES.iter().copied()));
    }

    #[test]
    fn a_policy_replaces_what_it_names_and_follows_the_rest() {
        let policy = TimeoutPolicy {
            name: "slow".to_owned(),
            family: Family::V4,
            proto: Some(6),
            timeouts: vec![("tcp_timeout_established", 3600)],
        };
        let mut settings = TrackSettings::default();
        let policies = Policies::new([policy.clone()].into(), &settings).unwrap();
        settings.set("tcp_timeout_close", "7").unwrap();
        settings.set("tcp_loose", "0").unwrap();
        let under = policies.over(&settings).unwrap().settings()[0];
        assert_eq!(under, TrackSettings { tcp_timeout_established: 3600, ..settings });
        let wrong = TimeoutPolicy { timeouts: vec![("tcp_timeout_closed", 5)], ..policy };
        assert!(matches!(Policies::new([wrong].into(), &settings), Err(SettingError::Unknown { .. })));
    }

    #[test]
    fn names_and_values_that_do_not_exist_are_refused() {
        let mut settings = TrackSettings::default();
        assert!(matches!(settings.set("tcp_lose", "0"), Err(SettingError::Unknown { .. })));
        for (name, value) in [
            ("tcp_loose", "2"),
            ("tcp_loose", "yes"),
            ("udp_timeout", "0"),
            ("udp_timeout", "-1"),
            ("udp_timeout", "20000001"),
            ("tcp_max_retrans", "256"),
            ("half_open_percent", "0"),
            ("half_open_percent", "101"),
            ("management_reserve_percent", "100"),
            ("adaptive_start_percent", "101"),
            ("udp_timeout", ""),
        ] {
            assert!(
                matches!(settings.set(name, value), Err(SettingError::BadValue { .. })),
                "{name}={value}"
            );
        }
        assert_eq!(settings, TrackSettings::default());
    }
}
