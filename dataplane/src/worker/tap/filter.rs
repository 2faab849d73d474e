//! Filters of taps: programs in classic BPF, the form that pcap-filter expressions are compiled to. They come from whoever
//! may look at packets, so nothing is taken on trust: a [`Filter`] exists only of a program that ends, stays within its
//! memory and divides by no zero. Made by control, run by workers.
//!
//! The language is that of the Linux kernel (`net/core/filter.c`, `bpf_check_classic`) without its ancillary loads, which
//! ask for what a frame in user space does not have.

/// Most instructions of a filter, as in the kernel (`BPF_MAXINSNS`).
pub const FILTER_MAX: usize = 4096;

/// Words of memory a program has (`BPF_MEMWORDS`).
const MEMORY: usize = 16;

/// One instruction, as `struct sock_filter` has it and `tcpdump -ddd` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions a jump passes over if its condition holds.
    pub jump_true: u8,
    /// And if it does not.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// Why a program is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It has no instruction.
    #[error("a filter has one instruction at least")]
    Empty,
    /// It is too long.
    #[error("a filter has at most {FILTER_MAX} instructions")]
    TooLong,
    /// There is no such instruction.
    #[error(
        "instruction {0} has a code that classic BPF does not have, or that asks for what is not in a frame"
    )]
    Unknown(usize),
    /// A jump leads out of the program.
    #[error("instruction {0} jumps beyond the program's end")]
    Jump(usize),
    /// A word of memory that there is not.
    #[error("instruction {0} names a word of memory beyond the {MEMORY} that there are")]
    Memory(usize),
    /// A division by zero, or a shift by more than a word.
    #[error("instruction {0} divides by zero, or shifts by more bits than a word has")]
    Operand(usize),
    /// The last instruction is none that returns.
    #[error("the last instruction does not return")]
    NoReturn,
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug)]
enum From {
    Constant,
    Index,
}

/// How many bytes a load takes.
#[derive(Clone, Copy, Debug)]
enum Width {
    Word,
    Half,
    Byte,
}

#[derive(Clone, Copy, Debug)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// An instruction that was checked.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// `A = packet[k]`, or `packet[X + k]`.
    Load(Width, From, u32),
    /// `A = len`.
    LoadLength,
    /// `A = k`.
    LoadConstant(u32),
    /// `A = M[k]`.
    LoadMemory(u8),
    /// `X = k`.
    IndexConstant(u32),
    /// `X = len`.
    IndexLength,
    /// `X = M[k]`.
    IndexMemory(u8),
    /// `X = 4 * (packet[k] & 0xf)`: an IPv4 header's length.
    IndexHeaderLength(u32),
    /// `M[k] = A`.
    Store(u8),
    /// `M[k] = X`.
    StoreIndex(u8),
    Compute(Arithmetic, From, u32),
    Negate,
    Jump(u32),
    Branch(Condition, From, u32, u8, u8),
    Return(u32),
    ReturnAccumulator,
    ToIndex,
    ToAccumulator,
}

/// A program that was checked.
#[derive(Clone, Debug)]
pub struct Filter(Box<[Step]>);

impl Filter {
    /// Checks a program.
    ///
    /// # Errors
    /// Which instruction, counted from zero, is wrong and how.
    pub fn new(program: &[Instruction]) -> Result<Self, FilterError> {
        if program.is_empty() {
            return Err(FilterError::Empty);
        }
        if program.len() > FILTER_MAX {
            return Err(FilterError::TooLong);
        }
        let step = |(at, instruction)| read(at, instruction, program.len());
        let steps = program.iter().enumerate().map(step).collect::<Result<Box<[_]>, _>>()?;
        // Jumps lead forward only and not beyond the end, so whatever ends in a return ends.
        match steps.last() {
            Some(Step::Return(_) | Step::ReturnAccumulator) => Ok(Self(steps)),
            _ => Err(FilterError::NoReturn),
        }
    }

    /// How many instructions it has: most that are run for a packet, since jumps lead forward only.
    #[must_use]
    pub const fn step_count(&self) -> usize {
        self.0.len()
    }

    /// Whether a frame passes. `bytes` are its first ones, `len` is how many it has; a load beyond `bytes` ends in
    /// "no", as in the kernel.
    #[must_use]
    pub fn passes(&self, bytes: &[u8], len: u32) -> bool {
        self.run(bytes, len).is_some_and(|taken| taken > 0)
    }

    fn run(&self, bytes: &[u8], len: u32) -> Option<u32> {
        let (mut accumulator, mut index, mut memory) = (0_u32, 0_u32, [0_u32; MEMORY]);
        let mut at = 0_usize;
        loop {
            let step = *self.0.get(at)?;
            at += 1;
            match step {
                Step::Load(width, from, offset) => {
                    let offset = match from {
                        From::Constant => offset,
                        From::Index => index.checked_add(offset)?,
                    };
                    accumulator = load(bytes, offset, width)?;
                }
                Step::LoadLength => accumulator = len,
                Step::LoadConstant(value) => accumulator = value,
                Step::LoadMemory(word) => accumulator = memory[usize::from(word) % MEMORY],
                Step::IndexConstant(value) => index = value,
                Step::IndexLength => index = len,
                Step::IndexMemory(word) => index = memory[usize::from(word) % MEMORY],
                Step::IndexHeaderLength(offset) => index = 4 * (load(bytes, offset, Width::Byte)? & 0xf),
                Step::Store(word) => memory[usize::from(word) % MEMORY] = accumulator,
                Step::StoreIndex(word) => memory[usize::from(word) % MEMORY] = index,
                Step::Compute(what, from, value) => {
                    accumulator = compute(what, accumulator, operand(from, value, index))?;
                }
                Step::Negate => accumulator = accumulator.wrapping_neg(),
                Step::Jump(over) => at += over as usize,
                Step::Branch(condition, from, value, if_true, if_false) => {
                    let holds = holds(condition, accumulator, operand(from, value, index));
                    at += usize::from(if holds { if_true } else { if_false });
                }
                Step::Return(taken) => return Some(taken),
                Step::ReturnAccumulator => return Some(accumulator),
                Step::ToIndex => index = accumulator,
                Step::ToAccumulator => accumulator = index,
            }
        }
    }
}

const fn operand(from: From, value: u32, index: u32) -> u32 {
    match from {
        From::Constant => value,
        From::Index => index,
    }
}

fn load(bytes: &[u8], offset: u32, width: Width) -> Option<u32> {
    let rest = bytes.get(offset as usize..)?;
    Some(match width {
        Width::Word => u32::from_be_bytes(*rest.first_chunk()?),
        Width::Half => u32::from(u16::from_be_bytes(*rest.first_chunk()?)),
        Width::Byte => u32::from(*rest.first()?),
    })
}

/// `None` ends the program with "no": a division by an index of zero.
const fn compute(what: Arithmetic, a: u32, b: u32) -> Option<u32> {
    Some(match what {
        Arithmetic::Add => a.wrapping_add(b),
        Arithmetic::Sub => a.wrapping_sub(b),
        Arithmetic::Mul => a.wrapping_mul(b),
        Arithmetic::Div => return a.checked_div(b),
        Arithmetic::Mod => return a.checked_rem(b),
        Arithmetic::And => a & b,
        Arithmetic::Or => a | b,
        Arithmetic::Xor => a ^ b,
        // Linux: a shift by an index counts its lowest five bits.
        Arithmetic::ShiftLeft => a.wrapping_shl(b),
        Arithmetic::ShiftRight => a.wrapping_shr(b),
    })
}

const fn holds(condition: Condition, a: u32, b: u32) -> bool {
    match condition {
        Condition::Equal => a == b,
        Condition::Greater => a > b,
        Condition::GreaterOrEqual => a >= b,
        Condition::AnyBit => a & b != 0,
    }
}

/// Codes of `linux/bpf_common.h`: class in the lowest three bits, then what the class has.
mod code {
    pub(super) const LD: u16 = 0x00;
    pub(super) const LDX: u16 = 0x01;
    pub(super) const ST: u16 = 0x02;
    pub(super) const STX: u16 = 0x03;
    pub(super) const ALU: u16 = 0x04;
    pub(super) const JMP: u16 = 0x05;
    pub(super) const RET: u16 = 0x06;
    pub(super) const MISC: u16 = 0x07;
    pub(super) const WORD: u16 = 0x00;
    pub(super) const HALF: u16 = 0x08;
    pub(super) const BYTE: u16 = 0x10;
    pub(super) const IMM: u16 = 0x00;
    pub(super) const ABS: u16 = 0x20;
    pub(super) const IND: u16 = 0x40;
    pub(super) const MEM: u16 = 0x60;
    pub(super) const LEN: u16 = 0x80;
    pub(super) const MSH: u16 = 0xa0;
    pub(super) const BY_INDEX: u16 = 0x08;
    pub(super) const ACCUMULATOR: u16 = 0x10;
    pub(super) const TXA: u16 = 0x80;
}

/// Checks one instruction of a program of `len`.
fn read(at: usize, instruction: &Instruction, len: usize) -> Result<Step, FilterError> {
    let Instruction { code, jump_true, jump_false, operand } = *instruction;
    let unknown = Err(FilterError::Unknown(at));
    let word = || u8::try_from(operand).ok().filter(|word| usize::from(*word) < MEMORY);
    let word = || word().ok_or(FilterError::Memory(at));
    let target = |over: u32| {
        let to = (at + 1).checked_add(over as usize);
        if to.is_some_and(|to| to < len) { Ok(()) } else { Err(FilterError::Jump(at)) }
    };
    let width = match code & 0x18 {
        code::WORD => Some(Width::Word),
        code::HALF => Some(Width::Half),
        code::BYTE => Some(Width::Byte),
        _ => None,
    };
    let from = if code & code::BY_INDEX == 0 { From::Constant } else { From::Index };
    if code > 0xff {
        return unknown;
    }
    // Linux keeps offsets from here on for what is not in the packet (`SKF_AD_OFF`, `SKF_NET_OFF`, `SKF_LL_OFF`).
    let is_ancillary = operand >= 0x8000_0000;
    Ok(match (code & 0x07, code & 0xe0) {
        (code::LD, code::ABS) if !is_ancillary => match width {
            Some(width) => Step::Load(width, From::Constant, operand),
            None => return unknown,
        },
        (code::LD, code::IND) if !is_ancillary => match width {
            Some(width) => Step::Load(width, From::Index, operand),
            None => return unknown,
        },
        (code::LD, code::LEN) if code & 0x18 == 0 => Step::LoadLength,
        (code::LD, code::IMM) if code & 0x18 == 0 => Step::LoadConstant(operand),
        (code::LD, code::MEM) if code & 0x18 == 0 => Step::LoadMemory(word()?),
        (code::LDX, code::IMM) if code & 0x18 == 0 => Step::IndexConstant(operand),
        (code::LDX, code::LEN) if code & 0x18 == 0 => Step::IndexLength,
        (code::LDX, code::MEM) if code & 0x18 == 0 => Step::IndexMemory(word()?),
        (code::LDX, code::MSH) if code & 0x18 == code::BYTE && !is_ancillary => {
            Step::IndexHeaderLength(operand)
        }
        (code::ST, 0) if code & 0x18 == 0 => Step::Store(word()?),
        (code::STX, 0) if code & 0x18 == 0 => Step::StoreIndex(word()?),
        (code::ALU, _) => read_arithmetic(at, code, from, operand)?,
        (code::JMP, _) => read_jump(at, code, from, operand, (jump_true, jump_false), target)?,
        (code::RET, 0) if code & 0x18 == 0 => Step::Return(operand),
        (code::RET, 0) if code & 0x18 == code::ACCUMULATOR => Step::ReturnAccumulator,
        (code::MISC, 0) if code == code::MISC => Step::ToIndex,
        (code::MISC, code::TXA) if code == code::MISC | code::TXA => Step::ToAccumulator,
        _ => return unknown,
    })
}

fn read_arithmetic(at: usize, code: u16, from: From, operand: u32) -> Result<Step, FilterError> {
    let what = match code & 0xf0 {
        0x00 => Arithmetic::Add,
        0x10 => Arithmetic::Sub,
        0x20 => Arithmetic::Mul,
        0x30 => Arithmetic::Div,
        0x40 => Arithmetic::Or,
        0x50 => Arithmetic::And,
        0x60 => Arithmetic::ShiftLeft,
        0x70 => Arithmetic::ShiftRight,
        0x80 if matches!(from, From::Constant) => return Ok(Step::Negate),
        0x90 => Arithmetic::Mod,
        0xa0 => Arithmetic::Xor,
        _ => return Err(FilterError::Unknown(at)),
    };
    let is_bad = match (what, from) {
        (Arithmetic::Div | Arithmetic::Mod, From::Constant) => operand == 0,
        (Arithmetic::ShiftLeft | Arithmetic::ShiftRight, From::Constant) => operand >= u32::BITS,
        _ => false,
    };
    if is_bad { Err(FilterError::Operand(at)) } else { Ok(Step::Compute(what, from, operand)) }
}

fn read_jump(
    at: usize,
    code: u16,
    from: From,
    operand: u32,
    (if_true, if_false): (u8, u8),
    target: impl Fn(u32) -> Result<(), FilterError>,
) -> Result<Step, FilterError> {
    let condition = match code & 0xf0 {
        0x00 if matches!(from, From::Constant) => {
            target(operand)?;
            return Ok(Step::Jump(operand));
        }
        0x10 => Condition::Equal,
        0x20 => Condition::Greater,
        0x30 => Condition::GreaterOrEqual,
        0x40 => Condition::AnyBit,
        _ => return Err(FilterError::Unknown(at)),
    };
    target(u32::from(if_true))?;
    target(u32::from(if_false))?;
    Ok(Step::Branch(condition, from, operand, if_true, if_false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::packets::{tcp, udp};
    use proptest::prelude::*;

    fn program(lines: &[(u16, u8, u8, u32)]) -> Vec<Instruction> {
        let line = |&(code, jump_true, jump_false, operand): &(u16, u8, u8, u32)| Instruction {
            code,
            jump_true,
            jump_false,
            operand,
        };
        lines.iter().map(line).collect()
    }

    /// `tcpdump -ddd 'ip and tcp dst port 443'` on Ethernet.
    fn tcp_443() -> Vec<Instruction> {
        program(&[
            (40, 0, 0, 12),
            (21, 0, 8, 2048),
            (48, 0, 0, 23),
            (21, 0, 6, 6),
            (40, 0, 0, 20),
            (69, 4, 0, 8191),
            (177, 0, 0, 14),
            (72, 0, 0, 16),
            (21, 0, 1, 443),
            (6, 0, 0, 262_144),
            (6, 0, 0, 0),
        ])
    }

    #[test]
    fn a_compiled_expression_means_what_it_says() {
        let filter = Filter::new(&tcp_443()).unwrap();
        let passes = |frame: &[u8]| filter.passes(frame, u32::try_from(frame.len()).unwrap());
        assert!(passes(&tcp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1, 443).build()));
        assert!(!passes(&tcp([10, 0, 0, 1], [10, 0, 0, 2]).ports(443, 1).build()));
        assert!(!passes(&udp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1, 443).build()));
        assert!(!passes(&tcp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1, 443).build()[..30]), "cut off");
        assert!(!passes(&[]));
    }

    #[test]
    fn the_length_is_that_on_the_wire() {
        let filter = Filter::new(&program(&[(0x80, 0, 0, 0), (53, 0, 1, 1000), (6, 0, 0, 1), (6, 0, 0, 0)]));
        let filter = filter.unwrap();
        assert!(filter.passes(&[0; 60], 1000));
        assert!(!filter.passes(&[0; 60], 999));
    }

    #[test]
    fn arithmetic_memory_and_indices_work() {
        // X = 5; M[3] = X; A = 7; A = A * X; A = A - M... : 35 - 5 = 30; 30 % 4 = 2; returned.
        let filter = Filter::new(&program(&[
            (0x01, 0, 0, 5),
            (0x03, 0, 0, 3),
            (0x00, 0, 0, 7),
            (0x2c, 0, 0, 0),
            (0x61, 0, 0, 3),
            (0x1c, 0, 0, 0),
            (0x94, 0, 0, 4),
            (0x16, 0, 0, 0),
        ]));
        assert_eq!(filter.unwrap().run(&[], 0), Some(2));
        // A = 1 / X with X = 0: no.
        let filter = Filter::new(&program(&[(0x00, 0, 0, 1), (0x3c, 0, 0, 0), (0x06, 0, 0, 1)])).unwrap();
        assert!(!filter.passes(&[0; 20], 20));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_place() {
        let refused = |lines: &[(u16, u8, u8, u32)]| Filter::new(&program(lines)).err();
        assert_eq!(refused(&[]), Some(FilterError::Empty));
        assert_eq!(refused(&vec![(6, 0, 0, 0); FILTER_MAX + 1]), Some(FilterError::TooLong));
        assert_eq!(refused(&[(0x0fff, 0, 0, 0), (6, 0, 0, 0)]), Some(FilterError::Unknown(0)));
        assert_eq!(refused(&[(40, 0, 0, 0xffff_f000), (6, 0, 0, 0)]), Some(FilterError::Unknown(0)));
        assert_eq!(refused(&[(21, 1, 0, 0), (6, 0, 0, 0)]), Some(FilterError::Jump(0)));
        assert_eq!(refused(&[(5, 0, 0, u32::MAX), (6, 0, 0, 0)]), Some(FilterError::Jump(0)));
        assert_eq!(refused(&[(0x60, 0, 0, 16), (6, 0, 0, 0)]), Some(FilterError::Memory(0)));
        assert_eq!(refused(&[(0x34, 0, 0, 0), (6, 0, 0, 0)]), Some(FilterError::Operand(0)));
        assert_eq!(refused(&[(0x64, 0, 0, 32), (6, 0, 0, 0)]), Some(FilterError::Operand(0)));
        assert_eq!(refused(&[(0, 0, 0, 0)]), Some(FilterError::NoReturn));
    }

    proptest! {
        #[test]
        fn any_program_is_refused_or_ends(
            lines in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 1..40),
            narrow in any::<bool>(),
            frame in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut program = program(&lines);
            if narrow {
                // Mostly such as are valid.
                for instruction in &mut program {
                    instruction.code &= 0xff;
                    instruction.jump_true %= 4;
                    instruction.jump_false %= 4;
                    instruction.operand %= 64;
                }
            }
            program.push(Instruction { code: 6, jump_true: 0, jump_false: 0, operand: 1 });
            if let Ok(filter) = Filter::new(&program) {
                let _ = filter.passes(&frame, 100);
            }
        }
    }
}
