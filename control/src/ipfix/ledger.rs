//! What has been reported of which flow, so that each octet is reported once. One thread's, pure: time is an argument.
//!
//! Only flows that were reported and go on are in the book, by tuple, zone and the moment they began: a flow keeps those
//! when it moves to another worker, and one that takes its place does not have them.

use super::message::EndReason;
use dataplane::clock::{TICKS_PER_SEC, Tick};
use dataplane::flow::{FlowView, SctpState, TcpState, TrackSettings};
use dataplane::packet::{Tuple, proto};
use std::collections::HashMap;

/// What of a flow is to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// IP octets since the report before, of the two directions.
    pub bytes: [u64; 2],
    /// Packets.
    pub packets: [u64; 2],
    /// Since when.
    pub start: Tick,
    /// Until when.
    pub end: Tick,
    /// Why now.
    pub reason: EndReason,
}

/// A flow that was reported and goes on.
#[derive(Clone, Copy, Debug)]
struct Reported {
    created: Tick,
    packets: [u64; 2],
    bytes: [u64; 2],
    until: Tick,
    /// The pass in which it was last seen.
    pass: u32,
}

/// See the module's head.
#[derive(Debug)]
pub struct Ledger {
    known: HashMap<(Tuple, u16), Reported>,
    active_ticks: u32,
    idle_ticks: u32,
    pass: u32,
}

impl Ledger {
    /// Flows are reported every `active_secs`, and once they have been idle for `idle_secs`.
    #[must_use]
    pub fn new(active_secs: u32, idle_secs: u32) -> Self {
        let ticks = |secs: u32| secs.saturating_mul(TICKS_PER_SEC);
        Self {
            known: HashMap::new(),
            active_ticks: ticks(active_secs),
            idle_ticks: ticks(idle_secs),
            pass: 0,
        }
    }

    /// Flows in the book.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A flow as it is now, one after the other in a pass over all: what is due.
    pub fn look(&mut self, view: &FlowView, now: Tick, settings: &TrackSettings) -> Option<Account> {
        let pass = self.pass;
        let known = self.known.get_mut(&key(view)).filter(|known| known.created == view.created);
        let since = known.map_or(view.created, |known| {
            known.pass = pass;
            known.until
        });
        // One that is over is about to be removed, and that will be told.
        if view.is_expired(now) {
            return None;
        }
        // It may have begun a moment after `now` was read.
        let age = if since.is_past(now) { now.0.wrapping_sub(since.0) } else { 0 };
        let seen = last_seen(view, now, settings);
        let reason = if now.0.wrapping_sub(seen.0) >= self.idle_ticks {
            EndReason::Idle
        } else if age >= self.active_ticks {
            EndReason::Active
        } else {
            return None;
        };
        let account = self.account(view, seen, reason)?;
        let Account { end, .. } = account;
        let (packets, bytes, created) = (view.packets, view.bytes, view.created);
        self.known.insert(key(view), Reported { created, packets, bytes, until: end, pass: self.pass });
        Some(account)
    }

    /// A flow has left the table.
    pub fn ended(
        &mut self,
        view: &FlowView,
        at: Tick,
        asked: bool,
        settings: &TrackSettings,
    ) -> Option<Account> {
        let account = self.account(view, last_seen(view, at, settings), end_reason(view, at, asked));
        self.known.remove(&key(view));
        account
    }

    /// A flow that goes on while we do not.
    pub fn left(&mut self, view: &FlowView, now: Tick, settings: &TrackSettings) -> Option<Account> {
        self.account(view, last_seen(view, now, settings), EndReason::Forced)
    }

    /// A pass over all flows is over. What was not seen in it nor in the one before is gone, and its end was missed.
    pub fn end_pass(&mut self) {
        let pass = self.pass;
        self.known.retain(|_, known| pass.wrapping_sub(known.pass) <= 1);
        self.pass = pass.wrapping_add(1);
    }

    /// What has come since the last report; `None` if nothing has.
    fn account(&self, view: &FlowView, seen: Tick, reason: EndReason) -> Option<Account> {
        let known = self.known.get(&key(view)).filter(|known| known.created == view.created);
        let (packets, bytes, start) =
            known.map_or(([0; 2], [0; 2], view.created), |known| (known.packets, known.bytes, known.until));
        let since = |now: [u64; 2], then: [u64; 2]| [0, 1].map(|at| now[at].saturating_sub(then[at]));
        let (packets, bytes) = (since(view.packets, packets), since(view.bytes, bytes));
        // Time is told in ticks, and a guess: it must not run backwards.
        let end = if seen.is_past(start) { start } else { seen };
        (packets != [0; 2]).then_some(Account { bytes, packets, start, end, reason })
    }
}

/// What tells flows apart.
const fn key(view: &FlowView) -> (Tuple, u16) {
    (view.orig, view.zone.id)
}

/// When the last packet came: so long before the deadline as the timeout of its state is. A flow with timeouts of its own
/// makes a wrong guess of it; it stays between the beginning of the flow and now.
fn last_seen(view: &FlowView, now: Tick, settings: &TrackSettings) -> Tick {
    let timeout = timeout_secs(view, settings).saturating_mul(TICKS_PER_SEC);
    let guess = Tick(view.deadline.0.wrapping_sub(timeout));
    if !guess.is_past(now) {
        now
    } else if guess.is_past(view.created) {
        // A timeout longer than it has been there.
        if timeout == 0 { now } else { view.created }
    } else {
        guess
    }
}

/// The timeout that a flow's last packet has set, going by the settings.
fn timeout_secs(view: &FlowView, settings: &TrackSettings) -> u32 {
    match (view.tcp_state, view.sctp_state, view.orig.proto) {
        (Some(state), ..) => match state {
            TcpState::None | TcpState::SynSent => settings.tcp_timeout_syn_sent,
            TcpState::SynSent2 => settings.tcp_timeout_syn_sent2,
            TcpState::SynRecv => settings.tcp_timeout_syn_recv,
            TcpState::Established => settings.tcp_timeout_established,
            TcpState::FinWait => settings.tcp_timeout_fin_wait,
            TcpState::CloseWait => settings.tcp_timeout_close_wait,
            TcpState::LastAck => settings.tcp_timeout_last_ack,
            TcpState::TimeWait => settings.tcp_timeout_time_wait,
            TcpState::Close => settings.tcp_timeout_close,
        },
        (_, Some(_), _) => 0,
        (.., proto::UDP | proto::UDPLITE) if view.is_assured() => settings.udp_timeout_stream,
        (.., proto::UDP | proto::UDPLITE) => settings.udp_timeout,
        (.., proto::ICMP) => settings.icmp_timeout,
        (.., proto::ICMPV6) => settings.icmpv6_timeout,
        _ => settings.generic_timeout,
    }
}

/// Why a flow has left the table.
fn end_reason(view: &FlowView, at: Tick, asked: bool) -> EndReason {
    let is_closed = matches!(
        view.tcp_state,
        Some(
            TcpState::FinWait
                | TcpState::CloseWait
                | TcpState::LastAck
                | TcpState::TimeWait
                | TcpState::Close
        )
    ) || matches!(view.sctp_state, Some(SctpState::Closed | SctpState::ShutdownAckSent));
    match (asked, is_closed, view.is_expired(at)) {
        (true, ..) => EndReason::Forced,
        (_, true, _) => EndReason::Ended,
        (_, _, true) => EndReason::Idle,
        _ => EndReason::NoRoom,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::flow::{Remembered, Slot};
    use dataplane::ids::WorkerId;
    use dataplane::packet::Family;
    use dataplane::rules::conn::Zone;

    const SETTINGS: fn() -> TrackSettings = TrackSettings::default;

    fn secs(secs: u32) -> Tick {
        Tick::default().plus_secs(secs)
    }

    /// A UDP flow that began at `created` and whose last packet came at `seen`.
    fn udp(created: u32, seen: u32, packets: u64) -> FlowView {
        let family = Family::V4;
        let orig = Tuple { src: 1, dst: 2, src_port: 3, dst_port: 4, proto: proto::UDP, family };
        FlowView {
            worker: WorkerId(0),
            slot: Slot::default(),
            seq: 1,
            orig,
            reply: Tuple { src: 2, dst: 1, src_port: 4, dst_port: 3, ..orig },
            tcp_state: None,
            sctp_state: None,
            secs_left: 30,
            deadline: secs(seen + SETTINGS().udp_timeout),
            status: 0,
            packets: [packets, packets / 2],
            bytes: [packets * 100, packets / 2 * 50],
            labels: None,
            mark: 0,
            helper: None,
            zone: Zone::default(),
            created: secs(created),
            ingress: None,
            remembered: Remembered::default(),
        }
    }

    #[test]
    fn reports_of_a_flow_add_up_to_what_it_counted() {
        let mut ledger = Ledger::new(60, 20);
        let settings = SETTINGS();
        assert_eq!(ledger.look(&udp(10, 30, 4), secs(31), &settings), None, "too early");
        let first = ledger.look(&udp(10, 69, 10), secs(70), &settings).unwrap();
        assert_eq!((first.packets, first.bytes, first.reason), ([10, 5], [1000, 250], EndReason::Active));
        assert_eq!((first.start, first.end), (secs(10), secs(69)));
        assert_eq!(ledger.look(&udp(10, 80, 12), secs(81), &settings), None);
        let idle = ledger.look(&udp(10, 80, 12), secs(100), &settings).unwrap();
        assert_eq!((idle.packets, idle.bytes, idle.reason), ([2, 1], [200, 50], EndReason::Idle));
        assert_eq!((idle.start, idle.end), (secs(69), secs(80)));
        assert_eq!(ledger.look(&udp(10, 80, 12), secs(300), &settings), None, "nothing new");
        assert_eq!(ledger.ended(&udp(10, 80, 12), secs(110), false, &settings), None, "nothing new");
        assert!(ledger.is_empty());
        let last = ledger.ended(&udp(10, 80, 12), secs(110), false, &settings).unwrap();
        assert_eq!((last.packets, last.reason), ([12, 6], EndReason::Idle), "what is not known is new");
    }

    #[test]
    fn a_flow_that_takes_the_place_of_another_is_another() {
        let mut ledger = Ledger::new(60, 20);
        let settings = SETTINGS();
        ledger.look(&udp(10, 69, 10), secs(70), &settings).unwrap();
        let next = ledger.ended(&udp(71, 71, 3), secs(101), false, &settings).unwrap();
        assert_eq!((next.packets, next.start), ([3, 1], secs(71)));
    }

    #[test]
    fn a_flow_whose_end_was_missed_is_forgotten_after_two_passes() {
        let mut ledger = Ledger::new(60, 20);
        let look = |ledger: &mut Ledger| ledger.look(&udp(10, 69, 10), secs(70), &SETTINGS());
        look(&mut ledger).unwrap();
        // The pass in which it was seen, one without it, and another.
        for known in [1, 1, 0] {
            ledger.end_pass();
            assert_eq!(ledger.len(), known);
        }
        look(&mut ledger).unwrap();
        for _ in 0..5 {
            ledger.end_pass();
            assert_eq!(look(&mut ledger), None, "known");
        }
        assert_eq!(ledger.len(), 1);
    }

    /// Its owner may take a while to remove it.
    #[test]
    fn a_flow_that_is_over_stays_in_the_book_until_its_end_is_told() {
        let (mut ledger, settings) = (Ledger::new(60, 20), SETTINGS());
        ledger.look(&udp(10, 69, 10), secs(70), &settings).unwrap();
        for _ in 0..5 {
            assert_eq!(ledger.look(&udp(10, 69, 12), secs(120), &settings), None, "over");
            ledger.end_pass();
        }
        let last = ledger.ended(&udp(10, 69, 12), secs(121), false, &settings).unwrap();
        assert_eq!((last.packets, last.reason), ([2, 1], EndReason::Idle));
    }

    /// The clock is read before all tables are looked at.
    #[test]
    fn a_flow_that_began_a_moment_ago_is_new() {
        let mut ledger = Ledger::new(60, 20);
        assert_eq!(ledger.look(&udp(71, 71, 1), secs(70), &SETTINGS()), None);
    }

    #[test]
    fn the_reason_says_what_ended_it() {
        let reason = |view: &FlowView, at, asked| end_reason(view, secs(at), asked);
        let flow = udp(10, 20, 1);
        assert_eq!(reason(&flow, 25, true), EndReason::Forced);
        assert_eq!(reason(&flow, 50, false), EndReason::Idle);
        assert_eq!(reason(&flow, 25, false), EndReason::NoRoom);
        let tcp = |state| FlowView { tcp_state: Some(state), ..flow };
        assert_eq!(reason(&tcp(TcpState::TimeWait), 25, false), EndReason::Ended);
        assert_eq!(reason(&tcp(TcpState::Close), 500, false), EndReason::Ended);
        assert_eq!(reason(&tcp(TcpState::Established), 25, false), EndReason::NoRoom);
    }

    #[test]
    fn the_last_packet_came_between_the_beginning_and_now() {
        let settings = SETTINGS();
        assert_eq!(last_seen(&udp(10, 20, 1), secs(40), &settings), secs(20));
        // Timers of its own: longer, or shorter, than the settings say.
        let longer = FlowView { deadline: secs(5000), ..udp(10, 20, 1) };
        assert_eq!(last_seen(&longer, secs(40), &settings), secs(40));
        let shorter = FlowView { deadline: secs(22), ..udp(10, 20, 1) };
        assert_eq!(last_seen(&shorter, secs(40), &settings), secs(10));
    }
}
