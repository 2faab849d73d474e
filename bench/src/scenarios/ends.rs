//! Both ends of true TCP connections on a bed: the left host's answers, the right host's, and what arrived there.
//!
//! The two XDP programs cost every peer the same. They run wherever the last hop's packets are handled, which on veth is
//! mostly inside the forwarder's own sending.

use crate::bed::Bed;
use crate::handshake::{End, Ending, Responder, Segments, Storage};
use crate::load::{Load, Protocol};
use crate::peers::Running;
use crate::rig::settle;
use crate::{Error, iface_index};
use palisade_tests::lab::{HOST_IFACE, Netns};

/// Answers at both hosts as long as it lives. Connections stay open.
pub(super) struct Ends<'storage> {
    server: Responder<'storage>,
    client: Responder<'storage>,
}

impl<'storage> Ends<'storage> {
    /// Attaches them. `flows` says of how many of a load's flows first segments are told from repeated ones.
    ///
    /// # Errors
    /// If the kernel does not take the programs.
    pub(super) fn attach(
        bed: &Bed,
        [far, near]: &'storage mut [Storage; 2],
        flows: u32,
    ) -> Result<Self, Error> {
        let attach = |netns: &Netns, storage: &'storage mut Storage, end| {
            netns.within(|| Responder::attach(storage, iface_index(HOST_IFACE)?, end, flows))
        };
        let server = attach(&bed.lab.right.netns, far, End::Server(Ending::Open))?;
        let client = attach(&bed.lab.left.netns, near, End::Client)?;
        Ok(Self { server, client })
    }

    /// What has arrived at the server.
    ///
    /// # Errors
    /// If the kernel does not give the counters.
    pub(super) fn arrived(&self) -> Result<Segments, Error> {
        self.server.segments()
    }

    /// The same when nothing arrives any more.
    ///
    /// # Errors
    /// If something keeps arriving.
    pub(super) fn at_rest(&self) -> Result<Segments, Error> {
        // What others say now and then is no sign of unrest.
        settle(|| Ok(Segments { others: 0, ..self.server.segments()? }))
    }

    /// Forgets what has arrived, so that the next peer can be given the same flows.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn reset(&self) -> Result<(), Error> {
        self.server.reset()?;
        self.client.reset()
    }
}

/// First segments of new connections to the right host, each once if there are no more packets than flows.
pub(super) fn syns(bed: &Bed, running: &Running<'_>, first_flow: u32, flows: u32) -> Load {
    Load { protocol: Protocol::Syn, first_flow, ..bed.load_to(running, flows) }
}
