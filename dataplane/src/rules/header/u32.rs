//! `-m u32`: numbers taken from anywhere in the packet, masked, shifted and compared. The language:
//! `LOCATION=VALUES[&&LOCATION=VALUES...]`, where a location begins with an offset and each `@` adds what was read so far to
//! the start that later offsets count from.

/// Most numbers in a location, values of a test, and tests of a condition.
pub const LIST_MAX: usize = 10;

/// What is done with the number read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `&`.
    And(u32),
    /// `<<`. Shifts count modulo 32, as they do on the machines that the kernel runs on.
    Left(u32),
    /// `>>`.
    Right(u32),
    /// `@`: go on at this offset from there.
    At(u32),
}

/// One location and what may be found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Offset of the first number, from the start of the IP header.
    pub start: u32,
    /// What follows it.
    pub operations: Vec<Operation>,
    /// Ranges, both ends included.
    pub values: Vec<(u32, u32)>,
}

/// The condition: all tests hold. A number beyond the packet's end lets its test fail.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct U32 {
    /// The tests.
    pub tests: Vec<Test>,
    /// With `!`.
    pub invert: bool,
}

impl U32 {
    pub(super) fn holds(&self, ip: &[u8]) -> bool {
        self.tests.iter().all(|test| test.holds(ip)) != self.invert
    }
}

impl Test {
    fn holds(&self, ip: &[u8]) -> bool {
        self.number(ip)
            .is_some_and(|number| self.values.iter().any(|(low, high)| (*low..=*high).contains(&number)))
    }

    fn number(&self, ip: &[u8]) -> Option<u32> {
        let mut base = 0_u32;
        let mut number = read(ip, 0, self.start)?;
        for operation in &self.operations {
            number = match *operation {
                Operation::And(mask) => number & mask,
                Operation::Left(bits) => number.wrapping_shl(bits),
                Operation::Right(bits) => number.wrapping_shr(bits),
                Operation::At(offset) => {
                    base = base.checked_add(number)?;
                    read(ip, base, offset)?
                }
            };
        }
        Some(number)
    }
}

fn read(ip: &[u8], base: u32, offset: u32) -> Option<u32> {
    let at = usize::try_from(base).ok()?.checked_add(usize::try_from(offset).ok()?)?;
    Some(u32::from_be_bytes(*ip.get(at..)?.first_chunk()?))
}
