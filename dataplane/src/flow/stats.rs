//! What a tracker counts: plain integers owned by its worker, copied out between bursts.

macro_rules! invalid_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet is INVALID. Exactly one per such packet; whether it is dropped is for the rules to say.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum InvalidReason { $($(#[doc = $doc])+ $variant,)+ }

        impl InvalidReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Stable name, for statistics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for the operator.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

invalid_reasons! {
    /// A fragment that could not be put together with others.
    LaterFragment => "later_fragment",
    /// The upper-layer header is cut off.
    Truncated => "truncated",
    /// A header or datagram length that does not fit the packet.
    BadLength => "bad_length",
    /// TCP flags that no stack sends.
    BadFlags => "bad_flags",
    /// The upper-layer checksum does not match.
    BadChecksum => "bad_checksum",
    /// No upper-layer header at all (IPv6).
    NoUpperLayer => "no_upper_layer",
    /// SCTP chunks that are laid out wrongly.
    BadChunk => "bad_chunk",
    /// GRE of PPTP's version that carries no PPP.
    BadGre => "bad_gre",
    /// An ICMP type that is neither a query nor an error, or ICMP inside the wrong IP version.
    IcmpType => "icmp_type",
    /// An ICMP reply that nobody asked for.
    IcmpUnsolicited => "icmp_unsolicited",
    /// An ICMP error that does not hold a packet that could be looked up.
    IcmpErrorInner => "icmp_error_inner",
    /// An ICMP error about a packet of no known flow.
    IcmpErrorNoFlow => "icmp_error_no_flow",
    /// An ICMP error that is not addressed to the sender of the packet it is about.
    IcmpErrorAddress => "icmp_error_address",
    /// An ICMPv6 redirect from beyond the link.
    IcmpRedirect => "icmp_redirect",
    /// A TCP packet that cannot start a connection: SYN-ACK, FIN or RST.
    TcpNoStart => "tcp_no_start",
    /// A TCP packet from the middle of an unknown connection while `tcp_loose` is off.
    TcpNoPickup => "tcp_no_pickup",
    /// TCP flags that make no sense in the connection's state.
    TcpState => "tcp_state",
    /// An SCTP packet that cannot start an association.
    SctpNoStart => "sctp_no_start",
    /// An SCTP verification tag that is not the association's.
    SctpTag => "sctp_tag",
    /// An SCTP chunk that makes no sense in the association's state.
    SctpState => "sctp_state",
    /// TCP data beyond the receiver's window.
    TcpSeqOver => "tcp_seq_over",
    /// A TCP acknowledgement of data that was never sent.
    TcpAckOver => "tcp_ack_over",
    /// A TCP reset below what its receiver has already acknowledged.
    TcpReset => "tcp_reset",
}

/// How many reasons there are: the length of a reason-indexed counter array.
pub const INVALID_REASONS: usize = InvalidReason::ALL.len();

/// A tracker's counters since it was made. Names follow `conntrack -S` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackStats {
    /// Packets that belonged to a flow in the table.
    pub found: u64,
    /// INVALID packets, by [`InvalidReason`].
    pub invalid: [u64; INVALID_REASONS],
    /// Packets that are never tracked (NDP, MLD, not IP).
    pub untracked: u64,
    /// ICMP errors about a flow in the table.
    pub related: u64,
    /// Flows inserted.
    pub insert: u64,
    /// Flows that could not be inserted although below `max`: their buckets had no room to be made.
    pub insert_failed: u64,
    /// Flows refused because the table was full and nothing nearby could be evicted.
    pub drop: u64,
    /// Flows evicted to make room for another.
    pub early_drop: u64,
    /// Flows removed because their time was up.
    pub expired: u64,
    /// Flows removed for any other reason: asked for, ended by a reset, reopened.
    pub delete: u64,
}

impl Default for TrackStats {
    fn default() -> Self {
        Self {
            found: 0,
            invalid: [0; INVALID_REASONS],
            untracked: 0,
            related: 0,
            insert: 0,
            insert_failed: 0,
            drop: 0,
            early_drop: 0,
            expired: 0,
            delete: 0,
        }
    }
}

impl TrackStats {
    /// INVALID packets of all reasons.
    #[must_use]
    pub fn invalid_total(&self) -> u64 {
        self.invalid.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indices_match() {
        for (i, reason) in InvalidReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert!(InvalidReason::ALL[..i].iter().all(|other| other.name() != reason.name()));
            assert!(reason.text().trim_start().ends_with('.'));
        }
    }
}
