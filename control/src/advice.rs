//! What an operator can do about dropped packets, reason by reason: for the book and for whoever explains a drop. Pure.
//!
//! The match is exhaustive, so that a new reason does not compile without its advice.

use dataplane::reason::DropReason;

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Frames and IP packets that are broken.
    Malformed,
    /// Frames that a bridge does not forward, or that `l2.pass` does not list.
    Link,
    /// Fragments of IP datagrams.
    Fragments,
    /// What the rules say.
    Rules,
    /// Limits of connection tracking.
    Tracking,
    /// The NIC on the way out.
    Egress,
    /// Between workers.
    Workers,
}

impl Area {
    /// Every area, in the order in which a packet meets them.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Link,
        Self::Fragments,
        Self::Rules,
        Self::Tracking,
        Self::Egress,
        Self::Workers,
    ];

    /// Its heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "Broken frames and packets",
            Self::Link => "Frames that are not forwarded",
            Self::Fragments => "Fragments",
            Self::Rules => "Rules",
            Self::Tracking => "Connection tracking",
            Self::Egress => "On the way out",
            Self::Workers => "Between workers",
        }
    }
}

/// What a reason is about.
#[must_use]
pub const fn area(reason: DropReason) -> Area {
    use DropReason as R;
    match reason {
        R::EthernetTruncated
        | R::VlanTooDeep
        | R::SourceMacInvalid
        | R::Ipv4Truncated
        | R::Ipv4Version
        | R::Ipv4HeaderLength
        | R::Ipv4TotalLength
        | R::Ipv4Checksum
        | R::Ipv6Truncated
        | R::Ipv6Version
        | R::Ipv6PayloadLength
        | R::Ipv6HopByHop => Area::Malformed,
        R::LinkLocalMac | R::L2NotListed => Area::Link,
        R::FragmentBad
        | R::FragmentOverlap
        | R::FragmentRepeated
        | R::FragmentEcn
        | R::FragmentDistance
        | R::FragmentLimit
        | R::FragmentTimeout => Area::Fragments,
        R::RuleDrop | R::RuleReject | R::RuleRejectSilent | R::PolicyDrop => Area::Rules,
        R::HelperLine | R::FlowTableFull => Area::Tracking,
        R::TxRingFull | R::LinkDown | R::MtuExceeded => Area::Egress,
        R::HandoffFull | R::FramesLent | R::BucketMoving => Area::Workers,
    }
}

/// What to do about packets dropped for this reason, in a few sentences. Markdown.
#[must_use]
pub const fn advice(reason: DropReason) -> &'static str {
    use DropReason as R;
    match reason {
        R::EthernetTruncated => {
            "Nothing, if there are few. Many come from a broken sender, driver or cable: look at the NIC's own error \
             counters (`ethtool -S IF`)."
        }
        R::VlanTooDeep => {
            "Frames with more than four tags. Find who adds tags: mostly a loop between switches that tag."
        }
        R::SourceMacInvalid => "A broken or hostile sender. Capture one to see where it comes from.",
        R::Ipv4Truncated | R::Ipv4Version | R::Ipv4HeaderLength | R::Ipv4TotalLength => {
            "A broken or probing sender: Linux drops such packets as well, before any rule. If all packets of a NIC are \
             affected, an offload moves bytes out of the frame (VLAN stripping): `fwctl doctor`."
        }
        R::Ipv4Checksum => {
            "One sender: it is broken. All packets from one side: its NIC or hypervisor leaves checksums to hardware that \
             is not there. Switch that off at the sender (`ethtool -K IF tx off`)."
        }
        R::Ipv6Truncated | R::Ipv6Version | R::Ipv6PayloadLength => {
            "A broken or probing sender: Linux drops such packets as well, before any rule."
        }
        R::Ipv6HopByHop => {
            "A broken option, or a jumbogram, which no Ethernet carries. Linux drops such packets as well."
        }
        R::LinkLocalMac => {
            "Nothing: pause frames, LACP, LLDP and 802.1X are between neighbours, and no bridge passes them on. If two \
             switches are to speak LACP through the wire, they cannot."
        }
        R::L2NotListed => {
            "Wanted, if `l2.pass` is a list. Otherwise add the EtherType to it; ARP has to be in the list or IPv4 finds \
             nobody."
        }
        R::FragmentBad | R::FragmentOverlap | R::FragmentEcn => {
            "Attacks on reassembly look like this, and so does a broken sender. Linux drops them too. If it is a tunnel of \
             your own, lower its MTU so that nothing is cut."
        }
        R::FragmentRepeated => "The network sends packets twice. A few are harmless.",
        R::FragmentDistance => {
            "A sender whose datagrams overtake each other by more than `conntrack.ipfrag_max_dist` fragments: mostly \
             unequal paths in front of the gateway. Raise it, or set it to 0 for no limit."
        }
        R::FragmentLimit => {
            "A flood of fragments, or large datagrams over a slow path. Raise `conntrack.ipfrag_high_thresh` and \
             `frag6_high_thresh` (bytes per worker) if the senders are known; more than a quarter of \
             `umem.frames_per_worker` is never held."
        }
        R::FragmentTimeout => {
            "Fragments are lost before the gateway, or take the other side of the wire. Look for loss upstream; lower the \
             sender's MTU."
        }
        R::HelperLine => {
            "An FTP command that the helper cannot follow, mostly because it is split over segments. The kernel drops it \
             likewise; the sender repeats it. If it stays: does the server speak something else on that port?"
        }
        R::RuleDrop => {
            "The rule counts it: `fwctl rules` shows which rule's counter grows, `fwctl replay` walks a capture through \
             a rules file."
        }
        R::RuleReject => "As `rule_drop`; the sender was told.",
        R::RuleRejectSilent => {
            "No answer is owed to RSTs, ICMP errors, later fragments, packets with wrong checksums, broadcasts. If answers \
             are missed under load, raise `reject.icmp_msgs_per_sec`."
        }
        R::PolicyDrop => {
            "No rule accepted it. If it belongs to a connection: is `-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT` \
             in front, and is the packet perhaps INVALID (`fwctl stats --all` counts the causes)? If it begins one: the \
             accepting rule is missing, or asks for another NIC, address or port."
        }
        R::FlowTableFull => {
            "Raise `flows.max`, or find who fills the table (`fwctl flows -C`, `fwctl workers`). `[[wire]] full` says what \
             happens to new flows then."
        }
        R::TxRingFull => {
            "The NIC sends more slowly than packets come: a slower link on that side, pause frames, or a driver that needs \
             its interrupts. Bursts alone: raise `umem.ring_size_descs`."
        }
        R::LinkDown => "Plug the cable in, or look at the far end. Packets flow again by themselves.",
        R::MtuExceeded => {
            "Both NICs of a wire need the same MTU: `fwctl doctor` names the command. TCP alone can be helped by `-j TCPMSS \
             --clamp-mss-to-pmtu`."
        }
        R::HandoffFull => {
            "The worker that owns these flows has not kept up. `fwctl workers` shows loads: `fwctl workers rebalance`, or a \
             stalled worker in `fwctl stats`."
        }
        R::FramesLent => {
            "As `handoff_full`: another worker keeps this one's frames too long. More `umem.frames_per_worker` helps \
             against bursts only."
        }
        R::BucketMoving => {
            "Flows were moved while more packets came than half of a worker's frames hold. Nothing, if rare; else rebalance \
             when there is less traffic, or raise `umem.frames_per_worker`."
        }
    }
}
