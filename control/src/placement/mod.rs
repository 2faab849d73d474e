//! Which cores the workers run on, and where the NICs' interrupts go. Control thread, once at start.
//!
//! [`Machine`] is what there is, read from sysfs and procfs under any root; [`choose()`] decides about it and touches
//! nothing; [`irqs`] carries out what was decided about interrupts, and undoes it.

mod choose;
pub mod irqs;
mod machine;
#[cfg(test)]
mod tests;

pub use choose::{Placed, Placement, PlacementError, Warning, choose};
pub use machine::{Cpu, Irq, Machine, NicFacts};
