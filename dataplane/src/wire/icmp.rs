//! ICMP and ICMPv6: which messages ask, which answer, and which report an error.
//! RFC 792, RFC 950, RFC 4443, RFC 4620; which of them netfilter tracks: `nf_conntrack_proto_icmp.c`,
//! `nf_conntrack_proto_icmpv6.c`.

use crate::packet::proto;

/// ICMP types.
pub mod ty {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Timestamp.
    pub const TIMESTAMP: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;
    /// Information request.
    pub const INFO: u8 = 15;
    /// Information reply.
    pub const INFO_REPLY: u8 = 16;
    /// Address mask request.
    pub const ADDRESS_MASK: u8 = 17;
    /// Address mask reply.
    pub const ADDRESS_MASK_REPLY: u8 = 18;
}

/// ICMPv6 types.
pub mod ty6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Node information query.
    pub const NODE_INFO: u8 = 139;
    /// Node information reply.
    pub const NODE_INFO_REPLY: u8 = 140;
}

/// The type that answers `ty`, or that `ty` answers: what the reply tuple of a query flow has. `None` for types that
/// are not part of a query.
#[must_use]
pub const fn counterpart(protocol: u8, ty: u8) -> Option<u8> {
    Some(match (protocol, ty) {
        (proto::ICMP, ty::ECHO) => ty::ECHO_REPLY,
        (proto::ICMP, ty::ECHO_REPLY) => ty::ECHO,
        (proto::ICMP, ty::TIMESTAMP) => ty::TIMESTAMP_REPLY,
        (proto::ICMP, ty::TIMESTAMP_REPLY) => ty::TIMESTAMP,
        (proto::ICMP, ty::INFO) => ty::INFO_REPLY,
        (proto::ICMP, ty::INFO_REPLY) => ty::INFO,
        (proto::ICMP, ty::ADDRESS_MASK) => ty::ADDRESS_MASK_REPLY,
        (proto::ICMP, ty::ADDRESS_MASK_REPLY) => ty::ADDRESS_MASK,
        (proto::ICMPV6, ty6::ECHO) => ty6::ECHO_REPLY,
        (proto::ICMPV6, ty6::ECHO_REPLY) => ty6::ECHO,
        (proto::ICMPV6, ty6::NODE_INFO) => ty6::NODE_INFO_REPLY,
        (proto::ICMPV6, ty6::NODE_INFO_REPLY) => ty6::NODE_INFO,
        _ => return None,
    })
}

/// Whether a message of this type asks or answers, and so carries an identifier.
#[must_use]
pub const fn is_query(protocol: u8, ty: u8) -> bool {
    counterpart(protocol, ty).is_some()
}

/// Whether a message of this type reports an error about another packet and quotes it.
#[inline]
#[must_use]
pub const fn is_error(protocol: u8, ty: u8) -> bool {
    match protocol {
        proto::ICMP => matches!(
            ty,
            ty::UNREACHABLE | ty::SOURCE_QUENCH | ty::REDIRECT | ty::TIME_EXCEEDED | ty::PARAMETER_PROBLEM
        ),
        proto::ICMPV6 => ty < 128,
        _ => false,
    }
}
