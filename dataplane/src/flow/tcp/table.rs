//! The state table: which state follows, by direction, class and state. Linux 6.18 `tcp_conntracks`; the cells are
//! facts about its behaviour, laid out to be read.

use super::TcpState;
use crate::flow::tracked::Direction;
use crate::wire::tcp::Class;

/// What the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This state is next, if the rest agrees.
    To(TcpState),
    /// Let it pass, conclude nothing.
    Ignore,
    /// No such packet in this state.
    Invalid,
}

const STATES: usize = 10;
const CLASSES: usize = 6;

const IV: Next = Next::Invalid;
const IG: Next = Next::Ignore;
const SS: Next = Next::To(TcpState::SynSent);
const SR: Next = Next::To(TcpState::SynRecv);
const ES: Next = Next::To(TcpState::Established);
const FW: Next = Next::To(TcpState::FinWait);
const CW: Next = Next::To(TcpState::CloseWait);
const LA: Next = Next::To(TcpState::LastAck);
const TW: Next = Next::To(TcpState::TimeWait);
const CL: Next = Next::To(TcpState::Close);
const S2: Next = Next::To(TcpState::SynSent2);

/// By direction, class and state. Columns are the states in the order of [`TcpState`].
#[rustfmt::skip]
const TABLE: [[[Next; STATES]; CLASSES]; 2] = [
    [ // Orig: from the side that sent the first packet.
        //          none SynS SynR Est  FinW CloW LasA TimW Clos SynS2
        /* SYN     */ [SS, SS, IG, IG, IG, IG, IG, SS, SS, S2],
        /* SYN+ACK */ [IV, IV, SR, IV, IV, IV, IV, IV, IV, SR],
        /* FIN     */ [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        /* ACK     */ [ES, IV, ES, ES, CW, CW, TW, TW, CL, IV],
        /* RST     */ [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* none    */ [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
    [ // Reply.
        /* SYN     */ [IV, S2, IV, IV, IV, IV, IV, SS, IV, S2],
        /* SYN+ACK */ [IV, SR, IG, IG, IG, IG, IG, IG, IG, SR],
        /* FIN     */ [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        /* ACK     */ [IV, IG, SR, ES, CW, CW, TW, TW, CL, IG],
        /* RST     */ [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* none    */ [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
];

/// What a segment of this class in this direction does to a connection in this state.
#[inline]
pub(super) const fn next(direction: Direction, class: Class, state: TcpState) -> Next {
    TABLE[direction as usize][class as usize][state as usize]
}
