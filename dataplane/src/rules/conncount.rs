//! How many connections one `-m connlimit` rule knows of, per address. The one structure that workers share: a count
//! over all cores has no single owner. Locked only while such a rule is asked, which no rule before it has decided;
//! lists are short, because a rule that counts exists to keep them so.
//!
//! A connection joins when a packet of it was counted and accepted, and leaves when it is found ended: lazily, at the
//! next question about its address, as in the kernel (`nf_conncount.c`).

use super::conn::Flows;
use crate::flow::FlowId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses kept before those without open connections are looked for.
const SWEEP_AT: usize = 1024;

/// The connections one rule has counted. Compares equal to any other: what a rule means does not depend on it.
#[derive(Debug, Default)]
pub struct ConnCount {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_address: HashMap<u128, Vec<FlowId>>,
    sweep_at: usize,
}

impl PartialEq for ConnCount {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for ConnCount {}

impl ConnCount {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections of an address, the asking one included. One that is in the table joins; one that is not yet
    /// (`None`) counts, and joins when it is.
    pub fn count(&self, address: u128, asking: Option<FlowId>, flows: &dyn Flows) -> u32 {
        let mut inner = self.inner();
        let Some(list) = inner.by_address.get_mut(&address) else {
            drop(inner);
            if let Some(id) = asking {
                self.join(address, id, flows);
            }
            return 1;
        };
        list.retain(|&known| Some(known) == asking || flows.is_open(known));
        let is_known = asking.is_some_and(|id| list.contains(&id));
        if let (Some(id), false) = (asking, is_known) {
            list.push(id);
        }
        let others = list.len() - usize::from(asking.is_some());
        u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// A counted connection has entered the table.
    pub fn join(&self, address: u128, id: FlowId, flows: &dyn Flows) {
        let mut inner = self.inner();
        if inner.by_address.len() >= inner.sweep_at.max(SWEEP_AT) {
            inner.by_address.retain(|_, list| {
                list.retain(|&known| flows.is_open(known));
                !list.is_empty()
            });
            inner.sweep_at = inner.by_address.len() * 2;
        }
        let list = inner.by_address.entry(address).or_default();
        if !list.contains(&id) {
            list.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Slot;
    use crate::ids::WorkerId;
    use std::cell::RefCell;
    use std::collections::HashSet;

    #[derive(Debug, Default)]
    struct Open(RefCell<HashSet<u32>>);

    impl Flows for Open {
        fn is_open(&self, flow: FlowId) -> bool {
            self.0.borrow().contains(&flow.seq)
        }
    }

    fn flow(seq: u32) -> FlowId {
        FlowId { worker: WorkerId(0), slot: Slot::default(), seq }
    }

    #[test]
    fn ended_connections_leave_and_refused_ones_never_join() {
        let (count, open) = (ConnCount::default(), Open::default());
        for seq in 1..=3 {
            assert_eq!(count.count(7, None, &open), seq);
            open.0.borrow_mut().insert(seq);
            count.join(7, flow(seq), &open);
        }
        // Asked again and again without being accepted: always the fourth.
        assert_eq!(count.count(7, None, &open), 4);
        assert_eq!(count.count(7, None, &open), 4);
        // A packet of a connection that is known counts it once.
        assert_eq!(count.count(7, Some(flow(2)), &open), 3);
        open.0.borrow_mut().remove(&1);
        assert_eq!(count.count(7, None, &open), 3);
        assert_eq!(count.count(8, None, &open), 1);
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let (count, open) = (ConnCount::default(), Open::default());
        for address in 0..20_000 {
            count.join(address, flow(1), &open);
        }
        assert!(count.inner().by_address.len() <= 2 * SWEEP_AT);
    }
}
