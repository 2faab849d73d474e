//! Connection tracking: what netfilter's conntrack would say about each packet, from one private table per worker.
//!
//! One [`Tracker`] belongs to one worker thread. Only that thread changes it, so there is no lock anywhere; other
//! threads may read the flows through [`Region`], whose every word is an atomic.
//!
//! ```text
//! Tracker        per packet: classify, look up, advance the protocol's state, give the ct state (tracker.rs)
//!  |- tcp sctp udp icmp generic   what each protocol's packets do to a flow; pure functions over values
//!  |- room       limits: who gets a record when there are few (room.rs)
//!  |- helped     helpers (helper/) and the connections they expect (expect.rs)
//!  |- asked      what rules see of a flow, and its mark (asked.rs)
//!  |- request    what control wants done to flows (request.rs)
//!  |- moving     flows that change their worker (moving.rs)
//!  |- Table      buckets of one cache line -> dense record slots (table.rs)
//!  '- Region     the mapped memory both live in; the only unsafe code (bucket.rs, record.rs, region.rs)
//! view.rs        the other threads' side: walking the records, naming expired ones
//! tally.rs       the same for who only wants to know what flows have counted
//! ```
//!
//! Invariants:
//! * A packet that misses inserts nothing. [`Tracker::track`] hands out a tentative flow, and [`Tracker::commit`]
//!   inserts it once the rules have accepted the packet, so a refused packet leaves nothing behind.
//! * A flow that exists is advanced by `track`, before the verdict, as the kernel does it.
//! * Each flow has one entry for both directions: the index key is the same for a tuple and its inverse.
//!
//! Semantics follow Linux 6.18 (`net/netfilter/nf_conntrack_*.c`), as observed from outside.

mod asked;
mod bucket;
mod events;
mod expect;
mod generic;
mod helped;
mod helper;
mod icmp;
mod key;
mod moving;
mod record;
mod region;
mod rehearsal;
mod request;
mod room;
mod sctp;
mod settings;
mod stats;
mod table;
mod tally;
mod tcp;
mod tracked;
mod tracker;
mod udp;
mod view;

#[cfg(test)]
mod tests;

pub use asked::Tables;
pub use events::{EventKind, FlowEvent, Listening};
pub use expect::{ExpectEvent, Expectation, Expectations};
pub use icmp::error_about;
pub(crate) use key::inverse;
pub use key::{Seed, flow_hash};
pub use moving::Passage;
pub use record::{FlowId, Slot, status};
pub use region::{Backing, FORMAT_VERSION, Region};
pub use rehearsal::{Found, LiveTables, NextNumbers, Onlooker, Room};
pub use request::{Change, Request};
pub use room::{Claim, FullPolicy};
pub use sctp::SctpState;
pub use settings::{
    Count, EventMode, Policies, SettingError, TIMEOUT_MAX_SECS, TimeoutPolicy, TrackSettings,
};
pub use stats::{INVALID_REASONS, InvalidReason, TrackStats};
pub use tally::FlowTally;
pub use tcp::TcpState;
pub use tracked::{Direction, FlowRef, Start, TableFull, Tracked};
pub use tracker::{Remembered, Said, Tenure, Tracker, TrackerConfig};
pub use view::{Cursor, Expired, FlowView};
