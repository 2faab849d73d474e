//! Protocols without a state machine: a timer, and for some ASSURED once the flow has been answered. Pure functions.
//! Linux `nf_conntrack_proto_{generic,gre,udp,icmp}.c`.

use super::settings::TrackSettings;
use super::udp;
use crate::clock::Tick;
use crate::packet::proto;

/// What a packet does to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refresh {
    /// Seconds of idleness from now on.
    pub(super) timeout_secs: u32,
    /// Whether the flow is safe from eviction from now on.
    pub(super) assured: bool,
}

/// What a packet of any protocol but TCP and SCTP does to its flow; see [`udp::refresh`] for the arguments. A new flow is
/// neither answered nor assured.
pub(super) fn refresh(
    proto: u8,
    (seen_reply, assured): (bool, bool),
    created: impl FnOnce() -> Tick,
    now: Tick,
    settings: &TrackSettings,
) -> Refresh {
    let by_reply = |single, stream| Refresh {
        timeout_secs: if seen_reply { stream } else { single },
        assured: seen_reply,
    };
    let plain = |timeout_secs| Refresh { timeout_secs, assured: false };
    match proto {
        proto::UDP | proto::UDPLITE => udp::refresh((seen_reply, assured), created, now, settings),
        proto::ICMP => plain(settings.icmp_timeout),
        proto::ICMPV6 => plain(settings.icmpv6_timeout),
        proto::GRE => by_reply(settings.gre_timeout, settings.gre_timeout_stream),
        _ => plain(settings.generic_timeout),
    }
}
