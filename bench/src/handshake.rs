//! Connections opened by true handshakes, millions of them: the generator sends SYNs ([`Protocol::Syn`]), and XDP
//! programs at both ends answer what arrives there, each segment with the next one.
//!
//! The server keeps no state for its answers: first numbers are the same for all connections. So a load of
//! [`Protocol::Tcp`] over the same flows is data of these very connections, and whoever tracks them in between has to
//! find it established. Segments must have no TCP options, and what rewrites addresses or ports in between makes flows
//! nobody here knows: those are answered, and counted as repeated.
//!
//! [`Protocol::Syn`]: crate::load::Protocol::Syn
//! [`Protocol::Tcp`]: crate::load::Protocol::Tcp

use crate::Error;
use crate::load::{DST_PORT, FLOWS_MAX, fill};
use crate::sink::{totals, zero_totals};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, OpenObject};
use std::mem::MaybeUninit;

crate::skeleton!("handshake");

/// Room for what libbpf opens; it has to live as long as the [`Responder`].
pub struct Storage(MaybeUninit<OpenObject>);

/// Answers segments on one interface as long as it lives.
pub struct Responder<'storage> {
    skel: skel::HandshakeSkel<'storage>,
    flows: u32,
    _link: Link,
}

/// Which end of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The generator's: answers SYN ACKs.
    Client,
    /// The far one: answers SYNs. What it then does says when a connection ends.
    Server(Ending),
}

/// What becomes of a connection that has been opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It stays open.
    #[default]
    Open,
    /// The server closes it at once, and the client does the same.
    Fin,
    /// The server resets it at once.
    Reset,
}

/// What has arrived at one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Flows of which a SYN (server) or a SYN ACK with the right number (client) arrived.
    pub opened: u64,
    /// Server: flows whose handshake is complete, by an ACK with the right numbers.
    pub completed: u64,
    /// Flows whose end arrived: the client's FIN (server), the last ACK or the RST (client).
    pub closed: u64,
    /// Segments as above that their flow had had before, or of a flow beyond those that are counted.
    pub repeated: u64,
    /// Server: data segments with the right numbers.
    pub data: u64,
    /// Segments of a flood. They are not answered.
    pub flood: u64,
    /// Segments of the load with numbers, flags or options that no step of it has.
    pub wrong: u64,
    /// Frames of anybody else. Those that are not TCP go to the host's own stack, so that neighbours find each other.
    pub others: u64,
}

/// Numbers of `struct counts`.
const TOTALS: usize = 8;

impl Default for Storage {
    fn default() -> Self {
        Self(MaybeUninit::uninit())
    }
}

impl<'storage> Responder<'storage> {
    /// Attaches to the interface `ifindex` of the calling thread's namespace, in native mode where the driver can.
    /// `flows` says of how many of the load's flows first segments are told from repeated ones.
    ///
    /// # Errors
    /// If there are too many flows, the kernel does not take the program, or another one is attached.
    pub fn attach(storage: &'storage mut Storage, ifindex: u32, end: End, flows: u32) -> Result<Self, Error> {
        if !(1..=FLOWS_MAX).contains(&flows) {
            return Err(format!("there can be 1 to {FLOWS_MAX} flows, not {flows}").into());
        }
        let mut open = skel::HandshakeSkelBuilder::default().open(&mut storage.0)?;
        let data = open.maps.rodata_data.as_deref_mut().ok_or("the handshake programs have no .rodata")?;
        data.port = DST_PORT;
        data.ending = match end {
            End::Client | End::Server(Ending::Open) => 0,
            End::Server(Ending::Fin) => 1,
            End::Server(Ending::Reset) => 2,
        };
        open.maps.steps.set_max_entries(flows)?;
        let skel = open.load()?;
        let program = if end == End::Client { &skel.progs.client } else { &skel.progs.server };
        let link = program.attach_xdp(i32::try_from(ifindex)?)?;
        Ok(Self { skel, flows, _link: link })
    }

    /// What has arrived so far.
    ///
    /// # Errors
    /// If the kernel does not give the counters.
    pub fn segments(&self) -> Result<Segments, Error> {
        let [opened, completed, closed, repeated, data, flood, wrong, others] =
            totals::<TOTALS>(&self.skel.maps.totals)?;
        Ok(Segments { opened, completed, closed, repeated, data, flood, wrong, others })
    }

    /// Forgets what has arrived, so that the same flows can be opened once more.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn reset(&self) -> Result<(), Error> {
        fill(&self.skel.maps.steps, &vec![[0; 4]; self.flows as usize])?;
        zero_totals::<TOTALS>(&self.skel.maps.totals)
    }
}
