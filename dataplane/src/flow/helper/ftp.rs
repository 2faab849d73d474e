//! FTP (RFC 959, RFC 2428): PORT and EPRT from the client, the answers 227 and 229 from the server. What is read and
//! what is left alone follows Linux `nf_conntrack_ftp.c`, as observed from outside:
//!
//! * a command counts only at the start of a line, that is in a segment that follows one which ended in a newline; so
//!   the first line of either side is never read, and retransmissions are;
//! * one that is cut off or cannot be read is [`Heard::Unclear`];
//! * an address that is not the sender's is ignored: nobody may announce connections to third parties.

use super::{Announced, Heard};
use crate::flow::tracked::Direction;
use crate::packet::Family;
use crate::wire::tcp::before;
use std::net::Ipv6Addr;

/// Where lines start, as far as known: sequence numbers after the last two newlines at a segment's end, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::flow) struct Lines {
    starts: [[Option<u32>; 2]; 2],
}

impl Lines {
    /// Whether a line starts at `seq`.
    fn is_start(&self, direction: Direction, seq: u32) -> bool {
        self.starts[direction.index()].contains(&Some(seq))
    }

    /// A segment that ended in a newline has come; the next line starts at `seq`.
    fn note(&mut self, direction: Direction, seq: u32) {
        match &mut self.starts[direction.index()] {
            [first, second] if *first == Some(seq) || *second == Some(seq) => {}
            [first @ None, _] => *first = Some(seq),
            [_, second @ None] => *second = Some(seq),
            [Some(first), Some(second)] => {
                let older = if before(*first, *second) { first } else { second };
                *older = seq;
            }
        }
    }

    /// Reads a segment of a control connection: `payload` starts at `seq`, `sender` is its source address.
    pub(in crate::flow) fn read(
        &mut self,
        direction: Direction,
        seq: u32,
        payload: &[u8],
        sender: (Family, u128),
    ) -> Heard {
        let Some(last) = payload.last() else { return Heard::Nothing };
        let heard =
            if self.is_start(direction, seq) { line(direction, payload, sender) } else { Heard::Nothing };
        if *last == b'\n' && heard != Heard::Unclear {
            let end = u32::try_from(payload.len()).map_or(seq, |len| seq.wrapping_add(len));
            self.note(direction, end);
        }
        heard
    }
}

/// What the number after a command looks like.
#[derive(Clone, Copy)]
enum Form {
    /// `h1,h2,h3,h4,p1,p2` up to a given byte.
    Host(u8),
    /// The same, wherever the first digit is, up to anything else.
    HostAnywhere,
    /// `|1|132.235.1.2|6275|`.
    Extended,
    /// `|||6275|`.
    ExtendedPort,
}

/// A command or answer: how it starts, what byte its argument follows, what the argument looks like.
struct Pattern {
    start: &'static [u8],
    skip_to: Option<u8>,
    form: Form,
}

/// From the client, and from the server.
const PATTERNS: [[Pattern; 2]; 2] = [
    [
        Pattern { start: b"PORT", skip_to: Some(b' '), form: Form::Host(b'\r') },
        Pattern { start: b"EPRT", skip_to: Some(b' '), form: Form::Extended },
    ],
    [
        Pattern { start: b"227 ", skip_to: None, form: Form::HostAnywhere },
        Pattern { start: b"229 ", skip_to: Some(b'('), form: Form::ExtendedPort },
    ],
];

fn line(direction: Direction, payload: &[u8], sender: (Family, u128)) -> Heard {
    PATTERNS[direction.index()]
        .iter()
        .map(|pattern| pattern.find(payload, sender))
        .find(|heard| *heard != Heard::Nothing)
        .unwrap_or(Heard::Nothing)
}

impl Pattern {
    fn find(&self, payload: &[u8], (family, sender): (Family, u128)) -> Heard {
        let known = self.start.len().min(payload.len());
        if !payload[..known].eq_ignore_ascii_case(&self.start[..known]) {
            return Heard::Nothing;
        }
        let argument = match self.skip_to {
            _ if payload.len() <= self.start.len() => None,
            None => payload.get(known..),
            // The byte itself must not be the last one.
            Some(skip) => {
                let body = &payload[known..payload.len() - 1];
                body.iter().position(|byte| *byte == skip).map(|at| &payload[known + at + 1..])
            }
        };
        let Some(read) = argument.and_then(|argument| self.form.read(argument, family)) else {
            return Heard::Unclear;
        };
        let (address, dst_port) = read;
        match address {
            Some(address) if address != sender => Heard::Nothing,
            _ => Heard::Announced(Announced { dst: None, dst_port }),
        }
    }
}

impl Form {
    /// The address, if one is given that can be compared with the sender's, and the port.
    fn read(self, text: &[u8], family: Family) -> Option<(Option<u128>, u16)> {
        match self {
            Self::Host(end) => host_port(text, Some(end), family),
            Self::HostAnywhere => {
                let start = text.iter().position(u8::is_ascii_digit)?;
                host_port(&text[start..], None, family)
            }
            Self::Extended => extended(text, family),
            Self::ExtendedPort => {
                let delimiter = delimiter(text)?;
                (text[1] == delimiter && text[2] == delimiter).then_some(())?;
                Some((None, port(&text[3..], delimiter)?))
            }
        }
    }
}

/// Numbers between separators, as many as asked for, up to `end` or, if that is `None`, to anything else. Gives the
/// numbers and how long they were; numbers wrap as C's do.
fn numbers<const N: usize>(text: &[u8], separator: u8, end: Option<u8>) -> Option<([u32; N], usize)> {
    let mut array = [0_u32; N];
    let mut at = 0;
    for (len, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => array[at] = array[at].wrapping_mul(10).wrapping_add(u32::from(byte - b'0')),
            byte if *byte == separator => {
                at += 1;
                if at == N {
                    return None;
                }
            }
            byte => return (at == N - 1 && end.is_none_or(|end| *byte == end)).then_some((array, len)),
        }
    }
    None
}

/// Four bytes as an address. As in C, what does not fit its byte runs into the next one.
const fn address(bytes: [u32; 4]) -> u128 {
    let [a, b, c, d] = bytes;
    (a << 24 | b << 16 | c << 8 | d) as u128
}

#[expect(clippy::cast_possible_truncation, reason = "as the kernel puts a port together")]
fn host_port(text: &[u8], end: Option<u8>, family: Family) -> Option<(Option<u128>, u16)> {
    let ([a, b, c, d, high, low], _) = numbers::<6>(text, b',', end)?;
    // Over IPv6 these commands have no meaning; what stands there is no address that could be the sender's.
    let address = if family == Family::V4 { address([a, b, c, d]) } else { u128::MAX };
    Some((Some(address), (high << 8 | low) as u16))
}

/// The delimiter an extended argument starts with, if more than three bytes follow.
fn delimiter(text: &[u8]) -> Option<u8> {
    let first = *text.first()?;
    (text.len() > 3 && !first.is_ascii_digit() && (33..=126).contains(&first)).then_some(first)
}

fn extended(text: &[u8], family: Family) -> Option<(Option<u128>, u16)> {
    let delimiter = delimiter(text)?;
    let wanted = if family == Family::V4 { b'1' } else { b'2' };
    (text[1] == wanted && text[2] == delimiter).then_some(())?;
    let rest = &text[3..];
    let (address, len) = match family {
        Family::V4 => {
            let (bytes, len) = numbers::<4>(rest, b'.', Some(delimiter))?;
            (address(bytes), len)
        }
        Family::V6 => {
            let len = rest.iter().position(|byte| *byte == delimiter)?;
            let text = std::str::from_utf8(&rest[..len]).ok()?;
            (text.parse::<Ipv6Addr>().ok()?.to_bits(), len)
        }
    };
    Some((Some(address), port(rest.get(len + 1..)?, delimiter)?))
}

/// Digits up to the delimiter. Zero is no port.
fn port(text: &[u8], delimiter: u8) -> Option<u16> {
    let mut port = 0_u16;
    for byte in text {
        match byte {
            b'0'..=b'9' => port = port.wrapping_mul(10).wrapping_add(u16::from(byte - b'0')),
            byte if *byte == delimiter => return (port != 0).then_some(port),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V4: (Family, u128) = (Family::V4, 0x0a4d_0001);
    const V6: (Family, u128) = (Family::V6, 0xfd77 << 112 | 1);

    /// Reads a line after a newline.
    fn hear(direction: Direction, text: &[u8], sender: (Family, u128)) -> Heard {
        let mut lines = Lines::default();
        lines.note(direction, 1000);
        lines.read(direction, 1000, text, sender)
    }

    fn port_of(heard: Heard) -> Option<u16> {
        match heard {
            Heard::Announced(Announced { dst: None, dst_port }) => Some(dst_port),
            _ => None,
        }
    }

    #[test]
    fn clients_announce_by_port_and_eprt() {
        for text in ["PORT 10,77,0,1,7,208\r\n", "port 10,77,0,1,7,208\r\n", "EPRT |1|10.77.0.1|2000|\r\n"] {
            assert_eq!(port_of(hear(Direction::Orig, text.as_bytes(), V4)), Some(2000), "{text}");
        }
        assert_eq!(port_of(hear(Direction::Orig, b"EPRT |2|fd77::1|2000|\r\n", V6)), Some(2000));
        assert_eq!(port_of(hear(Direction::Orig, b"EPRT !2!fd77::1!2000!\r\n", V6)), Some(2000));
    }

    #[test]
    fn servers_announce_by_227_and_229() {
        for text in [
            "227 Entering Passive Mode (10,77,0,1,7,208).\r\n",
            "227 10,77,0,1,7,208\r\n",
            "229 Entering Extended Passive Mode (|||2000|)\r\n",
        ] {
            assert_eq!(port_of(hear(Direction::Reply, text.as_bytes(), V4)), Some(2000), "{text}");
        }
        assert_eq!(port_of(hear(Direction::Reply, b"229 ok (|||2000|)\r\n", V6)), Some(2000));
    }

    #[test]
    fn third_parties_and_the_wrong_side_are_left_alone() {
        assert_eq!(hear(Direction::Orig, b"PORT 10,77,0,9,7,208\r\n", V4), Heard::Nothing);
        assert_eq!(hear(Direction::Reply, b"227 (10,77,0,9,7,208)\r\n", V4), Heard::Nothing);
        assert_eq!(hear(Direction::Reply, b"PORT 10,77,0,1,7,208\r\n", V4), Heard::Nothing);
        assert_eq!(hear(Direction::Orig, b"227 (10,77,0,1,7,208)\r\n", V4), Heard::Nothing);
        assert_eq!(hear(Direction::Orig, b"PORT 10,77,0,1,7,208\r\n", V6), Heard::Nothing);
    }

    #[test]
    fn what_is_cut_off_or_broken_is_unclear() {
        for text in [
            "P",
            "PORT",
            "PORT ",
            "PORT 10,77,0,1,7,208",
            "PORT 10,77,0,1,7\r\n",
            "PORT 1,2,3,4,5,6,7\r\n",
            "PORT x\r\n",
            "EPRT |1|10.77.0.1|2000",
            "EPRT |1|10.77.0.1|0|\r\n",
            "EPRT |2|fd77::1|2000|\r\n",
            "EPRT 111\r\n",
            "EPRT |3|x|1|\r\n",
        ] {
            assert_eq!(hear(Direction::Orig, text.as_bytes(), V4), Heard::Unclear, "{text}");
        }
        for text in ["22", "227 no digits\r\n", "229 no bracket\r\n", "229 (||2000|)\r\n", "229 (|||x|)\r\n"]
        {
            assert_eq!(hear(Direction::Reply, text.as_bytes(), V4), Heard::Unclear, "{text}");
        }
    }

    #[test]
    fn a_command_counts_only_at_the_start_of_a_line() {
        let mut lines = Lines::default();
        let port = b"PORT 10,77,0,1,7,208\r\n";
        assert_eq!(lines.read(Direction::Orig, 500, port, V4), Heard::Nothing, "the first line is not read");
        let next = 500 + 22;
        assert_eq!(port_of(lines.read(Direction::Orig, next, port, V4)), Some(2000));
        assert_eq!(port_of(lines.read(Direction::Orig, next, port, V4)), Some(2000), "a retransmission");
        assert_eq!(lines.read(Direction::Orig, next + 1, port, V4), Heard::Nothing);
        // Without a newline at its end no line starts behind it.
        assert_eq!(lines.read(Direction::Orig, next + 22, b"NOOP", V4), Heard::Nothing);
        assert_eq!(lines.read(Direction::Orig, next + 26, port, V4), Heard::Nothing);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            text in proptest::collection::vec(any::<u8>(), 0..64), start in 0..4_usize, reply: bool, six: bool,
        ) {
            let direction = if reply { Direction::Reply } else { Direction::Orig };
            let mut payload = PATTERNS[start / 2][start % 2].start.to_vec();
            payload.extend(text);
            hear(direction, &payload, if six { V6 } else { V4 });
        }

        #[test]
        fn what_is_announced_is_what_was_written(port in 1..=u16::MAX) {
            let [high, low] = port.to_be_bytes();
            let text = format!("PORT 10,77,0,1,{high},{low}\r\n");
            prop_assert_eq!(port_of(hear(Direction::Orig, text.as_bytes(), V4)), Some(port));
            let text = format!("229 ok (|||{port}|)\r\n");
            prop_assert_eq!(port_of(hear(Direction::Reply, text.as_bytes(), V4)), Some(port));
        }
    }
}
