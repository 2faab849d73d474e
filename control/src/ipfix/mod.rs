//! Flow records for a collector: IPFIX (RFC 7011) over UDP, two directions in one record (RFC 5103). Pure: what is said
//! ([`ledger`]) and how it is written ([`message`]); who sends it is the supervisor's business.
//!
//! A record is written when a flow ends, when it has been reported for the last time `active_secs` ago and still carries
//! packets, and when it has carried none for `idle_secs`. Counters are deltas: those of all records of a flow add up to what
//! `fwctl flows` shows of it. Flows that are not tracked have no records.
//!
//! Templates, sent at the start and every `template_secs`: 256 for IPv4, 257 for IPv6, 258 for ICMP, 259 for ICMPv6. The fields,
//! in this order (*r*: RFC 5103's reverse of it, enterprise 29305):
//!
//! | element | number | octets | what stands in it |
//! |---|---|---|---|
//! | sourceIPv4Address or sourceIPv6Address | 8 or 27 | 4 or 16 | who opened the flow |
//! | destinationIPv4Address or destinationIPv6Address | 12 or 28 | 4 or 16 | whom to |
//! | protocolIdentifier | 4 | 1 | IP protocol |
//! | sourceTransportPort, destinationTransportPort | 7, 11 | 2 each | 0 for protocols without ports; not for ICMP |
//! | icmpTypeCodeIPv4 or icmpTypeCodeIPv6 | 32 or 139 | 2 | instead of ports; of the query |
//! | octetDeltaCount, *r* | 1 | 8 each | IP octets, headers included, since the record before |
//! | packetDeltaCount, *r* | 2 | 8 each | packets since the record before |
//! | flowStartMilliseconds | 152 | 8 | when the flow began, or when the record before ended |
//! | flowEndMilliseconds | 153 | 8 | when its last packet came, as far as its timeout tells; else when the record was made |
//! | ingressInterface, egressInterface | 10, 14 | 4 each | index of the NIC its first packet came in on, and of the other one; 0 if unknown |
//! | flowEndReason | 136 | 1 | 1 idle, 2 still active, 3 ended by its own packets, 4 ended by an operator, 5 evicted for room |
//! | biflowDirection | 239 | 1 | 1: the source is the initiator |
//! | flowId | 148 | 8 | the `id` of `fwctl flows -o id` |

pub mod ledger;
pub mod message;
