//! SCTP: what a packet's chunks do to its association. Pure functions over values, as with TCP: the tracker loads an
//! [`SctpFlow`], opens or advances it, and stores it back. Owning worker only.
//!
//! Each chunk moves the state by a table of direction, chunk and state; before that its verification tag must be right,
//! by rules that differ for chunks that carry a tag of their own (RFC 9260 section 8.5.1). Semantics follow Linux
//! `nf_conntrack_proto_sctp.c`, as observed from outside.

use super::record::Tail;
use super::settings::TrackSettings;
use super::stats::InvalidReason;
use super::tracked::Direction;
use crate::packet::Packet;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of the common header.
const HEADER: usize = 12;
/// Chunks looked at in one packet: more than fit a jumbo frame at four bytes each are not there.
const CHUNKS_MAX: usize = 4096;
/// The T bit: the tag is the sender's own.
const FLAG_T: u8 = 1;

/// State of an association, numbered as in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SctpState {
    /// No association yet.
    #[default]
    None = 0,
    /// INIT seen, or over.
    Closed = 1,
    /// INIT answered.
    CookieWait = 2,
    /// The cookie came back.
    CookieEchoed = 3,
    /// Up.
    Established = 4,
    /// SHUTDOWN from the side that opened it.
    ShutdownSent = 5,
    /// SHUTDOWN from the other side.
    ShutdownRecd = 6,
    /// SHUTDOWN acknowledged.
    ShutdownAckSent = 7,
    /// A path probed by HEARTBEAT.
    HeartbeatSent = 8,
}

/// Chunks that change the state, by the row of the table.
mod chunk {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const HEARTBEAT: u8 = 4;
    pub(super) const HEARTBEAT_ACK: u8 = 5;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
    pub(super) const ERROR: u8 = 9;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Next states by direction, chunk and state; 9 is INVALID. Columns: none, closed, cookie wait, cookie echoed,
/// established, shutdown sent, recd, ack sent, heartbeat sent.
const TABLE: [[(u8, [u8; 9]); 11]; 2] = [
    [
        (chunk::INIT, [1, 1, 2, 3, 4, 1, 1, 7, 2]),
        (chunk::INIT_ACK, [1, 1, 2, 3, 4, 5, 6, 7, 1]),
        (chunk::ABORT, [1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (chunk::SHUTDOWN, [1, 1, 2, 3, 5, 5, 6, 7, 1]),
        (chunk::SHUTDOWN_ACK, [7, 1, 2, 3, 4, 7, 7, 7, 7]),
        (chunk::ERROR, [1, 1, 2, 3, 4, 5, 6, 7, 1]),
        (chunk::COOKIE_ECHO, [1, 1, 3, 3, 4, 5, 6, 7, 1]),
        (chunk::COOKIE_ACK, [1, 1, 2, 4, 4, 5, 6, 7, 1]),
        (chunk::SHUTDOWN_COMPLETE, [1, 1, 2, 3, 4, 5, 6, 1, 1]),
        (chunk::HEARTBEAT, [8, 1, 2, 3, 4, 5, 6, 7, 8]),
        (chunk::HEARTBEAT_ACK, [1, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
    [
        (chunk::INIT, [9, 1, 2, 3, 4, 5, 6, 7, 9]),
        (chunk::INIT_ACK, [9, 2, 2, 3, 4, 5, 6, 7, 9]),
        (chunk::ABORT, [9, 1, 1, 1, 1, 1, 1, 1, 9]),
        (chunk::SHUTDOWN, [9, 1, 2, 3, 6, 5, 6, 7, 9]),
        (chunk::SHUTDOWN_ACK, [9, 1, 2, 3, 4, 7, 7, 7, 9]),
        (chunk::ERROR, [9, 1, 2, 1, 4, 5, 6, 7, 9]),
        (chunk::COOKIE_ECHO, [9, 1, 3, 3, 4, 5, 6, 7, 9]),
        (chunk::COOKIE_ACK, [9, 1, 2, 4, 4, 5, 6, 7, 9]),
        (chunk::SHUTDOWN_COMPLETE, [9, 1, 2, 3, 4, 5, 6, 1, 9]),
        (chunk::HEARTBEAT, [9, 1, 2, 3, 4, 5, 6, 7, 8]),
        (chunk::HEARTBEAT_ACK, [9, 1, 2, 3, 4, 5, 6, 7, 4]),
    ],
];

/// Everything tracked about an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct SctpFlow {
    pub(super) state: SctpState,
    /// Tags that packets of each direction must carry; 0 is not known.
    tags: [u32; 2],
    /// Whether an INIT of each direction has been seen and not been settled.
    inits: [bool; 2],
    /// A HEARTBEAT with a strange tag has passed, in this direction.
    strange: Option<Direction>,
}

/// What a packet does to its association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Accept {
        timeout_secs: u32,
        assured: bool,
    },
    /// Part of it, but nothing is concluded.
    Ignore,
    Invalid(InvalidReason),
}

/// One chunk: type, flags, and its bytes from the header on as far as they are there.
#[derive(Clone, Copy, Debug)]
struct Chunk<'a> {
    kind: u8,
    flags: u8,
    len: usize,
    bytes: &'a [u8],
}

impl Chunk<'_> {
    /// The initiate tag of an INIT or INIT ACK.
    fn init_tag(&self) -> Option<u32> {
        // The whole fixed part must be there, sixteen bytes behind the chunk header.
        let body: &[u8; 20] = self.bytes.first_chunk()?;
        Some(u32::from_be_bytes([body[4], body[5], body[6], body[7]]))
    }
}

/// A packet above IP, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    tag: u32,
    chunks: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads the common header; `None` if it is cut off.
    pub(super) fn read(bytes: &'a [u8], packet: &Packet) -> Option<Self> {
        let end = packet.l3_end().min(bytes.len());
        let l4 = bytes.get(usize::from(packet.l4_offset)..end)?;
        let header: &[u8; HEADER] = l4.first_chunk()?;
        let tag = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        Some(Self { tag, chunks: &l4[HEADER..] })
    }

    /// Its chunks, up to the first whose header is cut off.
    fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> {
        let mut rest = self.chunks;
        std::iter::from_fn(move || {
            let &[kind, flags, l0, l1] = rest.first_chunk()?;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let chunk = Chunk { kind, flags, len, bytes: rest };
            // A chunk without length would be read for ever; the layout check has refused it by then.
            rest = rest.get(((len + 3) & !3).max(4)..).unwrap_or_default();
            Some(chunk)
        })
        .take(CHUNKS_MAX)
    }

    /// Whether chunks that must stand alone or first do so, and all have a length.
    fn is_well_laid_out(&self) -> bool {
        let mut alone = false;
        let mut count = 0;
        for chunk in self.chunks() {
            alone |= matches!(chunk.kind, chunk::INIT | chunk::INIT_ACK | chunk::SHUTDOWN_COMPLETE);
            let first_only = alone || matches!(chunk.kind, chunk::COOKIE_ACK | chunk::COOKIE_ECHO);
            if first_only && count != 0 || chunk.len == 0 {
                return false;
            }
            count += 1;
        }
        count != 0
    }

    fn has(&self, kinds: &[u8]) -> bool {
        self.chunks().any(|chunk| kinds.contains(&chunk.kind))
    }
}

impl SctpState {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Closed,
            2 => Self::CookieWait,
            3 => Self::CookieEchoed,
            4 => Self::Established,
            5 => Self::ShutdownSent,
            6 => Self::ShutdownRecd,
            7 => Self::ShutdownAckSent,
            8 => Self::HeartbeatSent,
            _ => Self::None,
        }
    }

    /// The name `conntrack -L` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownRecd => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    const fn timeout_secs(self, settings: &TrackSettings) -> u32 {
        match self {
            Self::None | Self::Closed => settings.sctp_timeout_closed,
            Self::CookieWait => settings.sctp_timeout_cookie_wait,
            Self::CookieEchoed => settings.sctp_timeout_cookie_echoed,
            Self::Established => settings.sctp_timeout_established,
            Self::ShutdownSent => settings.sctp_timeout_shutdown_sent,
            Self::ShutdownRecd => settings.sctp_timeout_shutdown_recd,
            Self::ShutdownAckSent => settings.sctp_timeout_shutdown_ack_sent,
            Self::HeartbeatSent => settings.sctp_timeout_heartbeat_sent,
        }
    }

    /// The state after a chunk; `None` is INVALID. Chunks that are not in the table change nothing.
    fn after(self, direction: Direction, kind: u8) -> Option<Self> {
        let rows = &TABLE[direction.index()];
        match rows.iter().find(|(row, _)| *row == kind) {
            None => Some(self),
            Some((_, next)) => match next[self as usize] {
                9 => None,
                state => Some(Self::from_bits(state)),
            },
        }
    }
}

impl SctpFlow {
    pub(super) fn load(tail: &Tail) -> Self {
        let [state, inits, strange, _] = tail.bits.load(Relaxed).to_le_bytes();
        Self {
            state: SctpState::from_bits(state),
            tags: std::array::from_fn(|side| tail.sides[side].end.load(Relaxed)),
            inits: [inits & 1 != 0, inits & 2 != 0],
            strange: match strange {
                1 => Some(Direction::Orig),
                2 => Some(Direction::Reply),
                _ => None,
            },
        }
    }

    pub(super) fn store(&self, tail: &Tail) {
        let Self { state, tags, inits, strange } = self;
        for (side, tag) in tail.sides.iter().zip(tags) {
            side.end.store(*tag, Relaxed);
        }
        let inits = u8::from(inits[0]) | u8::from(inits[1]) << 1;
        let strange = strange.map_or(0, |direction| direction as u8 + 1);
        tail.bits.store(u32::from_le_bytes([*state as u8, inits, strange, 0]), Relaxed);
    }

    /// State of a record's association.
    pub(super) fn state_of(tail: &Tail) -> SctpState {
        Self::load(tail).state
    }
}

/// The association that a packet of no known one starts, and its timeout in seconds.
pub(super) fn open(
    message: &Message<'_>,
    settings: &TrackSettings,
) -> Result<(SctpFlow, u32), InvalidReason> {
    if !message.is_well_laid_out() {
        return Err(InvalidReason::BadChunk);
    }
    // RFC 9260 section 8.4: these answer something, and start nothing.
    if message.has(&[chunk::ABORT, chunk::SHUTDOWN_COMPLETE, chunk::COOKIE_ACK]) {
        return Err(InvalidReason::SctpNoStart);
    }
    let mut flow = SctpFlow::default();
    for chunk in message.chunks() {
        match SctpState::None.after(Direction::Orig, chunk.kind) {
            None | Some(SctpState::None) => return Err(InvalidReason::SctpNoStart),
            Some(_) => {}
        }
        match chunk.kind {
            chunk::INIT => {
                if message.tag != 0 {
                    return Err(InvalidReason::SctpTag);
                }
                flow.tags[1] = chunk.init_tag().ok_or(InvalidReason::BadChunk)?;
            }
            chunk::HEARTBEAT => flow.tags[0] = message.tag,
            chunk::HEARTBEAT_ACK => {}
            // One that is answered by SHUTDOWN COMPLETE or ABORT, with the tag of this one.
            _ => flow.tags[1] = message.tag,
        }
    }
    match judge(&mut flow, message, Direction::Orig, false, settings) {
        Step::Accept { timeout_secs, .. } => Ok((flow, timeout_secs)),
        Step::Ignore => Ok((flow, flow.state.timeout_secs(settings))),
        Step::Invalid(reason) => Err(reason),
    }
}

/// Judges a packet of a known association and brings it up to date.
pub(super) fn advance(
    flow: &mut SctpFlow,
    message: &Message<'_>,
    direction: Direction,
    settings: &TrackSettings,
) -> Step {
    if !message.is_well_laid_out() {
        return Step::Invalid(InvalidReason::BadChunk);
    }
    judge(flow, message, direction, true, settings)
}

fn judge(
    flow: &mut SctpFlow,
    message: &Message<'_>,
    direction: Direction,
    is_known: bool,
    settings: &TrackSettings,
) -> Step {
    const TAGGED_OTHERWISE: [u8; 7] = [
        chunk::INIT,
        chunk::SHUTDOWN_COMPLETE,
        chunk::COOKIE_ECHO,
        chunk::ABORT,
        chunk::SHUTDOWN_ACK,
        chunk::HEARTBEAT,
        chunk::HEARTBEAT_ACK,
    ];
    if !message.has(&TAGGED_OTHERWISE) && message.tag != flow.tags[direction.index()] {
        return Step::Invalid(InvalidReason::SctpTag);
    }
    let mut next = SctpState::None;
    let (mut ignore, mut assured) = (false, false);
    for chunk in message.chunks() {
        match tag_fits(flow, message, chunk, direction, &mut ignore) {
            Tag::Fits => {}
            Tag::Passes => continue,
            Tag::Wrong => return Step::Invalid(InvalidReason::SctpTag),
        }
        let old = flow.state;
        let Some(state) = old.after(direction, chunk.kind) else {
            return Step::Invalid(InvalidReason::SctpState);
        };
        next = state;
        if let Err(reason) = note_init(flow, chunk, direction) {
            return Step::Invalid(reason);
        }
        // An INIT sent again does not keep its entry alive.
        ignore |=
            chunk.kind == chunk::INIT && is_known && (old, next) == (SctpState::Closed, SctpState::Closed);
        flow.state = next;
        assured |= next == SctpState::Established && old != next;
    }
    if ignore {
        return Step::Ignore;
    }
    Step::Accept { timeout_secs: next.timeout_secs(settings), assured }
}

enum Tag {
    Fits,
    /// Wrong, but let pass without effect.
    Passes,
    Wrong,
}

/// RFC 9260 section 8.5.1: exceptions in the rules for tags.
fn tag_fits(
    flow: &mut SctpFlow,
    message: &Message<'_>,
    chunk: Chunk<'_>,
    direction: Direction,
    ignore: &mut bool,
) -> Tag {
    let (own, other) = (direction.index(), direction.opposite().index());
    let fits = |is_right: bool| if is_right { Tag::Fits } else { Tag::Wrong };
    match chunk.kind {
        chunk::INIT => fits(message.tag == 0),
        chunk::ABORT | chunk::SHUTDOWN_COMPLETE => {
            let wanted = if chunk.flags & FLAG_T != 0 { other } else { own };
            fits(message.tag == flow.tags[wanted])
        }
        chunk::COOKIE_ECHO => fits(message.tag == flow.tags[own]),
        chunk::HEARTBEAT | chunk::HEARTBEAT_ACK if flow.tags[own] == 0 => {
            flow.tags[own] = message.tag;
            Tag::Fits
        }
        chunk::HEARTBEAT | chunk::HEARTBEAT_ACK if message.tag == flow.tags[own] => {
            flow.strange = None;
            Tag::Fits
        }
        // A strange tag may be that of an association whose start was missed: let one probe pass and see.
        chunk::HEARTBEAT if message.has(&[chunk::DATA]) || *ignore => Tag::Wrong,
        chunk::HEARTBEAT => {
            flow.strange = Some(direction);
            *ignore = true;
            Tag::Passes
        }
        chunk::HEARTBEAT_ACK => {
            let answers = flow.strange.is_some_and(|strange| strange != direction);
            if message.has(&[chunk::DATA]) || *ignore || !answers {
                return Tag::Wrong;
            }
            flow.strange = None;
            flow.tags[own] = message.tag;
            flow.tags[other] = 0;
            Tag::Fits
        }
        _ => Tag::Fits,
    }
}

/// Takes down the tag that INIT and INIT ACK announce, and settles collisions of the two sides' INITs.
fn note_init(flow: &mut SctpFlow, chunk: Chunk<'_>, direction: Direction) -> Result<(), InvalidReason> {
    let (own, other) = (direction.index(), direction.opposite().index());
    match chunk.kind {
        chunk::INIT => {
            let tag = chunk.init_tag().ok_or(InvalidReason::BadChunk)?;
            if flow.inits[own] && flow.inits[other] {
                flow.inits[other] = false;
            }
            flow.inits[own] = true;
            flow.tags[other] = tag;
        }
        chunk::INIT_ACK => {
            let tag = chunk.init_tag().ok_or(InvalidReason::BadChunk)?;
            let known = flow.tags[other];
            if !flow.inits[other] && known != 0 && known != tag {
                return Err(InvalidReason::SctpTag);
            }
            flow.tags[other] = tag;
        }
        chunk::COOKIE_ACK => flow.inits = [false; 2],
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(bytes: &[u8]) -> Message<'_> {
        Message { tag: 7, chunks: bytes }
    }

    #[test]
    fn chunks_that_must_be_alone_or_first_are() {
        let plain = |kind: u8| [kind, 0, 0, 4];
        for (kinds, good) in [
            (&[1][..], true),
            (&[1, 0], false),
            (&[0, 1], false),
            (&[10, 0], true),
            (&[0, 10], false),
            (&[11, 3], true),
            (&[3, 11], false),
            (&[14], true),
            (&[14, 0], false),
            (&[], false),
        ] {
            let bytes: Vec<u8> = kinds.iter().flat_map(|kind| plain(*kind)).collect();
            assert_eq!(message(&bytes).is_well_laid_out(), good, "{kinds:?}");
        }
        assert!(!message(&[0, 0, 0, 0]).is_well_laid_out(), "no length");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), tag: u32, reply: bool) {
            let settings = TrackSettings::default();
            let message = Message { tag, chunks: &bytes };
            let _ = open(&message, &settings);
            let mut flow = SctpFlow { tags: [tag, 1], state: SctpState::Established, ..SctpFlow::default() };
            let direction = if reply { Direction::Reply } else { Direction::Orig };
            advance(&mut flow, &message, direction, &settings);
            let tail = Tail::default();
            flow.store(&tail);
            prop_assert_eq!(SctpFlow::load(&tail), flow);
        }
    }
}
