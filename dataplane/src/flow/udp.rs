//! UDP and UDP-Lite: a flow that goes both ways for two seconds becomes a stream. Linux `nf_conntrack_proto_udp.c`.

use super::generic::Refresh;
use super::settings::TrackSettings;
use crate::clock::Tick;

/// How long a flow must live before it can count as a stream. A question and its answer take less.
const STREAM_AFTER_SECS: u32 = 2;

/// What a packet does to a flow that was already (`seen_reply`) or not yet answered. `created` is asked for only
/// when it matters, because it is on the record's second line.
pub(super) fn refresh(
    (seen_reply, assured): (bool, bool),
    created: impl FnOnce() -> Tick,
    now: Tick,
    settings: &TrackSettings,
) -> Refresh {
    if !seen_reply {
        return Refresh { timeout_secs: settings.udp_timeout, assured: false };
    }
    let is_stream = assured || {
        let stream_from = created().plus_secs(STREAM_AFTER_SECS);
        stream_from != now && stream_from.is_past(now)
    };
    let timeout_secs = if is_stream { settings.udp_timeout_stream } else { settings.udp_timeout };
    Refresh { timeout_secs, assured: is_stream }
}
