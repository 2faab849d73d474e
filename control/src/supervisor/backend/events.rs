//! Events of flows, from the workers' rings to whoever listens. There is no thread for it: whichever listener's turn it is
//! empties the rings for all of them. Each has a queue of its own, bounded; what finds it full is lost to that listener, who
//! is told how much.

use super::LiveBackend;
use crate::api::event_row;
use crate::api::types::{EventRow, FlowFilter};
use dataplane::flow::{EventKind, FlowEvent, Listening};
use rtrb::Consumer;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most listeners at one time. Each holds a connection of the API for as long as it listens.
pub(super) const LISTENERS_MAX: usize = 16;

/// Events that may wait for one listener. Listeners that lag share what they have not read.
const QUEUE_MAX: usize = 16_384;

/// Ends of flows that may wait for whoever keeps accounts: a full ring of each of four workers.
const ENDS_MAX: usize = 4 * 16_384;

/// How often events are collected while few come.
pub(super) const COLLECT_EVERY: Duration = Duration::from_millis(25);

/// So many at once are not few.
const MANY: usize = 1024;

/// Rounds without an event before a listener is asked for a sign of life.
pub(super) const QUIET_ROUNDS: u32 = 20;

/// Why one more cannot listen.
pub(super) fn too_many() -> String {
    format!("{LISTENERS_MAX} others are listening to events, and no more can")
}

/// One worker's events.
type Ring = Arc<Mutex<Consumer<FlowEvent>>>;

/// Between workers and listeners.
#[derive(Debug)]
pub(super) struct Hub {
    /// What workers look at.
    listening: Arc<Listening>,
    rings: Vec<Ring>,
    /// Who holds this empties the rings.
    turn: Mutex<()>,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    all: Vec<Listener>,
    /// Whoever keeps accounts.
    accountants: Vec<Accountant>,
    /// Number of the next one.
    next: u64,
    /// Events that workers had lost when that was last looked up.
    lost: u64,
    /// Whether anything is told at all (`nf_conntrack_events`).
    enabled: bool,
}

#[derive(Debug)]
struct Listener {
    number: u64,
    filter: FlowFilter,
    queue: VecDeque<Arc<EventRow>>,
    /// Events it has lost since it last took some.
    lost: u64,
}

/// Hears of the end of every flow, whatever `nf_conntrack_events` and rules say of others.
#[derive(Debug)]
struct Accountant {
    number: u64,
    queue: VecDeque<FlowEvent>,
    /// Events it has lost since it last took some.
    lost: u64,
}

/// Whoever keeps accounts, for as long as he does.
#[derive(Debug)]
pub(in crate::supervisor) struct Ends<'a> {
    hub: &'a Hub,
    number: u64,
}

/// One listener, for as long as it listens.
#[derive(Debug)]
struct Subscription<'a> {
    hub: &'a Hub,
    number: u64,
}

impl Hub {
    pub(super) fn new<'a>(
        listening: Arc<Listening>,
        rings: impl Iterator<Item = &'a Ring>,
        enabled: bool,
    ) -> Self {
        let listeners = Mutex::new(Listeners { enabled, ..Listeners::default() });
        Self { listening, rings: rings.map(Arc::clone).collect(), turn: Mutex::new(()), listeners }
    }

    /// Whether anything is told from now on.
    pub(super) fn enable(&self, enabled: bool) {
        let mut listeners = self.listeners();
        listeners.enabled = enabled;
        self.tell_workers(&listeners);
    }

    /// Whether anything is told.
    pub(super) fn is_enabled(&self) -> bool {
        self.listeners().enabled
    }

    /// How many listen.
    pub(super) fn listener_count(&self) -> usize {
        self.listeners().all.len()
    }

    /// Events that found no room on their way from workers.
    pub(super) fn lost(&self) -> u64 {
        self.listening.lost.load(Relaxed)
    }

    /// Has workers tell, or be silent.
    fn tell_workers(&self, listeners: &Listeners) {
        self.listening.on.store(listeners.enabled && !listeners.all.is_empty(), Relaxed);
        self.listening.ends.store(!listeners.accountants.is_empty(), Relaxed);
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a listener; the first one has workers tell.
    fn subscribe(&self, filter: FlowFilter) -> Result<Subscription<'_>, String> {
        let mut listeners = self.listeners();
        if listeners.all.len() >= LISTENERS_MAX {
            return Err(too_many());
        }
        self.begin(&mut listeners);
        let number = listeners.next;
        listeners.next += 1;
        listeners.all.push(Listener { number, filter, queue: VecDeque::new(), lost: 0 });
        self.tell_workers(&listeners);
        Ok(Subscription { hub: self, number })
    }

    /// Somebody begins to listen. If he is the first: what was told to others before is no news.
    fn begin(&self, listeners: &mut Listeners) {
        if listeners.all.is_empty() && listeners.accountants.is_empty() {
            self.each_event(|_| {});
            listeners.lost = self.listening.lost.load(Relaxed);
        }
    }

    /// Takes in somebody who keeps accounts.
    pub(in crate::supervisor) fn keep_accounts(&self) -> Ends<'_> {
        let mut listeners = self.listeners();
        self.begin(&mut listeners);
        let number = listeners.next;
        listeners.next += 1;
        listeners.accountants.push(Accountant { number, queue: VecDeque::new(), lost: 0 });
        self.tell_workers(&listeners);
        Ends { hub: self, number }
    }

    fn each_event(&self, mut each: impl FnMut(FlowEvent)) {
        for ring in &self.rings {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            while let Ok(event) = ring.pop() {
                each(event);
            }
        }
    }

    /// Empties the rings into the listeners' queues, unless somebody else is at it. Says how many events there were.
    fn collect(&self, row: impl Fn(&FlowEvent) -> EventRow) -> usize {
        let Ok(_turn) = self.turn.try_lock() else { return 0 };
        let mut events = Vec::new();
        self.each_event(|event| events.push(event));
        // Of several workers: as they happened.
        events.sort_by_key(|event| event.at);
        let mut listeners = self.listeners();
        let lost = self.listening.lost.load(Relaxed);
        let newly_lost = lost - std::mem::replace(&mut listeners.lost, lost);
        let Listeners { all, accountants, .. } = &mut *listeners;
        let lost = all.iter_mut().map(|listener| &mut listener.lost);
        lost.chain(accountants.iter_mut().map(|accountant| &mut accountant.lost))
            .for_each(|lost| *lost += newly_lost);
        for event in &events {
            if event.kind == EventKind::Destroy {
                for accountant in accountants.iter_mut() {
                    if accountant.queue.len() < ENDS_MAX {
                        accountant.queue.push_back(*event);
                    } else {
                        accountant.lost += 1;
                    }
                }
            }
            if event.for_accounts || all.is_empty() {
                continue;
            }
            let row = Arc::new(row(event));
            for listener in all.iter_mut().filter(|listener| listener.filter.fits(&row.flow)) {
                if listener.queue.len() < QUEUE_MAX {
                    listener.queue.push_back(Arc::clone(&row));
                } else {
                    listener.lost += 1;
                }
            }
        }
        events.len()
    }
}

impl Subscription<'_> {
    /// What has come for this listener since it last asked, and how much of it was lost.
    fn take(&self) -> (VecDeque<Arc<EventRow>>, u64) {
        let mut listeners = self.hub.listeners();
        let own = listeners.all.iter_mut().find(|listener| listener.number == self.number);
        own.map_or_else(Default::default, |own| {
            (std::mem::take(&mut own.queue), std::mem::take(&mut own.lost))
        })
    }
}

impl Ends<'_> {
    /// What has come since he last asked, and how much of it was lost.
    pub(in crate::supervisor) fn take(&self) -> (VecDeque<FlowEvent>, u64) {
        let mut listeners = self.hub.listeners();
        let own = listeners.accountants.iter_mut().find(|accountant| accountant.number == self.number);
        own.map_or_else(Default::default, |own| {
            (std::mem::take(&mut own.queue), std::mem::take(&mut own.lost))
        })
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let mut listeners = self.hub.listeners();
        listeners.accountants.retain(|accountant| accountant.number != self.number);
        self.hub.tell_workers(&listeners);
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        let mut listeners = self.hub.listeners();
        listeners.all.retain(|listener| listener.number != self.number);
        self.hub.tell_workers(&listeners);
    }
}

impl LiveBackend {
    /// Calls `each` for events until it says stop.
    pub(super) fn listen(
        &self,
        filter: &FlowFilter,
        each: &mut dyn FnMut(Option<EventRow>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let subscription = self.hub.subscribe(filter.clone())?;
        if each(None).is_break() {
            return Ok(());
        }
        let mut quiet = 0;
        loop {
            let many = self.hub.collect(|event| self.event_row(event)) >= MANY;
            let (events, mut lost) = subscription.take();
            quiet = if events.is_empty() { quiet + 1 } else { 0 };
            for event in events {
                let row = EventRow { lost: std::mem::take(&mut lost), ..(*event).clone() };
                if each(Some(row)).is_break() {
                    return Ok(());
                }
            }
            // Now and then a sign of life, by which a listener that has gone is noticed.
            if quiet % QUIET_ROUNDS == 0 && each(None).is_break() {
                return Ok(());
            }
            if !many {
                std::thread::sleep(COLLECT_EVERY);
            }
        }
    }

    /// Whoever keeps accounts hears of the ends of flows by this.
    pub(in crate::supervisor) fn keep_accounts(&self) -> Ends<'_> {
        self.hub.keep_accounts()
    }

    /// Has what the workers told sorted to whoever listens. Whoever keeps accounts calls this now and then.
    pub(in crate::supervisor) fn collect_events(&self) {
        self.hub.collect(|event| self.event_row(event));
    }

    /// An event as the API tells it.
    fn event_row(&self, event: &FlowEvent) -> EventRow {
        let then = self.wall_at(event.at);
        event_row(event, &self.shown_at(then), then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::Changed;
    use crate::api::{Shown, Wall};
    use dataplane::clock::{Now, Tick};
    use dataplane::flow::{FlowView, Remembered, Slot};
    use dataplane::ids::WorkerId;
    use dataplane::packet::{Family, Tuple, proto};
    use dataplane::rules::conn::{CtEvents, Zone};
    use rtrb::{Producer, RingBuffer};

    fn event(dport: u16, nanos: u64) -> FlowEvent {
        let family = Family::V4;
        let orig = Tuple { src: 1, dst: 2, src_port: 1, dst_port: dport, proto: proto::UDP, family };
        let view = FlowView {
            worker: WorkerId(0),
            slot: Slot::default(),
            seq: 1,
            orig,
            reply: Tuple { src: 2, dst: 1, src_port: dport, dst_port: 1, ..orig },
            tcp_state: None,
            sctp_state: None,
            secs_left: 30,
            deadline: Tick(3000),
            status: 0,
            packets: [1, 0],
            bytes: [28, 0],
            labels: None,
            mark: 0,
            helper: None,
            zone: Zone::default(),
            created: Tick(0),
            ingress: None,
            remembered: Remembered::default(),
        };
        let news = CtEvents::REPLY.or(CtEvents::MARK);
        FlowEvent {
            kind: EventKind::Update,
            news,
            at: Now { nanos },
            asked: false,
            for_accounts: false,
            view,
        }
    }

    fn hub(workers: usize) -> (Hub, Vec<Producer<FlowEvent>>) {
        let (ends, rings): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| RingBuffer::new(QUEUE_MAX + 10))
            .map(|(end, ring)| (end, Arc::new(Mutex::new(ring))))
            .unzip();
        (Hub::new(Arc::default(), rings.iter(), true), ends)
    }

    fn collect(hub: &Hub) -> usize {
        hub.collect(|event| event_row(event, &Shown::default(), Wall { tick: Tick(0), micros: 7 }))
    }

    fn ports(subscription: &Subscription<'_>) -> (Vec<u16>, u64) {
        let (events, lost) = subscription.take();
        let port = |event: &Arc<EventRow>| match event.flow.orig.key {
            crate::api::types::FlowKey::Ports { dport, .. } => dport,
            other => panic!("{other:?}"),
        };
        (events.iter().map(port).collect(), lost)
    }

    #[test]
    fn every_listener_hears_what_it_asked_for_in_the_order_in_which_it_happened() {
        let (hub, mut ends) = hub(2);
        ends[0].push(event(9, 0)).unwrap();
        let all = hub.subscribe(FlowFilter::default()).unwrap();
        let some = hub.subscribe(FlowFilter { dport: Some(53), ..FlowFilter::default() }).unwrap();
        ends[0].push(event(53, 20)).unwrap();
        ends[0].push(event(80, 40)).unwrap();
        ends[1].push(event(53, 30)).unwrap();
        assert_eq!(collect(&hub), 3, "what came before anybody listened is gone");
        assert_eq!(ports(&all), (vec![53, 53, 80], 0));
        assert_eq!(ports(&some), (vec![53, 53], 0));
        assert_eq!(ports(&all), (Vec::new(), 0));
        let (events, _) = {
            ends[0].push(event(1, 50)).unwrap();
            collect(&hub);
            all.take()
        };
        assert_eq!((events[0].at_us, &events[0].changed[..]), (7, &[Changed::Reply, Changed::Mark][..]));
    }

    #[test]
    fn workers_tell_only_while_somebody_listens() {
        let (hub, _ends) = hub(1);
        let is_on = || hub.listening.on.load(Relaxed);
        assert!(!is_on());
        let first = hub.subscribe(FlowFilter::default()).unwrap();
        let second = hub.subscribe(FlowFilter::default()).unwrap();
        drop(first);
        assert!(is_on());
        hub.enable(false);
        assert!(!is_on());
        hub.enable(true);
        assert!(is_on());
        drop(second);
        assert!(!is_on());
        let all: Vec<_> = (0..LISTENERS_MAX).map(|_| hub.subscribe(FlowFilter::default()).unwrap()).collect();
        let refused = hub.subscribe(FlowFilter::default()).unwrap_err();
        assert_eq!(refused, "16 others are listening to events, and no more can");
        drop(all);
        assert!(hub.subscribe(FlowFilter::default()).is_ok());
    }

    #[test]
    fn who_keeps_accounts_hears_of_every_end_and_of_nothing_else() {
        let (hub, mut ends) = hub(1);
        let is_on = || (hub.listening.on.load(Relaxed), hub.listening.ends.load(Relaxed));
        hub.enable(false);
        let accounts = hub.keep_accounts();
        assert_eq!(is_on(), (false, true), "whatever others may hear");
        let end = FlowEvent { kind: EventKind::Destroy, for_accounts: true, ..event(1, 5) };
        ends[0].push(event(1, 1)).unwrap();
        ends[0].push(end).unwrap();
        hub.enable(true);
        let listener = hub.subscribe(FlowFilter::default()).unwrap();
        hub.listening.lost.fetch_add(2, Relaxed);
        assert_eq!(collect(&hub), 2);
        let (events, lost) = accounts.take();
        assert_eq!((events.len(), events[0].kind, lost), (1, EventKind::Destroy, 2));
        assert_eq!(ports(&listener), (vec![1], 2), "the end is not for others");
        drop(accounts);
        assert_eq!(is_on(), (true, false));
    }

    #[test]
    fn a_listener_that_lags_is_told_how_much_it_lost() {
        let (hub, mut ends) = hub(1);
        let slow = hub.subscribe(FlowFilter::default()).unwrap();
        let quick = hub.subscribe(FlowFilter::default()).unwrap();
        for _ in 0..QUEUE_MAX + 5 {
            ends[0].push(event(1, 0)).unwrap();
        }
        collect(&hub);
        let (events, lost) = quick.take();
        assert_eq!((events.len(), lost), (QUEUE_MAX, 5));
        ends[0].push(event(2, 0)).unwrap();
        // Lost by a worker: to both of them.
        hub.listening.lost.fetch_add(3, Relaxed);
        collect(&hub);
        assert_eq!(ports(&quick), (vec![2], 3));
        let (events, lost) = slow.take();
        assert_eq!((events.len(), lost), (QUEUE_MAX, 5 + 3 + 1));
    }
}
