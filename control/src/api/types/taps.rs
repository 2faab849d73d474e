//! Packets looked at as they go by: captures, traces, and the last drops.

use super::{Explanation, Named};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where on its way a packet is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CapturePoint {
    /// As it comes in.
    Rx,
    /// Once it is known what becomes of it.
    Verdict,
    /// As it leaves, answers to rejected packets too.
    Tx,
}

/// Which packets to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TapFilter {
    /// A program in classic BPF, an instruction each `[code, jt, jf, k]`: what `tcpdump -ddd FILTER` prints behind its first
    /// line, for Ethernet. Empty: every packet.
    pub program: Vec<(u16, u8, u8, u32)>,
    /// Only of these NICs; empty: of all.
    pub interfaces: Vec<String>,
    /// Only packets that were dropped.
    pub drops: bool,
    /// Only packets that were dropped for these reasons, by name.
    pub reasons: Vec<String>,
    /// Only packets about which this rule decided: its `id` in `GET /v1/rules`.
    pub rule: Option<String>,
    /// One in so many, per worker; 0 and 1 are all.
    pub every: u32,
    /// At most so many a second, per worker; 0: no limit.
    pub per_sec: u32,
    /// Ends after so many packets; 0: never.
    pub count: u64,
    /// Ends after so many seconds; 0: never.
    pub secs: u64,
}

/// What to capture. The answer is a pcapng file, for as long as the client reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureRequest {
    /// Which packets.
    pub filter: TapFilter,
    /// Where; empty: at their verdict. With `drops`, `reasons` or `rule` nowhere else.
    pub points: Vec<CapturePoint>,
    /// Bytes kept of each frame; 0: all.
    pub snap_len: u32,
    /// MiB of packets that may wait to be read, of all workers together; 0: 32.
    pub buffer_mib: u32,
}

/// A packet that passed by, followed through the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceRow {
    /// When, in microseconds since 1970.
    pub at_micros: u64,
    /// Its way.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// Packets lost before this one, since nobody had read those before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Packets before this one that were wanted, and left out for `every` or `per_sec`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
}

/// A packet that was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropRow {
    /// When, in microseconds since 1970.
    pub at_micros: u64,
    /// The worker that dropped it.
    pub worker: u8,
    /// Which of its drops this is, from 0.
    pub number: u64,
    /// The NIC it came in on.
    #[serde(rename = "in")]
    pub ingress: String,
    /// One line: what it is.
    pub summary: String,
    /// Why.
    pub reason: Named,
    /// Its connection state, if it got as far as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ct: Option<String>,
    /// The rule or policy that dropped it, if one did: `FORWARD 3`, `FORWARD policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The rule's stable name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_text: Option<String>,
    /// All of that as a capture file has it beside the packet: `verdict=drop reason=rule_drop ...`.
    pub comment: String,
    /// Bytes of the whole frame, Ethernet header on.
    pub frame_len: u32,
    /// Its first bytes, in hexadecimal digits.
    pub frame: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
