//! TCP: what a segment does to its connection. Pure functions over values: the tracker loads a [`TcpFlow`] from its
//! record, [`open`]s or [`advance`]s it, and stores it back. Only the owning worker runs this.
//!
//! Order of judgement, as in Linux `nf_conntrack_proto_tcp.c`: flags and state ([`table`]) give the next state or
//! INVALID; a few cases are decided by what was seen last (reopening, challenge ACKs, resets); then the window
//! ([`window`]); only then does the state change and a timer start.
//!
//! Two words recur. *Ignored*: the segment may be right and we wrong, so it passes as part of the flow and nothing
//! changes, except that it is remembered: an answer to it will tell who was right. *Liberal*: window checks never
//! make a segment INVALID, because the connection was picked up midway or the operator said so.

mod established;
mod store;
mod table;
mod window;

#[cfg(test)]
mod tests;

pub(super) use established::advance_open;
use table::Next;
use window::Fit;

use super::settings::TrackSettings;
use super::stats::InvalidReason;
use super::tracked::Direction;
use crate::wire::tcp::{Class, Segment, SynOptions, before};

/// State of a TCP connection, numbered as in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum TcpState {
    /// No connection yet.
    #[default]
    None = 0,
    /// A SYN from the initiator.
    SynSent = 1,
    /// A SYN-ACK in answer.
    SynRecv = 2,
    /// Open.
    Established = 3,
    /// One side has sent a FIN.
    FinWait = 4,
    /// That FIN was acknowledged.
    CloseWait = 5,
    /// Both sides have sent a FIN.
    LastAck = 6,
    /// The last FIN was acknowledged.
    TimeWait = 7,
    /// Reset.
    Close = 8,
    /// SYNs from both sides.
    SynSent2 = 9,
}

/// Bits of [`Side::flags`].
pub(super) mod side_flag {
    /// Its SYN offered window scaling.
    pub(crate) const WINDOW_SCALE: u8 = 1 << 0;
    /// It understands SACK.
    pub(crate) const SACK_PERM: u8 = 1 << 1;
    /// It sent the first FIN.
    pub(crate) const CLOSE_INIT: u8 = 1 << 2;
    /// Its windows are not known well enough to judge it.
    pub(crate) const BE_LIBERAL: u8 = 1 << 3;
    /// It has sent data that was not acknowledged yet.
    pub(crate) const DATA_UNACKNOWLEDGED: u8 = 1 << 4;
    /// `maxack` holds something.
    pub(crate) const MAXACK_SET: u8 = 1 << 5;
}

impl SynOptions {
    /// What it offers as bits of [`Side::flags`].
    const fn side_flags(self) -> u8 {
        let mut flags = 0;
        if self.scale.is_some() {
            flags |= side_flag::WINDOW_SCALE;
        }
        if self.sack_permitted {
            flags |= side_flag::SACK_PERM;
        }
        flags
    }
}

/// Bits of [`Last::flags`]; the low two are [`side_flag`]'s `WINDOW_SCALE` and `SACK_PERM`, of an ignored SYN.
pub(super) mod last_flag {
    /// The ignored SYN may be answered by a challenge ACK (RFC 5961 section 4).
    pub(crate) const CHALLENGE_ACK: u8 = 1 << 2;
    /// SYNs from both sides were seen.
    pub(crate) const SIMULTANEOUS_OPEN: u8 = 1 << 3;
}

/// What one side has shown of its sequence space. Names follow G. van Rooij, "Real Stateful TCP Packet Filtering in
/// IP Filter" (2001), section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Side {
    /// One past the highest sequence number it sent.
    pub(super) end: u32,
    /// Highest sequence number it may send, by the other side's window.
    pub(super) maxend: u32,
    /// Largest window it offered, scaled; zero until it has been heard.
    pub(super) maxwin: u32,
    /// Highest acknowledgement it sent.
    pub(super) maxack: u32,
    /// Shift of the windows it offers, at most 14.
    pub(super) scale: u8,
    pub(super) flags: u8,
}

/// The segment looked at last: in-window ones leave their class and direction, ACKs and ignored ones all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) class: Class,
    pub(super) direction: Direction,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) end: u32,
    /// As on the wire, unscaled.
    pub(super) window: u16,
    /// Shift offered by an ignored SYN.
    pub(super) scale: u8,
    pub(super) flags: u8,
}

/// Everything tracked about one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpFlow {
    pub(super) state: TcpState,
    /// By [`Direction::index`].
    pub(super) sides: [Side; 2],
    pub(super) last: Last,
    /// How often the last ACK was repeated.
    pub(super) retrans: u8,
}

/// What else the entry says, for the rules that depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryFacts {
    /// As it was before this segment.
    pub(super) seen_reply: bool,
    pub(super) assured: bool,
    /// Seconds until the entry would expire.
    pub(super) secs_left: u32,
}

/// What a segment does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// In order: the flow has changed; `timeout_secs` restarts the timer, `None` leaves it.
    Accept { timeout_secs: Option<u32>, assured: bool },
    /// Part of the flow, but nothing is concluded from it.
    Ignore,
    /// INVALID. `timeout_secs` shortens the timer.
    Invalid { reason: InvalidReason, timeout_secs: Option<u32> },
    /// Part of the flow and the end of it: remove the entry.
    Delete,
    /// The connection was over and this starts another: remove the entry and look up again.
    Reopen,
}

/// What flags, state and history say, before the window is looked at.
enum Course {
    /// This state is next if the segment is in the window.
    Check(TcpState),
    /// This state is next, whatever the window.
    Go(TcpState),
    Done(Step),
}

/// Below this many seconds a timer is not worth shortening.
const SHORTEN_ABOVE_SECS: u32 = 120;

impl TcpState {
    /// The state behind a number; out-of-range numbers, which only a foreign region could hold, count as none.
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::SynSent,
            2 => Self::SynRecv,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSent2,
            _ => Self::None,
        }
    }

    /// The name `conntrack -L` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }

    /// Whether the connection is being closed or is over.
    const fn is_closing(self) -> bool {
        matches!(self, Self::FinWait | Self::CloseWait | Self::LastAck | Self::TimeWait | Self::Close)
    }

    /// Seconds of idleness the state allows.
    #[inline]
    pub(super) const fn timeout_secs(self, settings: &TrackSettings) -> u32 {
        match self {
            Self::None | Self::SynSent => settings.tcp_timeout_syn_sent,
            Self::SynRecv => settings.tcp_timeout_syn_recv,
            Self::Established => settings.tcp_timeout_established,
            Self::FinWait => settings.tcp_timeout_fin_wait,
            Self::CloseWait => settings.tcp_timeout_close_wait,
            Self::LastAck => settings.tcp_timeout_last_ack,
            Self::TimeWait => settings.tcp_timeout_time_wait,
            Self::Close => settings.tcp_timeout_close,
            Self::SynSent2 => settings.tcp_timeout_syn_sent2,
        }
    }
}

/// The connection a segment of no known connection starts, and its timeout in seconds.
pub(super) fn open(seg: &Segment<'_>, settings: &TrackSettings) -> Result<(TcpFlow, u32), InvalidReason> {
    let Next::To(first) = table::next(Direction::Orig, seg.class(), TcpState::None) else {
        return Err(InvalidReason::TcpNoStart);
    };
    let mut flow = TcpFlow::new();
    let side = &mut flow.sides[0];
    side.end = seg.end();
    side.maxwin = u32::from(seg.window).max(1);
    if first == TcpState::SynSent {
        side.maxend = side.end;
        side.take_options(seg);
    } else if settings.tcp_loose {
        // Its history is lost: assume SACK, and that windows are scaled by an unknown shift.
        side.maxend = side.end.wrapping_add(side.maxwin);
        flow.sides.iter_mut().for_each(|side| side.flags = side_flag::SACK_PERM | side_flag::BE_LIBERAL);
    } else {
        return Err(InvalidReason::TcpNoPickup);
    }
    let entry = EntryFacts { seen_reply: false, assured: false, secs_left: 0 };
    match advance(&mut flow, seg, Direction::Orig, entry, settings) {
        Step::Accept { timeout_secs, .. } => {
            Ok((flow, timeout_secs.unwrap_or_else(|| first.timeout_secs(settings))))
        }
        Step::Ignore | Step::Delete | Step::Reopen => Err(InvalidReason::TcpNoStart),
        Step::Invalid { reason, .. } => Err(reason),
    }
}

/// Judges a segment of a known connection and brings the connection up to date. The flow must be stored back
/// whatever the outcome: ignored and INVALID segments are remembered too.
pub(super) fn advance(
    flow: &mut TcpFlow,
    seg: &Segment<'_>,
    direction: Direction,
    entry: EntryFacts,
    settings: &TrackSettings,
) -> Step {
    let old = flow.state;
    // Nearly every packet: data or an ACK of an open connection, which stays open.
    let (next, checked) = if old == TcpState::Established && seg.class() == Class::Ack {
        (old, false)
    } else {
        match course(flow, seg, direction, entry, settings) {
            Course::Check(next) => (next, false),
            Course::Go(next) => (next, true),
            Course::Done(step) => return step,
        }
    };
    if !checked {
        match window::check(flow, seg, direction, settings) {
            Fit::Accept => {}
            Fit::Ignore => return Step::Ignore,
            Fit::Invalid(reason) => {
                let timeout_secs = note_invalid(flow, seg.class(), direction, entry, settings);
                return Step::Invalid { reason, timeout_secs };
            }
        }
    }
    flow.last.class = seg.class();
    flow.last.direction = direction;
    flow.state = next;
    if old != next && next == TcpState::FinWait {
        flow.sides[direction.index()].flags |= side_flag::CLOSE_INIT;
    }
    conclude(flow, seg.class(), old, entry, settings)
}

/// Flags, state and history.
fn course(
    flow: &mut TcpFlow,
    seg: &Segment<'_>,
    direction: Direction,
    entry: EntryFacts,
    settings: &TrackSettings,
) -> Course {
    let (old, class) = (flow.state, seg.class());
    let over = matches!(old, TcpState::TimeWait | TcpState::Close);
    match table::next(direction, class, old) {
        Next::Invalid => Course::Done(Step::Invalid { reason: InvalidReason::TcpState, timeout_secs: None }),
        Next::Ignore => ignore(flow, seg, direction),
        Next::To(TcpState::SynSent) if over => {
            if flow.may_reopen(direction) {
                Course::Done(Step::Reopen)
            } else {
                ignore(flow, seg, direction)
            }
        }
        Next::To(TcpState::TimeWait)
            if old == TcpState::LastAck
                && class == Class::Ack
                && flow.last.direction != direction
                && flow.last.class == Class::Syn
                && flow.last.flags & last_flag::CHALLENGE_ACK != 0 =>
        {
            // It answers the SYN we let through; it does not acknowledge the last FIN. RFC 5961 section 4.
            flow.last.flags &= !last_flag::CHALLENGE_ACK;
            Course::Done(Step::Ignore)
        }
        Next::To(TcpState::SynSent2) => {
            flow.last.flags |= last_flag::SIMULTANEOUS_OPEN;
            Course::Check(TcpState::SynSent2)
        }
        Next::To(TcpState::SynRecv)
            if direction == Direction::Reply
                && class == Class::Ack
                && flow.last.flags & last_flag::SIMULTANEOUS_OPEN != 0 =>
        {
            Course::Check(TcpState::Established)
        }
        Next::To(TcpState::Close) if class == Class::Rst => reset(flow, seg, direction, entry, settings),
        Next::To(next) => Course::Check(next),
    }
}

/// A segment that may show that the two sides are in step and we are not: a SYN of the initiator, a SYN-ACK in
/// answer, an ACK in answer to the first SYN. Let through and remembered.
fn ignore(flow: &mut TcpFlow, seg: &Segment<'_>, direction: Direction) -> Course {
    let class = seg.class();
    if class == Class::SynAck
        && flow.last.class == Class::Syn
        && flow.last.direction != direction
        && seg.ack == flow.last.end
    {
        // It acknowledges a SYN we ignored: that SYN was good. Start over from what was remembered of it.
        flow.resync_to_last_syn(direction);
        return Course::Check(TcpState::SynRecv);
    }
    flow.last.class = class;
    flow.last.direction = direction;
    flow.last.seq = seg.seq;
    flow.last.end = seg.end();
    flow.last.window = seg.window;
    if class == Class::Syn && direction == Direction::Orig {
        let options = seg.syn_options();
        flow.last.flags = options.side_flags();
        flow.last.scale = options.scale.unwrap_or(0);
        if flow.state == TcpState::LastAck {
            flow.last.flags |= last_flag::CHALLENGE_ACK;
        }
    }
    if flow.state == TcpState::SynSent && class == Class::Ack && direction == Direction::Reply {
        flow.last.ack = seg.ack;
    }
    Course::Done(Step::Ignore)
}

/// A reset that the table would close the connection for. RFC 5961 section 3: one that is in the window but not
/// exactly next may be forged, so it must not close an open connection.
fn reset(
    flow: &TcpFlow,
    seg: &Segment<'_>,
    direction: Direction,
    entry: EntryFacts,
    settings: &TrackSettings,
) -> Course {
    let (old, last) = (flow.state, flow.last);
    if old.is_closing() {
        // The ports may be in use again already: what we remember is out of date.
        return Course::Go(TcpState::Close);
    }
    let peer = flow.sides[direction.opposite().index()];
    let is_established = old == TcpState::Established && entry.assured;
    let mut next = TcpState::Close;
    // After a SYN that was let through, the peer's highest acknowledgement may be of the connection before.
    if peer.flags & side_flag::MAXACK_SET != 0 && last.class != Class::Syn {
        if seg.seq == 0 && !is_established {
            return Course::Check(next);
        }
        if before(seg.seq, peer.maxack) && !settings.tcp_ignore_invalid_rst {
            return Course::Done(Step::Invalid { reason: InvalidReason::TcpReset, timeout_secs: None });
        }
        let follows_data = last.class == Class::Ack && last.direction == direction && seg.seq == last.end;
        if !is_established || seg.seq == peer.maxack || follows_data {
            return Course::Check(next);
        }
        next = old;
    }
    let follows_syn = entry.seen_reply && last.class == Class::Syn && last.direction != direction;
    let answers_ignored = (follows_syn || !entry.assured && last.class == Class::Ack) && seg.ack == last.end;
    let answers_challenge = old == TcpState::SynSent
        && last.class == Class::Ack
        && last.direction == Direction::Reply
        && seg.seq == last.ack;
    if answers_ignored || answers_challenge { Course::Go(next) } else { Course::Check(next) }
}

/// An out-of-window FIN or RST from one side and then the other: the connection is over and we are out of step.
/// Gives the timeout its entry should be cut to.
fn note_invalid(
    flow: &mut TcpFlow,
    class: Class,
    direction: Direction,
    entry: EntryFacts,
    settings: &TrackSettings,
) -> Option<u32> {
    if !entry.assured || !matches!(class, Class::Rst | Class::Fin) {
        return None;
    }
    if flow.last.direction != direction && matches!(flow.last.class, Class::Rst | Class::Fin) {
        let cut = settings.tcp_timeout_unacknowledged;
        return (entry.secs_left >= SHORTEN_ABOVE_SECS && entry.secs_left > cut).then_some(cut);
    }
    flow.last.class = class;
    flow.last.direction = direction;
    None
}

/// After an in-window segment: the timer, ASSURED, and whether the entry lives on.
fn conclude(
    flow: &TcpFlow,
    class: Class,
    old: TcpState,
    entry: EntryFacts,
    settings: &TrackSettings,
) -> Step {
    let next = flow.state;
    let mut timeout = timeout_secs(flow, class, settings);
    if entry.seen_reply {
        let assured = !entry.assured
            && matches!(old, TcpState::SynRecv | TcpState::Established)
            && next == TcpState::Established;
        return Step::Accept { timeout_secs: Some(timeout), assured };
    }
    if class == Class::Rst {
        return Step::Delete;
    }
    if class == Class::Syn && old == TcpState::SynSent {
        // A SYN sent again does not keep its entry alive: its ports may be reused for ever.
        return Step::Accept { timeout_secs: None, assured: false };
    }
    if next == TcpState::Established {
        timeout = timeout.min(settings.tcp_timeout_unacknowledged);
    }
    Step::Accept { timeout_secs: Some(timeout), assured: false }
}

/// The state's timeout, or a shorter one if there is a reason to doubt the connection.
fn timeout_secs(flow: &TcpFlow, class: Class, settings: &TrackSettings) -> u32 {
    let full = flow.state.timeout_secs(settings);
    let (retrans, unacked) = (settings.tcp_timeout_max_retrans, settings.tcp_timeout_unacknowledged);
    let [orig, reply] = flow.sides;
    let is_unsure = (orig.flags | reply.flags) & side_flag::DATA_UNACKNOWLEDGED != 0;
    if flow.retrans >= settings.tcp_max_retrans && full > retrans {
        retrans
    } else if class == Class::Rst {
        // It may have closed the connection at its receiver; if not, what follows will tell.
        settings.tcp_timeout_close
    } else if is_unsure && full > unacked {
        unacked
    } else if flow.last.window == 0 && full > retrans {
        retrans
    } else {
        full
    }
}

impl TcpFlow {
    pub(super) const fn new() -> Self {
        const SIDE: Side = Side { end: 0, maxend: 0, maxwin: 0, maxack: 0, scale: 0, flags: 0 };
        const LAST: Last = Last {
            class: Class::None,
            direction: Direction::Orig,
            seq: 0,
            ack: 0,
            end: 0,
            window: 0,
            scale: 0,
            flags: 0,
        };
        Self { state: TcpState::None, sides: [SIDE; 2], last: LAST, retrans: 0 }
    }

    /// Whether a SYN in this direction may replace a connection that is over: it was closed by a FIN, or the last
    /// word was a reset from this side.
    const fn may_reopen(&self, direction: Direction) -> bool {
        let [orig, reply] = &self.sides;
        (orig.flags | reply.flags) & side_flag::CLOSE_INIT != 0
            || self.last.direction as u8 == direction as u8 && matches!(self.last.class, Class::Rst)
    }

    /// Takes the ignored SYN for the start of the connection; `direction` is that of its SYN-ACK, whose side will be
    /// initialised from it.
    fn resync_to_last_syn(&mut self, direction: Direction) {
        let initiator = &mut self.sides[direction.opposite().index()];
        initiator.end = self.last.end;
        initiator.maxend = self.last.end;
        initiator.maxwin = u32::from(self.last.window).max(1);
        initiator.scale = self.last.scale;
        self.last.flags &= !last_flag::CHALLENGE_ACK;
        initiator.flags = self.last.flags & (side_flag::WINDOW_SCALE | side_flag::SACK_PERM);
        let answering = &mut self.sides[direction.index()];
        *answering = Side { flags: answering.flags & side_flag::BE_LIBERAL, ..Side::default() };
    }
}
