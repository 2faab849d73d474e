//! Small identities that are easily mixed up as bare integers.

/// One of our NICs, numbered in configuration order: wire `w` has its left NIC at `2 * w`, its right at `2 * w + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// Most NICs one process serves; interface sets in compiled rules are 64-bit masks.
pub const PORTS_MAX: usize = 64;

/// A worker thread, numbered from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u8);

/// Most workers one process runs.
pub const WORKERS_MAX: usize = 64;

/// Number of an immutable configuration snapshot; grows by one with every publication, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl PortId {
    /// The NIC at the other end of the same wire.
    #[must_use]
    pub const fn peer(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// The wire this NIC belongs to.
    #[must_use]
    pub const fn wire(self) -> u8 {
        self.0 >> 1
    }

    /// Whether this is its wire's left NIC.
    #[must_use]
    pub const fn is_left(self) -> bool {
        self.0 & 1 == 0
    }

    /// Position in per-port arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl WorkerId {
    /// Position in per-worker arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
