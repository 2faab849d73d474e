//! What every measurement on the wire stands on: two hosts and a gateway in namespaces, one core for the generator, one
//! for whoever forwards.

use crate::load::{Amount, Load, Sent};
use crate::peers::Running;
use crate::{Error, affinity, iface_index};
use palisade_tests::lab::{HOST_IFACE, Lab};
use std::thread::{self, ScopedJoinHandle};

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

    /// UDP load of 64-byte frames.
    #[must_use]
    pub fn load(&self, flows: u32, rate_pps: Option<u64>) -> Load {
        let (left, right) = (&self.lab.left, &self.lab.right);
        Load { flows, rate_pps, ..Load::new(left.mac, right.mac, right.v4) }
    }

    /// The same as fast as it goes, sent to whom a peer needs it to be sent.
    #[must_use]
    pub fn load_to(&self, running: &Running<'_>, flows: u32) -> Load {
        Load { dst_mac: running.dst_mac(), ..self.load(flows, None) }
    }

    /// Runs a load while `meanwhile` does something else; returns what was sent and what that returned.
    ///
    /// # Errors
    /// Of either.
    pub fn run<T>(
        &self,
        load: &Load,
        amount: Amount,
        meanwhile: impl FnOnce(&ScopedJoinHandle<'_, Result<Sent, Error>>) -> Result<T, Error>,
    ) -> Result<(Sent, T), Error> {
        thread::scope(|scope| {
            let generator = scope.spawn(|| {
                self.lab.left.netns.enter();
                affinity::pin_to(self.generator_core)?;
                load.run(iface_index(HOST_IFACE)?, amount)
            });
            let result = meanwhile(&generator);
            let sent = generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((sent, result?))
        })
    }
}
