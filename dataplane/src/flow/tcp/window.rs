//! Window tracking: whether a segment's sequence and acknowledgement numbers can be real. Linux 6.18 `tcp_in_window`,
//! after van Rooij's four inequalities, for a segment `seq..end` with acknowledgement (or SACK edge) `sack`:
//!
//! ```text
//! I    seq  <= sender.maxend                               else INVALID, or ignored if the overshoot is small
//! II   end  >= sender.end - receiver.maxwin                else ignored: data sent again
//! III  sack <= receiver.end                                else INVALID: acknowledges what was never sent
//! IV   sack >= receiver.end - max(sender.maxwin, 66000)    else ignored: very late
//! ```
//!
//! All comparisons are in sequence space, with netfilter's off-by-ones.

use super::{Side, TcpFlow, TcpState, side_flag};
use crate::flow::settings::TrackSettings;
use crate::flow::stats::InvalidReason;
use crate::flow::tracked::Direction;
use crate::packet::tcp_flag;
use crate::wire::tcp::{Class, Segment, after, before};

/// How far behind an acknowledgement may be, at least: one unscaled window and a little.
pub(super) const ACK_WINDOW_MIN: u32 = 66_000;

/// What the window says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Accept,
    Ignore,
    Invalid(InvalidReason),
}

/// The numbers of a segment that the inequalities are about.
#[derive(Clone, Copy)]
struct Numbers {
    seq: u32,
    end: u32,
    ack: u32,
    sack: u32,
}

impl Side {
    /// Takes over what a SYN offers; whether to be liberal stays.
    pub(super) fn take_options(&mut self, seg: &Segment<'_>) {
        let options = seg.syn_options();
        self.scale = options.scale.unwrap_or(0);
        self.flags = self.flags & side_flag::BE_LIBERAL | options.side_flags();
    }

    fn ack_window(&self) -> u32 {
        self.maxwin.max(ACK_WINDOW_MIN)
    }
}

/// Checks a segment and, if it fits, brings both sides up to date.
pub(super) fn check(
    flow: &mut TcpFlow,
    seg: &Segment<'_>,
    direction: Direction,
    settings: &TrackSettings,
) -> Fit {
    let state = flow.state;
    let [orig, reply] = &mut flow.sides;
    let (sender, receiver) = match direction {
        Direction::Orig => (orig, reply),
        Direction::Reply => (reply, orig),
    };
    let sack = if receiver.flags & side_flag::SACK_PERM != 0 { seg.sack_edge() } else { seg.ack };
    let mut n = Numbers { seq: seg.seq, end: seg.end(), ack: seg.ack, sack };
    if introduce(sender, receiver, seg, n, direction, state) {
        return Fit::Accept;
    }
    if !seg.has(tcp_flag::ACK) || seg.has(tcp_flag::RST) && n.ack == 0 {
        // No acknowledgement, or a reset with an empty one: take it as right.
        n.ack = receiver.end;
        n.sack = receiver.end;
    }
    if seg.has(tcp_flag::RST) && n.seq == 0 && state == TcpState::SynSent {
        // A reset in answer to a SYN.
        n.seq = sender.end;
        n.end = sender.end;
    }
    let fit = judge(sender, receiver, n);
    if fit != Fit::Accept {
        let liberal = settings.tcp_be_liberal || sender.flags & side_flag::BE_LIBERAL != 0;
        return if liberal { Fit::Accept } else { fit };
    }
    update(sender, receiver, seg, n);
    if seg.class() == Class::Ack {
        note_repeats(flow, seg, n, direction);
    }
    Fit::Accept
}

/// The first segment of a side, or a SYN that starts the handshake over, sets the side up from itself. `true` if
/// there is nothing left to check.
fn introduce(
    sender: &mut Side,
    receiver: &mut Side,
    seg: &Segment<'_>,
    n: Numbers,
    direction: Direction,
    state: TcpState,
) -> bool {
    let is_first = sender.maxwin == 0;
    let is_syn = seg.has(tcp_flag::SYN);
    if is_first && !is_syn {
        introduce_midway(sender, receiver, seg, n);
        return false;
    }
    let starts_over =
        is_syn && after(n.end, sender.end) && matches!(state, TcpState::SynSent | TcpState::SynRecv);
    if !is_first && !starts_over {
        return false;
    }
    sender.end = n.end;
    sender.maxend = n.end;
    sender.maxwin = u32::from(seg.window).max(1);
    sender.take_options(seg);
    let both = sender.flags & receiver.flags;
    if direction == Direction::Reply && both & side_flag::WINDOW_SCALE == 0 {
        // RFC 7323 section 2.2: scaling only if both SYNs offered it.
        sender.scale = 0;
        receiver.scale = 0;
    }
    // A SYN in answer to a SYN: simultaneous open.
    !seg.has(tcp_flag::ACK) && (is_first || direction == Direction::Reply)
}

/// The first segment seen of a side whose SYN was missed.
fn introduce_midway(sender: &mut Side, receiver: &mut Side, seg: &Segment<'_>, n: Numbers) {
    sender.end = n.end;
    sender.maxwin = (u32::from(seg.window) << sender.scale).max(1);
    sender.maxend = n.end.wrapping_add(sender.maxwin);
    if receiver.maxwin == 0 {
        // Nothing is known of the other side either: believe what is acknowledged.
        receiver.end = n.sack;
        receiver.maxend = n.sack;
    } else if n.sack == receiver.end.wrapping_add(1) {
        // Probably the answer to a keepalive, which is one byte behind.
        receiver.end = n.sack;
    }
}

/// The four inequalities. A small overshoot moves `sender.end`, so that its acknowledgement will be known.
fn judge(sender: &mut Side, receiver: &Side, n: Numbers) -> Fit {
    let ack_not_over = before(n.sack, receiver.end.wrapping_add(1));
    let ack_not_under = after(n.sack, receiver.end.wrapping_sub(sender.ack_window()).wrapping_sub(1));
    let data_not_under = after(n.end, sender.end.wrapping_sub(receiver.maxwin).wrapping_sub(1));
    if !before(n.seq, sender.maxend.wrapping_add(1)) {
        let overshoot = n.end.wrapping_sub(sender.maxend).wrapping_add(1);
        let is_small = receiver.maxwin != 0 && data_not_under && overshoot <= receiver.maxwin;
        if !(is_small && ack_not_under && ack_not_over) {
            return Fit::Invalid(InvalidReason::TcpSeqOver);
        }
        sender.end = n.end;
        sender.flags |= side_flag::DATA_UNACKNOWLEDGED;
        return Fit::Ignore;
    }
    if !ack_not_over {
        return Fit::Invalid(InvalidReason::TcpAckOver);
    }
    if (receiver.maxwin == 0 || data_not_under) && ack_not_under { Fit::Accept } else { Fit::Ignore }
}

/// Takes over what an in-window segment shows.
fn update(sender: &mut Side, receiver: &mut Side, seg: &Segment<'_>, n: Numbers) {
    let is_syn = seg.has(tcp_flag::SYN);
    let window = u32::from(seg.window) << if is_syn { 0 } else { sender.scale };
    sender.maxwin = sender.maxwin.max(window.wrapping_add(n.sack.wrapping_sub(n.ack)));
    if after(n.end, sender.end) {
        sender.end = n.end;
        sender.flags |= side_flag::DATA_UNACKNOWLEDGED;
    }
    if seg.has(tcp_flag::ACK) {
        let is_known = sender.flags & side_flag::MAXACK_SET != 0;
        if !is_known || after(n.ack, sender.maxack) {
            sender.maxack = n.ack;
            sender.flags |= side_flag::MAXACK_SET;
        }
    }
    if receiver.maxwin != 0 && after(n.end, sender.maxend) {
        receiver.maxwin = receiver.maxwin.wrapping_add(n.end.wrapping_sub(sender.maxend));
    }
    let allowed = n.sack.wrapping_add(window);
    if after(allowed, receiver.maxend.wrapping_sub(1)) {
        // A closed window still lets one byte through: the probe.
        receiver.maxend = allowed.wrapping_add(u32::from(window == 0));
    }
    if n.ack == receiver.end {
        receiver.flags &= !side_flag::DATA_UNACKNOWLEDGED;
    }
}

/// Counts how often the same ACK segment comes in a row.
fn note_repeats(flow: &mut TcpFlow, seg: &Segment<'_>, n: Numbers, direction: Direction) {
    let last = &mut flow.last;
    let is_repeat = last.direction == direction
        && last.seq == n.seq
        && last.ack == n.ack
        && last.end == n.end
        && last.window == seg.window;
    if is_repeat {
        flow.retrans = flow.retrans.wrapping_add(1);
    } else {
        last.direction = direction;
        (last.seq, last.ack, last.end) = (n.seq, n.ack, n.end);
        last.window = seg.window;
        flow.retrans = 0;
    }
}
