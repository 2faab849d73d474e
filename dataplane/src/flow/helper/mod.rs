//! Helpers: what control connections say about connections to come. A helper reads a packet's payload and names an
//! [`Announced`] connection, or says that it cannot follow; the tracker does the rest. Pure but for the little that
//! [`ftp::Lines`] remembers of each control connection. Owning worker only; every byte read is hostile.
//!
//! Nothing is ever helped unasked: a connection has a helper if a `-j CT --helper` rule gave it one. An encrypted control
//! connection (FTP after AUTH TLS) cannot be read, and nothing it says is expected.

pub(super) mod ftp;
pub(super) mod tftp;

/// A connection that the payload announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// Address it will go to; `None` is the sender of the packet.
    pub(super) dst: Option<u128>,
    /// Port it will go to.
    pub(super) dst_port: u16,
}

/// What a helper makes of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing of interest.
    Nothing,
    /// A connection to come.
    Announced(Announced),
    /// An announcement that is cut off or cannot be read. The packet must not pass: its end would follow in the next
    /// one, and the connection it announces could not be known.
    Unclear,
}
