//! What the API allows, so that no client can hold the daemon up or fill its memory.

use std::time::Duration;

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a listener. For a further one the oldest that waits is closed, of whoever has most of them.
    pub connections_max: usize,
    /// Most requests served at once at a listener, but for one that each client may have in any case, up to as many again.
    pub requests_max: usize,
    /// Most of them for one client: a process at the socket, a host elsewhere.
    pub requests_per_client: usize,
    /// Time a request waits for its turn.
    pub turn_timeout: Duration,
    /// Largest head of a request in bytes.
    pub head_max_bytes: usize,
    /// Largest request body in bytes.
    pub body_max_bytes: usize,
    /// Time a client has to send a request's head.
    pub head_timeout: Duration,
    /// Time a client has to send a request's body.
    pub body_timeout: Duration,
    /// Time a client has to take the next piece of an answer. Somebody may be reading it page by page.
    pub write_timeout: Duration,
    /// Time a connection may last, whatever it does, unless somebody listens to events on it.
    pub connection_timeout: Duration,
}

/// Largest request body in bytes unless told otherwise. A million rules are about 100 MB of text.
pub const BODY_MAX_BYTES: usize = 256 << 20;

/// Bodies of up to so many bytes are taken in as they come.
pub const SMALL_BODY_BYTES: usize = 1 << 20;

/// Most larger ones in memory at one time. Others wait, within the time they have.
pub const LARGE_BODIES_MAX: usize = 2;

/// Longest that a change may wait for its confirmation, in seconds: a day.
pub const CONFIRM_MAX_SECS: u32 = 86_400;

/// Time given to answers under way when the daemon stops.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Size of the pieces in which flows are sent, in bytes. With [`CHUNKS_IN_FLIGHT`] this is all the memory a list of a
/// million flows takes.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Pieces waiting for a slow client before the walk over the flows waits too.
pub const CHUNKS_IN_FLIGHT: usize = 4;

/// Connections on which somebody may listen to events: what tells of them has limits of its own, this only sizes the pool of
/// threads.
pub const LASTING_MAX: usize = 128;

/// Most captures, traces and lists of the top flows at once for one client: half of those that the daemon takes.
pub const WATCHES_PER_CLIENT: usize = 4;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            requests_max: 32,
            requests_per_client: 8,
            turn_timeout: Duration::from_secs(10),
            head_max_bytes: 32 << 10,
            body_max_bytes: BODY_MAX_BYTES,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(120),
            connection_timeout: Duration::from_secs(900),
        }
    }
}
