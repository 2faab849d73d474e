//! DPDK's testpmd on net_af_xdp: a second floor, the AF_XDP forwarder of others.
//!
//! * On memory without huge pages, which most machines have none of set aside: in copy mode they make no difference.
//!   `--in-memory` does not go with that, hence `--no-shconf`.
//! * Without a terminal it would end at the end of its input; told to print statistics every so often it does not read
//!   any, and ends by a signal. When it prints them first hangs on how long the machine has been up. So what shows that it
//!   forwards is what it says of that, which `stdbuf` has it say at once.
//! * Its default pool of buffers is for many cores and does not fit.
//! * What it keeps in files is in a folder that goes with it, and not in `/var/run/dpdk`.
//! * It leaves its NICs promiscuous.

use super::child::{Bare, Child};
use super::{Forwarder, Rules};
use crate::Error;
use crate::bed::Bed;
use crate::dpdk::RuntimeDir;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Process};
use rustix::process::Signal;

/// What it prints when it is about to forward: its sockets are bound, and what arrives waits for it.
const READY: &str = "  io packet forwarding packets/burst=32";

/// Its process; the folder goes after it.
struct Testpmd {
    process: Bare,
    _files: RuntimeDir,
}

/// Starts it.
///
/// # Errors
/// If it does not get ready.
pub(super) fn start<'bed>(bed: &'bed Bed) -> Result<Box<dyn Forwarder + 'bed>, Error> {
    let cores = format!("{},{}", bed.generator_core(), bed.worker_core());
    let main = format!("--main-lcore={}", bed.generator_core());
    let devices = [(0, GATEWAY_LEFT), (1, GATEWAY_RIGHT)]
        .map(|(number, iface)| format!("--vdev=net_af_xdp{number},iface={iface}"));
    let machine =
        ["-l", &cores, &main, "--no-pci", "--no-shconf", "--no-huge", "-m", "512", "--no-telemetry"];
    let forwarding = [
        "--auto-start",
        "--forward-mode=io",
        "--nb-cores=1",
        "--no-mlockall",
        "--stats-period=3600",
        "--total-num-mbufs=32768",
    ];
    let mut args = machine.to_vec();
    args.extend([devices[0].as_str(), &devices[1], "--"]);
    args.extend(forwarding);
    let files = RuntimeDir::new()?;
    let mut command = bed.lab.gateway.command("stdbuf");
    command.args(["--output=L", "dpdk-testpmd"]).args(args);
    files.give_to(&mut command);
    let mut child = Child::new("dpdk-testpmd", Process::spawn(command));
    child.wait_for_line(READY)?;
    Ok(Box::new(Testpmd { process: Bare(child, Signal::INT), _files: files }))
}

impl Forwarder for Testpmd {
    fn check(&mut self) -> Result<(), Error> {
        self.process.check()
    }

    fn swap_rules(&mut self, rules: &Rules) -> Result<(), Error> {
        self.process.swap_rules(rules)
    }

    fn flows(&self) -> Option<u64> {
        self.process.flows()
    }

    fn end(&mut self) -> Result<(), Error> {
        self.process.end()
    }
}
