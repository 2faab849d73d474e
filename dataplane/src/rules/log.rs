//! What rules have written down about packets: LOG, NFLOG and TRACE. A rule says what, the worker takes the packet down, control
//! writes it out; nothing is formatted on the way of packets.

use super::Facts;
use super::interned::{Interned, Kept, Pool};
use super::model::{Hook, RuleRef};
use super::trace::Step;
use std::sync::Mutex;

/// What a LOG or NFLOG rule says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogSpec {
    /// `--log-prefix`, `--nflog-prefix`; may be empty.
    pub prefix: Box<str>,
    /// Where the packet is written.
    pub to: LogTo,
}

/// Where a packet is written, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTo {
    /// `-j LOG`: a line in the log.
    Line(LineStyle),
    /// `-j NFLOG`: a capture file.
    Capture {
        /// `--nflog-group`.
        group: u16,
        /// `--nflog-size`: bytes from the IP header on; `None` is all.
        size: Option<u32>,
    },
}

/// How `-j LOG` writes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct LineStyle {
    /// `--log-level`, syslog's: 0 is an emergency, 7 for debugging.
    pub level: u8,
    /// `--log-tcp-sequence`.
    pub tcp_sequence: bool,
    /// `--log-tcp-options`.
    pub tcp_options: bool,
    /// `--log-ip-options`.
    pub ip_options: bool,
    /// `--log-macdecode`.
    pub mac_decode: bool,
}

impl Kept for LogSpec {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<LogSpec> = Mutex::new(None);
        &POOL
    }
}

/// An order to write packets down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// What the rule says.
    pub spec: Interned<LogSpec>,
    /// Where on a packet's way it says so: whether the egress NIC is known.
    pub hook: Hook,
}

impl Log {
    /// An order that a rule gives, wherever it will stand.
    #[must_use]
    pub fn new(spec: LogSpec) -> Self {
        Self { spec: Interned::new(spec), hook: Hook::Forward }
    }
}

/// Takes packets down for the log.
pub trait Notes: std::fmt::Debug {
    /// A rule wants the packet written, with the mark it has by now.
    fn note(&self, facts: &Facts<'_>, log: Log, by: RuleRef, mark: u32);

    /// A traced packet makes a step, with the mark it has by now.
    fn trace(&self, facts: &Facts<'_>, step: Step, mark: u32);

    /// A packet that is followed makes a step.
    fn follow(&self, _step: Step) {}
}

/// Where nobody writes.
#[derive(Clone, Copy, Debug)]
pub struct NoNotes;

impl Notes for NoNotes {
    fn note(&self, _facts: &Facts<'_>, _log: Log, _by: RuleRef, _mark: u32) {}

    fn trace(&self, _facts: &Facts<'_>, _step: Step, _mark: u32) {}
}
