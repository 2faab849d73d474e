//! What every measurement on the wire stands on: two hosts and a gateway in namespaces, one core for the generator, one
//! for whoever forwards.

use crate::{Error, affinity};
use palisade_tests::lab::Lab;

/// Namespaces and cores.
pub struct Bed {
    /// The namespaces.
    pub lab: Lab,
    generator_core: usize,
    worker_core: usize,
}

impl Bed {
    /// Builds it on the machine's first and last core. The calling thread, and with it everything it starts that is not
    /// pinned otherwise, goes to the generator's core.
    ///
    /// # Errors
    /// If there is only one core, or it cannot be used.
    pub fn new(cores: usize) -> Result<Self, Error> {
        if cores < 2 {
            return Err("two cores are needed: one for the generator, one for the forwarder".into());
        }
        let (generator_core, worker_core) = (0, cores - 1);
        affinity::pin_to(generator_core)?;
        Ok(Self { lab: Lab::new(), generator_core, worker_core })
    }

    /// Core of the generator, and of everything that is not pinned otherwise.
    #[must_use]
    pub const fn generator_core(&self) -> usize {
        self.generator_core
    }

    /// Core of whoever forwards.
    #[must_use]
    pub const fn worker_core(&self) -> usize {
        self.worker_core
    }
}
