//! Changes that rules make to a packet's headers: TOS, DSCP, TTL, HL, ECN, TCPMSS, TCPOPTSTRIP. Worker thread.
//!
//! A change is made in the frame itself, at once, as in the kernel: rules behind it, answers and the log see the packet as it
//! is then, and a packet that is dropped later was changed for nothing. Because facts lend out the frame's bytes, rules
//! cannot write to them: [`super::Compiled::classify`] stops at such a rule, its caller makes the change and lets it
//! go on ([`super::Compiled::resume`]).
//!
//! Checksums are mended and not made anew (RFC 1624), as the kernel does: a packet that was broken stays broken. Behaviour
//! follows `xt_DSCP.c`, `xt_HL.c`, `ipt_ECN.c`, `xt_TCPMSS.c` and `xt_TCPOPTSTRIP.c`, as observed from outside.

mod ip;
mod tcp;
#[cfg(test)]
mod tests;

pub use tcp::TcpOptions;

use super::Facts;
use super::interned::Interned;
use crate::packet::{Family, Packet};

/// A change to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alter {
    /// `-j TOS`, `-j DSCP`: bits of the TOS byte or the traffic class that are cleared, and those
    /// flipped after that.
    Tos {
        /// Cleared.
        clear: u8,
        /// Flipped then.
        flip: u8,
    },
    /// `-j TTL`, `-j HL`.
    Hops(Hops),
    /// `-j ECN`: what is given is written. IPv4 only.
    Ecn {
        /// ECN's two bits in the IP header.
        ect: Option<u8>,
        /// TCP's flag ECE.
        ece: Option<bool>,
        /// TCP's flag CWR.
        cwr: Option<bool>,
    },
    /// `-j TCPMSS --set-mss`: the largest segment a SYN may ask for. Never raises it.
    Mss(u16),
    /// `-j TCPMSS --clamp-mss-to-pmtu`: the same by what both NICs of the wire can carry.
    ClampMss,
    /// `-j TCPOPTSTRIP`: options that become no-operations.
    Strip(Interned<TcpOptions>),
}

/// What becomes of the TTL or hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// This.
    Set(u8),
    /// More, 255 at most.
    Inc(u8),
    /// Less, 0 at least.
    Dec(u8),
}

/// A packet whose bytes may be changed.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The frame from its first byte on, and behind its end the room it may grow into.
    pub bytes: &'a mut [u8],
    /// How many of them are the frame. Grows when an option is added.
    pub len: usize,
    /// Where its headers are; kept true to the bytes.
    pub packet: &'a mut Packet,
    /// The largest IP packet that both NICs of the wire can carry.
    pub mtu: u32,
}

/// A packet that cannot be changed as it should be, and is dropped for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

impl Alter {
    /// Changes a packet. Nothing happens to one whose bytes are not all there.
    ///
    /// # Errors
    /// If the packet must be dropped: a TCP header that is cut off or longer than the packet, or a path too narrow for TCP.
    pub fn apply(self, subject: &mut Subject<'_>) -> Result<(), Unfit> {
        if subject.packet.l3_end() > subject.len || subject.len > subject.bytes.len() {
            return Ok(());
        }
        match self {
            Self::Tos { clear, flip } => ip::change_tos(subject, |tos| (tos & !clear) ^ flip),
            Self::Hops(hops) => ip::change_hops(subject, |have| match hops {
                Hops::Set(hops) => hops,
                Hops::Inc(by) => have.saturating_add(by),
                Hops::Dec(by) => have.saturating_sub(by),
            }),
            Self::Ecn { ect, ece, cwr } => {
                if let Some(ect) = ect {
                    ip::change_tos(subject, |tos| tos & !3 | ect & 3);
                }
                if ece.or(cwr).is_some() {
                    return tcp::set_ecn(subject, ece, cwr);
                }
            }
            Self::Mss(mss) => return tcp::lower_mss(subject, mss),
            Self::ClampMss => {
                let headers = match subject.packet.tuple.family {
                    Family::V4 => 40,
                    Family::V6 => 60,
                };
                let room = subject.mtu.checked_sub(headers).filter(|room| *room > 0).ok_or(Unfit)?;
                return tcp::lower_mss(subject, u16::try_from(room).unwrap_or(u16::MAX));
            }
            Self::Strip(options) => return tcp::strip(subject, &options),
        }
        Ok(())
    }
}

/// A copy of a packet, for those who have no frame to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    changed: Option<(Box<Header>, Vec<u8>)>,
}

/// What changes of a packet's description.
#[derive(Clone, Debug)]
struct Header(Packet);

impl PartialEq for Header {
    fn eq(&self, other: &Self) -> bool {
        let of = |packet: &Packet| (packet.l3_len, packet.frame_len, packet.tcp_flags);
        of(&self.0) == of(&other.0)
    }
}

impl Eq for Header {}

impl Copied {
    /// The facts, about the packet as it has become.
    pub(super) fn facts<'a>(&'a self, facts: &Facts<'a>) -> Facts<'a> {
        match &self.changed {
            Some((header, bytes)) => Facts { packet: &header.0, bytes, ..*facts },
            None => *facts,
        }
    }

    /// What it has become; `None` if nothing has changed it.
    pub(super) fn changed(&self) -> Option<(&Packet, &[u8])> {
        self.changed.as_ref().map(|(header, bytes)| (&header.0, bytes.as_slice()))
    }

    /// Changes the copy.
    pub(super) fn change(&mut self, alter: Alter, facts: &Facts<'_>) -> Result<(), Unfit> {
        let (header, bytes) =
            self.changed.get_or_insert_with(|| (Box::new(Header(*facts.packet)), facts.bytes.to_vec()));
        let len = bytes.len();
        bytes.resize(len + tcp::MSS_OPTION_LEN, 0);
        let mut subject = Subject { bytes, len, packet: &mut header.0, mtu: facts.mtu };
        let done = alter.apply(&mut subject);
        let len = subject.len;
        bytes.truncate(len);
        done
    }
}
