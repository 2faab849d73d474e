//! What a packet is to the tracker: of a known flow, the start of one, an error about one, or nothing that can be tracked.
//! Owner thread only.

use super::{Arrival, Tracker};
use crate::clock::Tick;
use crate::flow::record::{Slot, status};
use crate::flow::settings::TrackSettings;
use crate::flow::stats::InvalidReason;
use crate::flow::tracked::{Direction, FlowRef, Tracked};
use crate::flow::{icmp, key};
use crate::packet::{Fragment, L4Fault, Packet, Tuple, proto};
use crate::rules::conn::{PolicyId, Zone};
use crate::rules::model::CtState;
use crate::wire::checksum;

impl Tracker {
    pub(super) fn judge(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, now, settings, orders, base: _ } = arrival;
        if orders.notrack || packet.family().is_none() {
            return Tracked::untracked();
        }
        if let Some(reason) = unfit(packet, bytes, settings) {
            self.use_up_expected(packet, orders.zone, now);
            return Tracked::invalid(reason);
        }
        let mut may_open = true;
        if matches!(packet.tuple.proto, proto::ICMP | proto::ICMPV6) {
            match icmp::kind(packet, bytes) {
                icmp::Kind::Query { opens } => may_open = opens,
                icmp::Kind::Error(about) => return self.icmp_error(packet, &about, orders.zone, now),
                icmp::Kind::Untracked => return Tracked::untracked(),
                icmp::Kind::Invalid(reason) => return Tracked::invalid(reason),
            }
        }
        match self.find_packet(packet, orders.zone, now) {
            Some((slot, direction)) if self.table.record(slot).common.life().has(status::OWN_TIMEOUTS) => {
                self.found_under_policy(slot, direction, arrival)
            }
            Some((slot, direction)) => self.found(slot, direction, arrival),
            None if may_open => self.start(arrival),
            None => Tracked::invalid(InvalidReason::IcmpUnsolicited),
        }
    }

    /// A packet of a known flow.
    #[inline]
    pub(super) fn found(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
        match arrival.packet.tuple.proto {
            proto::TCP => self.tcp(slot, direction, arrival),
            proto::SCTP => self.sctp(slot, direction, arrival),
            _ => self.untyped(slot, direction, arrival),
        }
    }

    /// A packet of a known flow that has timeouts of its own.
    #[cold]
    fn found_under_policy(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
        let policy = self.table.record(slot).tail.extra().timeouts;
        let settings = self.settings_under(policy, arrival.settings);
        self.found(slot, direction, &Arrival { settings: &settings, ..*arrival })
    }

    /// The settings of flows under a policy; `settings` if there is none.
    pub(super) fn settings_under(&self, policy: Option<PolicyId>, settings: &TrackSettings) -> TrackSettings {
        policy.and_then(|PolicyId(id)| self.policies.get(usize::from(id))).copied().unwrap_or(*settings)
    }

    /// A packet that cannot be tracked uses up what is expected where it goes, as a packet of no known flow does whatever
    /// becomes of it.
    #[cold]
    fn use_up_expected(&mut self, packet: &Packet, zone: Zone, now: Tick) {
        if packet.has_tuple()
            && self.expectations.may_expect(&packet.tuple)
            && self.find_packet(packet, zone, now).is_none()
        {
            self.expectations.take(&packet.tuple, zone.id, now);
        }
    }

    /// The flow a packet belongs to.
    #[inline]
    fn find_packet(&mut self, packet: &Packet, zone: Zone, now: Tick) -> Option<(Slot, Direction)> {
        match self.table.find_at(packet.hint, &packet.tuple, zone) {
            Some((slot, direction)) if !self.table.record(slot).common.life().deadline.is_past(now) => {
                Some((slot, direction))
            }
            _ => self.find_live(packet.hash, &packet.tuple, zone, now),
        }
    }

    /// The flow a tuple belongs to. One whose time is up is removed on the way and not found.
    #[inline]
    pub(super) fn find_live(
        &mut self,
        hash: u64,
        tuple: &Tuple,
        zone: Zone,
        now: Tick,
    ) -> Option<(Slot, Direction)> {
        let (slot, direction) = self.table.find(hash, tuple, zone)?;
        if self.table.record(slot).common.life().deadline.is_past(now) {
            self.remove_entry(slot);
            self.stats.expired += 1;
            return None;
        }
        Some((slot, direction))
    }

    /// An ICMP error: RELATED if it is about a packet that some flow's side sent, and goes to that side.
    fn icmp_error(&mut self, packet: &Packet, about: &icmp::Embedded, zone: Zone, now: Tick) -> Tracked {
        // The error travels against the packet it is about.
        let wanted = key::inverse(&about.tuple);
        let hash = self.hash(&wanted);
        let Some((slot, direction)) = self.find_live(hash, &wanted, zone, now) else {
            return Tracked::invalid(InvalidReason::IcmpErrorNoFlow);
        };
        if packet.tuple.dst != wanted.dst {
            return Tracked::invalid(InvalidReason::IcmpErrorAddress);
        }
        Tracked::valid(CtState::Related, direction, FlowRef::About(slot))
    }
}

/// Why a packet cannot be tracked at all, whatever its flow.
#[inline]
fn unfit(packet: &Packet, bytes: &[u8], settings: &TrackSettings) -> Option<InvalidReason> {
    if packet.fragment != Fragment::Whole || packet.l4_fault.is_some() {
        return misshapen(packet);
    }
    (settings.checksum && !checksum::l4_ok(bytes, packet)).then_some(InvalidReason::BadChecksum)
}

/// Why a packet that is a fragment, or has a fault, cannot be tracked.
#[cold]
fn misshapen(packet: &Packet) -> Option<InvalidReason> {
    // Datagrams are put together before they come here; what still is a fragment could not be.
    if packet.fragment != Fragment::Whole {
        return Some(InvalidReason::LaterFragment);
    }
    packet.l4_fault.map(|fault| match fault {
        L4Fault::Truncated => InvalidReason::Truncated,
        L4Fault::BadLength => InvalidReason::BadLength,
        L4Fault::BadFlags => InvalidReason::BadFlags,
        L4Fault::BadChecksum => InvalidReason::BadChecksum,
        L4Fault::NoUpperLayer => InvalidReason::NoUpperLayer,
        L4Fault::BadChunk => InvalidReason::BadChunk,
        L4Fault::BadGre => InvalidReason::BadGre,
    })
}
