//! Why a packet was dropped: one reason per drop, one counter per reason, name and text from one list.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet did not leave on the other NIC. Exactly one per dropped packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Stable name: what `fwctl stats` prints and metrics are called.
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

drop_reasons! {
    /// The frame is shorter than its Ethernet header or VLAN tags.
    EthernetTruncated => "ethernet_truncated",
    /// More VLAN tags than the parser follows.
    VlanTooDeep => "vlan_too_deep",
    /// Destination is a link-local bridge group address (01:80:c2:00:00:0x), which a bridge never forwards.
    LinkLocalMac => "link_local_mac",
    /// The source MAC address is a group address or all zero, which no station has.
    SourceMacInvalid => "source_mac_invalid",
    /// The EtherType is not on the L2 pass list.
    L2NotListed => "l2_not_listed",
    /// The frame ends inside the IPv4 header.
    Ipv4Truncated => "ipv4_truncated",
    /// The version field of an IPv4 packet is not 4.
    Ipv4Version => "ipv4_version",
    /// IPv4 header length below 20 bytes or beyond the packet.
    Ipv4HeaderLength => "ipv4_header_length",
    /// IPv4 total length below the header length or beyond the frame.
    Ipv4TotalLength => "ipv4_total_length",
    /// IPv4 header checksum does not match.
    Ipv4Checksum => "ipv4_checksum",
    /// The frame ends inside the IPv6 header.
    Ipv6Truncated => "ipv6_truncated",
    /// The version field of an IPv6 packet is not 6.
    Ipv6Version => "ipv6_version",
    /// IPv6 payload length beyond the frame.
    Ipv6PayloadLength => "ipv6_payload_length",
    /// An IPv6 hop-by-hop header that reaches beyond the packet or carries a broken or jumbo option.
    Ipv6HopByHop => "ipv6_hop_by_hop",
    /// A fragment whose header is cut off, that contradicts others of its datagram, is empty, or makes the datagram
    /// longer than 65,535 bytes; and what was held of a datagram that is given up for that.
    FragmentBad => "fragment_bad",
    /// A fragment overlaps another one: its whole datagram is dropped.
    FragmentOverlap => "fragment_overlap",
    /// A fragment whose bytes had all come before.
    FragmentRepeated => "fragment_repeated",
    /// Some fragments of a datagram say that ECN is in use (ECT, CE) and others that it is not.
    FragmentEcn => "fragment_ecn",
    /// More than ipfrag_max_dist other fragments of its sender came before the next one of this datagram.
    FragmentDistance => "fragment_distance",
    /// No room to hold another fragment.
    FragmentLimit => "fragment_limit",
    /// The rest of the datagram did not come in time.
    FragmentTimeout => "fragment_timeout",
    /// A helper could not follow a line that announces a connection, or could not note the connection down.
    HelperLine => "helper_line",
    /// A rule with target DROP matched.
    RuleDrop => "rule_drop",
    /// A rule with target REJECT matched and an answer was sent.
    RuleReject => "rule_reject",
    /// A rule with target REJECT matched; no answer is owed to such a packet, or the answer rate was used up.
    RuleRejectSilent => "rule_reject_silent",
    /// No rule matched and the chain policy is DROP.
    PolicyDrop => "policy_drop",
    /// The rules accepted a new flow but the flow table has no room for it.
    FlowTableFull => "flow_table_full",
    /// The egress NIC's transmit ring had no room.
    TxRingFull => "tx_ring_full",
    /// The egress link is down.
    LinkDown => "link_down",
    /// The packet is longer than the egress NIC's MTU.
    MtuExceeded => "mtu_exceeded",
    /// The other worker that was to judge or send it has too many packets waiting already.
    HandoffFull => "handoff_full",
    /// Too many of the worker's frames are with other workers: with another one lent it could not go on receiving.
    FramesLent => "frames_lent",
    /// Its flow was changing its worker, and too many packets waited for that already.
    BucketMoving => "bucket_moving",
}

/// How many reasons there are: the length of a reason-indexed counter array.
pub const DROP_REASONS: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indices_match() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert!(DropReason::ALL[..i].iter().all(|other| other.name() != reason.name()));
            assert!(reason.text().trim_start().ends_with('.'));
        }
    }
}
