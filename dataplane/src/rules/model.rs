//! What the operator asked for: one family's tables as data. Built by control from iptables-save text, read by
//! [`super::linear`] (the meaning) and by the compiler. Immutable once built.

use super::conn::{ConnLimit, ConnMatch, Effect};
use super::header::HeaderMatch;
use super::rate::RateMatch;
use crate::packet::Family;
use crate::reason::DropReason;
use crate::sets::SetMatch;
use std::sync::Arc;

/// One family's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Which packets these rules judge.
    pub family: Family,
    /// All chains of all tables. Those of `filter` come first: the built-in ones in kernel order (INPUT, FORWARD,
    /// OUTPUT), then user chains as declared; the other tables' follow in the same manner.
    pub chains: Vec<Chain>,
    /// Position of filter's FORWARD in `chains`.
    pub forward: ChainId,
    /// The other built-in chains a packet passes through.
    pub around: Around,
}

impl Ruleset {
    /// Its rules that count connections.
    pub(crate) fn connlimits(&self) -> impl Iterator<Item = &ConnLimit> {
        let matches = self.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches);
        matches.filter_map(|condition| match condition {
            Match::Conn(ConnMatch::ConnLimit(limit)) => Some(limit),
            _ => None,
        })
    }
}

/// Built-in chains a forwarded packet passes beside filter's FORWARD, in its order. INPUT and OUTPUT are for the
/// gateway's own traffic, and a bump in the wire has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Around {
    /// `raw` PREROUTING: before connection tracking.
    pub raw_prerouting: Option<ChainId>,
    /// `mangle` PREROUTING.
    pub mangle_prerouting: Option<ChainId>,
    /// `mangle` FORWARD.
    pub mangle_forward: Option<ChainId>,
    /// `mangle` POSTROUTING: after filter's FORWARD has accepted.
    pub mangle_postrouting: Option<ChainId>,
}

/// Where on a packet's way a built-in chain stands: which NICs it may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The egress NIC is not known yet, nor the connection: of that only what orders to the tracker made of it.
    Raw,
    /// The egress NIC is not known yet.
    Prerouting,
    /// Both NICs are known.
    Forward,
    /// The ingress NIC is no longer known.
    Postrouting,
}

/// Position of a chain in [`Ruleset::chains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub u32);

/// A table of iptables that a bump in the wire can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Table {
    /// Verdicts.
    #[default]
    Filter,
    /// Changes to packets and marks.
    Mangle,
    /// Before connection tracking.
    Raw,
}

/// A named list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The table it is in.
    pub table: Table,
    /// Name as written.
    pub name: String,
    /// What happens at the end: only built-in chains have one, user chains return to their caller.
    pub policy: Option<Policy>,
    /// Rules in order. Shared, so that an edit of one does not copy the others.
    pub rules: Vec<Arc<Rule>>,
}

/// A built-in chain's default verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Forward.
    Accept,
    /// Drop.
    Drop,
}

/// Stable name of a rule: the same rule keeps it across reloads, wherever it moves to, so counters and logs survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u64);

/// A rule: if all matches hold, do the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name.
    pub id: RuleId,
    /// Conditions, all of which must hold. Empty matches everything.
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
    /// Whether flows it accepts may use the reserve for management, see [`crate::flow::Claim`].
    pub management: bool,
    /// Whether it was written without a condition, even one that always holds: a trace calls it otherwise.
    pub is_bare: bool,
}

/// One condition. `invert` is iptables' `!`; it inverts the condition itself, never the precondition that the packet
/// carries the field at all (a later fragment matches neither `--dport 80` nor `! --dport 80`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's own line names its fields")]
pub enum Match {
    /// `-i`: name of the ingress NIC.
    InIface { pattern: IfacePattern, invert: bool },
    /// `-o`: name of the egress NIC.
    OutIface { pattern: IfacePattern, invert: bool },
    /// `-s`: `src & mask == addr`. The mask may have holes (IPv4 only in practice).
    Src { addr: u128, mask: u128, invert: bool },
    /// `-d`: `dst & mask == addr`.
    Dst { addr: u128, mask: u128, invert: bool },
    /// `-p`: upper-layer protocol. Zero (`all`) is left out by the parser.
    Proto { proto: u8, invert: bool },
    /// `-f`: a fragment other than the first (IPv4).
    LaterFragment { invert: bool },
    /// `--sport`, `--dport`, `-m multiport`: ports in any of the inclusive ranges.
    Ports { which: PortSide, ranges: Vec<(u16, u16)>, invert: bool },
    /// `--tcp-flags MASK COMP` and `--syn`: `flags & mask == comp`.
    TcpFlags { mask: u8, comp: u8, invert: bool },
    /// `--icmp-type`, `--icmpv6-type`: type equal and code within the inclusive range; `None` is `any`.
    Icmp { ty: Option<u8>, codes: (u8, u8), invert: bool },
    /// `-m conntrack --ctstate`, `-m state`: connection state among the set.
    CtState { states: CtStateSet, invert: bool },
    /// Whatever else asks about the packet's connection or its mark.
    Conn(ConnMatch),
    /// What is in the packet beyond the above.
    Header(HeaderMatch),
    /// What keeps state or asks the clock.
    Rate(RateMatch),
    /// `-m set`.
    Set(SetMatch),
}

/// Which ports a match looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortSide {
    /// Source port.
    Src,
    /// Destination port.
    Dst,
    /// Either (`-m multiport --ports`).
    Either,
}

/// An interface name, whole or as a prefix (`eth+`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IfacePattern {
    /// The name, without a trailing `+`.
    pub name: String,
    /// Whether anything may follow the name.
    pub prefix: bool,
}

/// Connection state of a packet, as rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CtState {
    /// Starts a flow, or repeats the start of one that has seen no answer.
    New = 0,
    /// Belongs to a flow that has been answered, or is the answer.
    Established = 1,
    /// Announced by another flow: an ICMP error about it, or an expected connection.
    Related = 2,
    /// Fits no flow and cannot start one.
    Invalid = 3,
    /// Not tracked: tracking is off, or the packet is of a kind that is never tracked (NDP, MLD).
    Untracked = 4,
}

/// A set of [`CtState`]s, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CtStateSet(pub u8);

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// No `-j`: only count.
    Continue,
    /// Forward.
    Accept,
    /// Drop.
    Drop,
    /// Drop and answer.
    Reject(RejectWith),
    /// Change a mark or what the tracker is to do, and go on.
    Effect(Effect),
    /// Back to the calling chain; in a built-in chain, its policy.
    Return,
    /// Walk another chain, come back to the next rule.
    Jump(ChainId),
    /// Walk another chain, come back to where this chain would have returned to.
    Goto(ChainId),
}

/// What a REJECT answers with. Codes: RFC 792, RFC 1122, RFC 1812 for ICMP, RFC 4443 for ICMPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    /// ICMP 3/0.
    IcmpNetUnreachable,
    /// ICMP 3/1.
    IcmpHostUnreachable,
    /// ICMP 3/2.
    IcmpProtoUnreachable,
    /// ICMP 3/3, the IPv4 default.
    IcmpPortUnreachable,
    /// ICMP 3/9.
    IcmpNetProhibited,
    /// ICMP 3/10.
    IcmpHostProhibited,
    /// ICMP 3/13.
    IcmpAdminProhibited,
    /// ICMPv6 1/0.
    Icmp6NoRoute,
    /// ICMPv6 1/1.
    Icmp6AdminProhibited,
    /// ICMPv6 1/3.
    Icmp6AddrUnreachable,
    /// ICMPv6 1/4, the IPv6 default.
    Icmp6PortUnreachable,
    /// ICMPv6 1/5.
    Icmp6PolicyFail,
    /// ICMPv6 1/6.
    Icmp6RejectRoute,
    /// A TCP RST, either family; only with `-p tcp`.
    TcpReset,
}

/// What the rules say about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Forward.
    Accept,
    /// Drop.
    Drop,
    /// Drop and answer.
    Reject(RejectWith),
}

/// Which rule had the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleRef {
    /// The chain it stands in.
    pub chain: ChainId,
    /// Its position there, from zero; `None` is the chain's policy.
    pub rule: Option<u32>,
}

impl RuleRef {
    /// What a packet is dropped for by it: a rule, or a chain's policy.
    #[must_use]
    pub const fn drop_reason(self) -> DropReason {
        if self.rule.is_none() { DropReason::PolicyDrop } else { DropReason::RuleDrop }
    }
}

impl CtState {
    /// The name rules call it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Established => "ESTABLISHED",
            Self::Related => "RELATED",
            Self::Invalid => "INVALID",
            Self::Untracked => "UNTRACKED",
        }
    }
}

impl CtStateSet {
    /// The set with `state` added.
    #[must_use]
    pub const fn with(self, state: CtState) -> Self {
        Self(self.0 | 1 << state as u8)
    }

    /// Whether `state` is in the set.
    #[must_use]
    pub const fn contains(self, state: CtState) -> bool {
        self.0 & (1 << state as u8) != 0
    }
}

impl IfacePattern {
    /// Whether an interface called `name` fits.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

impl Table {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Mangle => "mangle",
            Self::Raw => "raw",
        }
    }
}

impl Ruleset {
    /// A table with the three built-in chains, empty, policy ACCEPT: what the kernel has before anything is loaded.
    #[must_use]
    pub fn empty(family: Family) -> Self {
        let chain = |name: &str| Chain {
            table: Table::Filter,
            name: name.to_owned(),
            policy: Some(Policy::Accept),
            rules: Vec::new(),
        };
        let chains = vec![chain("INPUT"), chain("FORWARD"), chain("OUTPUT")];
        Self { family, chains, forward: ChainId(1), around: Around::default() }
    }

    /// The built-in chains a tracked packet passes, in order.
    #[must_use]
    pub fn way(&self) -> Vec<(Hook, ChainId)> {
        let Around { raw_prerouting: _, mangle_prerouting, mangle_forward, mangle_postrouting } = self.around;
        let way = [
            (Hook::Prerouting, mangle_prerouting),
            (Hook::Forward, mangle_forward),
            (Hook::Forward, Some(self.forward)),
            (Hook::Postrouting, mangle_postrouting),
        ];
        way.into_iter().filter_map(|(hook, chain)| Some((hook, chain?))).collect()
    }

    /// The built-in chain a packet passes before it is tracked, if there is one.
    #[must_use]
    pub fn raw_way(&self) -> Vec<(Hook, ChainId)> {
        self.around.raw_prerouting.map(|chain| (Hook::Raw, chain)).into_iter().collect()
    }

    /// Where a built-in chain stands on a packet's way; `None` for other chains, and those it never passes.
    #[must_use]
    pub fn hook_of(&self, chain: ChainId) -> Option<Hook> {
        let Around { raw_prerouting, mangle_prerouting, mangle_forward, mangle_postrouting } = self.around;
        let hooks = [
            (Hook::Raw, raw_prerouting),
            (Hook::Prerouting, mangle_prerouting),
            (Hook::Forward, mangle_forward),
            (Hook::Forward, Some(self.forward)),
            (Hook::Postrouting, mangle_postrouting),
        ];
        hooks.into_iter().find(|(_, at)| *at == Some(chain)).map(|(hook, _)| hook)
    }

    /// All rules of all chains.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.chains.iter().flat_map(|chain| &chain.rules).map(|rule| &**rule)
    }

    /// The chain behind an id.
    #[must_use]
    pub fn chain(&self, id: ChainId) -> &Chain {
        &self.chains[id.0 as usize]
    }

    /// Every rule and every policy, in order.
    pub fn references(&self) -> impl Iterator<Item = RuleRef> + '_ {
        (0_u32..).map(ChainId).zip(&self.chains).flat_map(|(chain, content)| {
            let rules =
                (0_u32..).zip(&content.rules).map(move |(rule, _)| RuleRef { chain, rule: Some(rule) });
            rules.chain(content.policy.map(|_| RuleRef { chain, rule: None }))
        })
    }
}
