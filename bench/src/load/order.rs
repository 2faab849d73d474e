//! Which flow a packet belongs to: in turn, or at random from a fixed seed, so that a run can be repeated. The random
//! ones are worked out twice from the same seed by the same steps, in the kernel's generator and here for the paced one.

use super::FLOWS_MAX;
use crate::Error;

/// Where random orders begin.
pub(super) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Zipf's distribution is cut into this many parts of equal probability, a power of two.
const QUANTILES: u32 = 1 << 20;

/// What makes an index into them of a random word.
pub(super) const ZIPF_SHIFT: u32 = 32 - QUANTILES.trailing_zeros();

/// Largest exponent of Zipf's distribution: the first flow has nearly everything there.
const EXPONENT_MAX: f64 = 10.0;

/// Which flow comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// One after the other.
    InTurn,
    /// Any, all as likely.
    Uniform,
    /// Any, the `n`th `n^exponent` times less likely than the first. Right to a 2^-20th for each flow.
    Zipf {
        /// From 0 to 10; 1 is what much of the Internet looks like.
        exponent: f64,
    },
}

/// Draws flows as the kernel's generator does.
#[derive(Debug)]
pub(crate) struct Picker {
    flows: u32,
    order: Order,
    next: u32,
    random: Random,
    /// First flow and count.
    quantiles: Vec<(u32, u32)>,
}

/// Xorshift (Marsaglia 2003, 13-7-17), for its three shifts are all that the kernel's program needs too.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Order {
    /// What the kernel's generator calls it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::InTurn => 0,
            Self::Uniform => 1,
            Self::Zipf { .. } => 2,
        }
    }

    /// Flows of each part of Zipf's distribution, as the kernel's generator has them; none for the other orders.
    pub(super) fn quantiles(self, flows: u32) -> Result<Vec<[u8; 8]>, Error> {
        let mut quantiles = Vec::new();
        for (first, count) in self.parts(flows)? {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&first.to_ne_bytes());
            bytes[4..].copy_from_slice(&count.to_ne_bytes());
            quantiles.push(bytes);
        }
        Ok(quantiles)
    }

    /// The flows between each two quantiles; a flow that spans several is alone in each.
    fn parts(self, flows: u32) -> Result<Vec<(u32, u32)>, Error> {
        let Self::Zipf { exponent } = self else { return Ok(Vec::new()) };
        if !(0.0..=EXPONENT_MAX).contains(&exponent) {
            return Err(format!(
                "Zipf's distribution takes an exponent from 0 to {EXPONENT_MAX}, not {exponent}"
            )
            .into());
        }
        let weight = |flow: u32| (f64::from(flow) + 1.0).powf(-exponent);
        let total: f64 = (0..flows).map(weight).sum();
        let mut firsts = Vec::with_capacity(QUANTILES as usize + 1);
        let (mut flow, mut below) = (0, weight(0));
        for quantile in 0..QUANTILES {
            let wanted = total * f64::from(quantile) / f64::from(QUANTILES);
            while below <= wanted && flow + 1 < flows {
                flow += 1;
                below += weight(flow);
            }
            firsts.push(flow);
        }
        firsts.push(flows);
        Ok(firsts.windows(2).map(|pair| (pair[0], (pair[1] - pair[0]).max(1))).collect())
    }
}

impl Picker {
    /// # Errors
    /// If the order's numbers make no sense.
    pub(crate) fn new(order: Order, flows: u32) -> Result<Self, Error> {
        debug_assert!((1..=FLOWS_MAX).contains(&flows));
        Ok(Self { flows, order, next: 0, random: Random::default(), quantiles: order.parts(flows)? })
    }

    /// The next packet's flow, and whether it ends a round of flows in turn.
    pub(crate) fn next(&mut self) -> (u32, bool) {
        let Self { flows, order, next, random, quantiles } = self;
        match order {
            Order::InTurn => {
                let flow = *next;
                *next = (flow + 1) % *flows;
                (flow, *next == 0)
            }
            Order::Uniform => (random.below(*flows), false),
            Order::Zipf { .. } => {
                let (first, count) = quantiles[(random.word() >> ZIPF_SHIFT) as usize];
                (first + random.below(count), false)
            }
        }
    }
}

impl Default for Random {
    fn default() -> Self {
        Self(SEED)
    }
}

impl Random {
    pub(crate) const fn word(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    fn below(&mut self, count: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(count)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn shares(order: Order, flows: u32) -> Vec<f64> {
        const DRAWS: u32 = 1_000_000;
        let mut picker = Picker::new(order, flows).unwrap();
        let mut counts = vec![0_u64; flows as usize];
        for _ in 0..DRAWS {
            counts[picker.next().0 as usize] += 1;
        }
        counts.into_iter().map(|count| count as f64 / f64::from(DRAWS)).collect()
    }

    #[test]
    fn zipf_is_what_its_formula_says() {
        let shares = shares(Order::Zipf { exponent: 1.0 }, 1_000);
        let total: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        for (share, rank) in shares.iter().zip(1_u32..) {
            let wanted = 1.0 / f64::from(rank) / total;
            // Six standard deviations of a million draws.
            let slack = 6.0 * (wanted / 1e6).sqrt();
            assert!((share - wanted).abs() < slack, "flow of rank {rank}: {share}, should be {wanted}");
        }
    }

    #[test]
    fn every_flow_of_a_long_tail_can_come() {
        let parts = Order::Zipf { exponent: 1.2 }.parts(FLOWS_MAX).unwrap();
        assert_eq!(parts.len(), QUANTILES as usize);
        let mut next = 0;
        for (first, count) in parts {
            assert!(first <= next, "flows {next} to {first} are in no part");
            next = first + count;
        }
        assert_eq!(next, FLOWS_MAX);
    }

    #[test]
    fn an_exponent_out_of_range_is_refused() {
        for exponent in [-0.1, 10.1, f64::NAN] {
            let error = Order::Zipf { exponent }.parts(10).unwrap_err().to_string();
            assert!(error.contains("from 0 to 10"), "{error}");
        }
    }
}
