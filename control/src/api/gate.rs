//! Who is let in at a listener, and whose turn it is. The API thread only.
//!
//! A connection costs little until its request is there; a request costs a thread and memory. So connections are always
//! taken, up to a number, beyond which one that waits is closed for the new one: the oldest of the client that has most of
//! them. Requests have places, few per client, and wait for one. Whoever opens thousands of connections closes his own, and
//! whoever reads no answer fills his own places: others are served meanwhile.
//!
//! Invariant: at most `connections_max` connections are known, at most twice `requests_max` are served, and beyond
//! `requests_max` only such as are their client's only one.

use super::limits::{Limits, WATCHES_PER_CLIENT};
use super::metrics::ClientFacts;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Whom a connection is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    /// A process of this machine.
    Process(i32),
    /// A user of this machine whose process is not known.
    User(u32),
    /// A host. Of IPv6 addresses the /64: a host has all of it.
    Host(IpAddr),
    /// Nobody in particular.
    Unknown,
}

impl Client {
    /// The host with this address.
    pub(super) fn host(addr: IpAddr) -> Self {
        Self::Host(match addr.to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        })
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its request is not there yet, or waits for its turn. May be closed for others.
    Waiting,
    /// Has a place.
    Served,
    /// Hears of events, and may stay: whoever tells of them has a limit of his own.
    Lasting,
}

#[derive(Debug)]
struct Entry {
    client: Client,
    stage: Stage,
    /// Whether it looks at packets, or at all flows for a while: the daemon takes few that do.
    watches: bool,
    close: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Entries {
    /// By age.
    all: BTreeMap<u64, Entry>,
    next: u64,
}

/// What all gates count together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    connections: AtomicU64,
    closed: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// What was counted.
    pub(super) fn facts(&self) -> ClientFacts {
        ClientFacts {
            connections: self.connections.load(Relaxed),
            closed: self.closed.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }
}

/// The gate of one listener.
#[derive(Debug)]
pub(super) struct Gate {
    tally: Arc<Tally>,
    entries: Mutex<Entries>,
    limits: Limits,
    /// Somebody has given up a place.
    freed: Notify,
}

/// A connection that was let in. Gives up what it has when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    gate: Arc<Gate>,
    number: u64,
    close: Arc<Notify>,
}

impl Gate {
    pub(super) fn new(limits: Limits, tally: Arc<Tally>) -> Arc<Self> {
        Arc::new(Self { tally, entries: Mutex::default(), limits, freed: Notify::new() })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, if need be in another one's stead. `None` if all others are being served.
    pub(super) fn enter(self: &Arc<Self>, client: Client) -> Option<Guest> {
        self.tally.connections.fetch_add(1, Relaxed);
        let mut entries = self.entries();
        if entries.all.len() >= self.limits.connections_max {
            self.tally.closed.fetch_add(1, Relaxed);
            let victim = entries.victim()?;
            if let Some(entry) = entries.all.remove(&victim) {
                entry.close.notify_one();
            }
        }
        let number = entries.next;
        entries.next += 1;
        let close = Arc::new(Notify::new());
        let entry = Entry { client, stage: Stage::Waiting, watches: false, close: Arc::clone(&close) };
        entries.all.insert(number, entry);
        Some(Guest { gate: Arc::clone(self), number, close })
    }

    /// Connections now, and how many of them are being served.
    #[cfg(test)]
    fn count(&self) -> (usize, usize) {
        let entries = self.entries();
        (entries.all.len(), entries.all.values().filter(|entry| entry.stage == Stage::Served).count())
    }
}

impl Entries {
    /// Which connection is to go: of those that wait, the oldest of the client who has most of them.
    fn victim(&self) -> Option<u64> {
        let mut waiting: BTreeMap<Client, (usize, u64)> = BTreeMap::new();
        for (number, entry) in self.all.iter().filter(|(_, entry)| entry.stage == Stage::Waiting) {
            waiting.entry(entry.client).or_insert((0, *number)).0 += 1;
        }
        // Of several with as many: the one who has waited longest.
        let most = waiting.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
        most.map(|(_, oldest)| oldest)
    }

    /// Gives a connection a place if there is one.
    fn try_serve(&mut self, number: u64, limits: &Limits) -> bool {
        let Some(client) = self.all.get(&number).map(|entry| entry.client) else { return false };
        let served = self.all.values().filter(|entry| entry.stage == Stage::Served);
        let (all, own) =
            served.fold((0, 0), |(all, own), entry| (all + 1, own + usize::from(entry.client == client)));
        // Whoever has none yet may have one more than there are.
        let room = limits.requests_max * if own == 0 { 2 } else { 1 };
        let is_free = own < limits.requests_per_client && all < room;
        if let Some(entry) = self.all.get_mut(&number).filter(|_| is_free) {
            entry.stage = Stage::Served;
        }
        is_free
    }
}

impl Guest {
    /// Waits for a place; says whether there was one in time.
    pub(super) async fn turn(&self) -> bool {
        let wait = async {
            loop {
                let freed = self.gate.freed.notified();
                let mut freed = std::pin::pin!(freed);
                // From here on nothing that is given up is missed.
                freed.as_mut().enable();
                if self.gate.entries().try_serve(self.number, &self.gate.limits) {
                    return;
                }
                freed.await;
            }
        };
        let has_place = tokio::time::timeout(self.gate.limits.turn_timeout, wait).await.is_ok();
        if !has_place {
            self.gate.tally.refused.fetch_add(1, Relaxed);
        }
        has_place
    }

    /// Somebody listens to events on it: it may last, and needs no place any more.
    pub(super) fn last(&self) {
        if let Some(entry) = self.gate.entries().all.get_mut(&self.number) {
            entry.stage = Stage::Lasting;
        }
        self.gate.freed.notify_waiters();
    }

    /// It is about to look at packets, or at all flows for a while. Whether its client may: no one takes all the places there
    /// are for that.
    pub(super) fn watch(&self) -> bool {
        let mut entries = self.gate.entries();
        let Some(client) = entries.all.get(&self.number).map(|entry| entry.client) else { return false };
        let own = entries.all.values().filter(|entry| entry.client == client && entry.watches).count();
        let may = own < WATCHES_PER_CLIENT;
        if let Some(entry) = entries.all.get_mut(&self.number) {
            entry.watches = may;
        }
        may
    }

    /// Whether it may last.
    pub(super) fn is_lasting(&self) -> bool {
        self.gate.entries().all.get(&self.number).is_some_and(|entry| entry.stage == Stage::Lasting)
    }

    /// Waits until it has to go for others.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gate.entries().all.remove(&self.number);
        self.gate.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn gate(connections_max: usize, requests_max: usize, requests_per_client: usize) -> Arc<Gate> {
        let turn_timeout = Duration::from_millis(1);
        let limits =
            Limits { connections_max, requests_max, requests_per_client, turn_timeout, ..Limits::default() };
        Gate::new(limits, Arc::default())
    }

    const GREEDY: Client = Client::Process(1);
    const HONEST: Client = Client::Process(2);

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    fn is_closed(guest: &Guest) -> bool {
        !guest.gate.entries().all.contains_key(&guest.number)
    }

    #[test]
    fn who_has_most_connections_loses_the_oldest_of_them() {
        let gate = gate(4, 4, 4);
        let honest = gate.enter(HONEST).unwrap();
        let greedy: Vec<Guest> = (0..100).map(|_| gate.enter(GREEDY).unwrap()).collect();
        assert!(!is_closed(&honest));
        assert_eq!(gate.count(), (4, 0));
        assert!(greedy[..97].iter().all(is_closed) && !greedy[97..].iter().any(is_closed));
        run(greedy[0].closed());
        drop(greedy);
        assert_eq!(gate.count(), (1, 0));
        assert_eq!(gate.tally.facts(), ClientFacts { connections: 101, closed: 97, refused: 0 });
    }

    #[test]
    fn who_is_being_served_is_never_closed_for_others() {
        let gate = gate(2, 2, 2);
        let served: Vec<Guest> = (0..2).map(|_| gate.enter(GREEDY).unwrap()).collect();
        assert!(run(async { served[0].turn().await && served[1].turn().await }));
        assert!(gate.enter(HONEST).is_none());
        served[0].last();
        assert!(served[0].is_lasting() && !served[1].is_lasting());
        assert!(gate.enter(HONEST).is_none());
        drop(served);
        assert!(gate.enter(HONEST).is_some());
    }

    #[test]
    fn no_client_has_more_places_than_his_share_and_everyone_has_one() {
        let gate = gate(100, 4, 3);
        let guests =
            |client, count| -> Vec<Guest> { (0..count).map(|_| gate.enter(client).unwrap()).collect() };
        let turns = |guests: &[Guest]| {
            run(async {
                let mut turns = 0;
                for guest in guests {
                    turns += usize::from(guest.turn().await);
                }
                turns
            })
        };
        let mut greedy = guests(GREEDY, 5);
        assert_eq!(turns(&greedy), 3, "his share");
        assert_eq!(turns(&guests(Client::Process(3), 1)), 1);
        let second = guests(Client::Process(3), 3);
        assert_eq!(turns(&second), 1, "all places are taken");
        let honest = guests(HONEST, 2);
        assert_eq!(turns(&honest), 1, "one is always free for whoever has none");
        greedy.clear();
        assert_eq!(turns(&honest[1..]), 1);
    }

    #[test]
    fn nobody_watches_in_all_places() {
        let gate = gate(100, 4, 3);
        let mut greedy: Vec<Guest> = (0..9).map(|_| gate.enter(GREEDY).unwrap()).collect();
        assert_eq!(greedy.iter().filter(|guest| guest.watch()).count(), WATCHES_PER_CLIENT);
        // They need no place among requests any more, and count all the same.
        greedy[0].last();
        assert!(!greedy[8].watch() && gate.enter(HONEST).unwrap().watch());
        drop(greedy.remove(0));
        assert!(greedy[7].watch());
    }

    #[test]
    fn a_place_that_is_given_up_goes_to_who_waits() {
        let limits = Limits { requests_max: 1, requests_per_client: 1, ..Limits::default() };
        let gate = Gate::new(limits, Arc::default());
        let (first, second) = (gate.enter(GREEDY).unwrap(), gate.enter(GREEDY).unwrap());
        run(async {
            assert!(first.turn().await);
            let give_up = async {
                tokio::task::yield_now().await;
                drop(first);
            };
            let (turn, ()) = tokio::join!(second.turn(), give_up);
            assert!(turn);
        });
    }

    #[test]
    fn hosts_are_told_apart_by_what_they_own() {
        let host = |text: &str| Client::host(text.parse().unwrap());
        assert_eq!(host("2001:db8::1"), host("2001:db8::ffff:1"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        assert_eq!(host("::ffff:192.0.2.1"), host("192.0.2.1"));
        assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
    }
}
