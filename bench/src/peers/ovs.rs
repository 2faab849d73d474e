//! Open vSwitch: its userspace datapath (`datapath_type=netdev`) on AF_XDP ports, with its own conntrack. Its two daemons
//! run in the gateway's namespace, with all of their files in a folder that goes with them; the system's own Open vSwitch,
//! if it has one, never hears of it.
//!
//! What a competent operator sets, and no more:
//!
//! * One polling thread, pinned to the worker's core by `pmd-cpu-mask`, one queue a port, XDP in native mode.
//! * The caches in front of the classifier as they come, EMC with one insertion in a hundred and SMC off.
//! * `ct-set-maxconns`, for it has room for three million connections otherwise; the rest of conntrack as it comes.
//! * Output by port number, so that the datapath's flows match no MAC addresses.
//!
//! Two traps: that locked memory cannot be had, and that libxdp finds no bpffs, is written to the log and means nothing.
//! Ports that could not be opened are no failure of `ovs-vsctl`; they have to be asked for their error.

use super::child::{Child, last_words};
use super::{Forwarder, Rules, Setup, changes};
use crate::Error;
use crate::bed::Bed;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Netns, Process};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest a daemon may take to answer, or to take new rules.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where Debian has the schema of the database.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The bridge.
const BRIDGE: &str = "br0";

/// Where the database is asked.
const DATABASE_SOCKET: &str = "db.sock";

/// Where the database takes commands.
const DATABASE: &str = "db.ctl";

/// Where the switch takes commands.
const SWITCH: &str = "switch.ctl";

/// Interfaces that it makes for itself.
const INTERFACES: [&str; 2] = [BRIDGE, "ovs-netdev"];

struct Ovs<'bed> {
    // The switch first: it wants its database to the end.
    switch: Child,
    database: Child,
    tools: Tools<'bed>,
}

/// Its commands, for daemons whose files are in this folder.
struct Tools<'bed> {
    netns: &'bed Netns,
    dir: TempDir,
}

/// Starts it.
///
/// # Errors
/// If a daemon does not get ready, a port cannot be opened or the rules are refused.
pub(super) fn start<'bed>(bed: &'bed Bed, setup: &Setup) -> Result<Box<dyn Forwarder + 'bed>, Error> {
    let netns = &bed.lab.gateway;
    let dir = TempDir::with_prefix("palisade-ovs-")?;
    let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let create = Command::new("ovsdb-tool").args(["create", &file("conf.db"), SCHEMA]).output()?;
    if !create.status.success() {
        return Err(format!("no database: {}", String::from_utf8_lossy(&create.stderr).trim()).into());
    }
    let spawn = |program: &'static str, args: &[&str]| {
        let mut command = netns.command(program);
        command.args(args).args(["--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, dir.path());
        }
        Child::new(program, Process::spawn(command))
    };
    let remote = format!("--remote=punix:{}", file(DATABASE_SOCKET));
    let control = |name| format!("--unixctl={}", file(name));
    let database = spawn("ovsdb-server", &[&file("conf.db"), &remote, &control(DATABASE)]);
    let connection = format!("unix:{}", file(DATABASE_SOCKET));
    let switch = spawn("ovs-vswitchd", &[&connection, &control(SWITCH)]);
    let mut ovs = Ovs { switch, database, tools: Tools { netns, dir } };
    ovs.wait_for(DATABASE_SOCKET)?;
    ovs.wait_for(SWITCH)?;
    ovs.configure(bed.worker_core(), setup)?;
    Ok(Box::new(ovs))
}

impl Ovs<'_> {
    /// Waits until a daemon has made its socket.
    fn wait_for(&mut self, socket: &str) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while !self.tools.path(socket).exists() {
            self.check()?;
            if Instant::now() > deadline {
                return Err(format!("it made no {socket} in {PATIENCE:?}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn configure(&self, worker_core: usize, setup: &Setup) -> Result<(), Error> {
        let tools = &self.tools;
        let mask = format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << worker_core);
        tools.vsctl(&["--no-wait", "init", "--", "set", "Open_vSwitch", ".", &mask])?;
        let bridge = ["set", "bridge", BRIDGE, "datapath_type=netdev", "fail-mode=secure"];
        tools.vsctl(&[&["add-br", BRIDGE, "--"], &bridge[..]].concat())?;
        tools.add_port(GATEWAY_LEFT, 1)?;
        tools.add_port(GATEWAY_RIGHT, 2)?;
        tools.appctl(SWITCH, &["dpctl/ct-set-maxconns", &setup.max_flows.to_string()])?;
        tools.replace_flows(&setup.rules)?;
        // Otherwise the main thread forwards, on the other core.
        let queues = tools.appctl(SWITCH, &["dpif-netdev/pmd-rxq-show"])?;
        if [GATEWAY_LEFT, GATEWAY_RIGHT].iter().all(|iface| queues.contains(&format!("port: {iface} "))) {
            return Ok(());
        }
        Err(format!("no polling thread has taken the ports: {}", queues.trim()).into())
    }
}

impl Tools<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn add_port(&self, iface: &str, number: u32) -> Result<(), Error> {
        let words = ["add-port", BRIDGE, iface, "--", "set", "interface", iface];
        let request = format!("ofport_request={number}");
        let settings = ["type=afxdp", "options:n_rxq=1", "options:xdp-mode=native", &request];
        self.vsctl(&[&words[..], &settings].concat())?;
        let answer = self.vsctl(&["get", "interface", iface, "ofport", "error"])?;
        let (port, error) = answer.trim().split_once('\n').unwrap_or((&answer, ""));
        if port == number.to_string() {
            return Ok(());
        }
        Err(format!("port {iface} cannot be opened: it has number {port}, and this is said of it: {error}")
            .into())
    }

    fn replace_flows(&self, rules: &Rules) -> Result<(), Error> {
        let file = self.path("flows");
        fs::write(&file, rules.openflow())?;
        let bridge = format!("unix:{}", self.path(&format!("{BRIDGE}.mgmt")).display());
        // One bundle: either all of it is in force or nothing.
        self.run("ovs-ofctl", &["--bundle", "replace-flows", &bridge, &file.to_string_lossy()]).map(drop)
    }

    fn vsctl(&self, args: &[&str]) -> Result<String, Error> {
        let database = format!("--db=unix:{}", self.path(DATABASE_SOCKET).display());
        let patience = format!("--timeout={}", PATIENCE.as_secs());
        self.run("ovs-vsctl", &[&[database.as_str(), &patience], args].concat())
    }

    fn appctl(&self, socket: &str, args: &[&str]) -> Result<String, Error> {
        let target = self.path(socket);
        self.run("ovs-appctl", &[&["-t", &target.to_string_lossy()], args].concat())
    }

    /// Ends a daemon by its own command.
    fn end(&self, daemon: &mut Child, socket: &str, args: &[&str]) -> Result<(), Error> {
        if daemon.is_over() {
            return Ok(());
        }
        daemon.check()?;
        let asked = self.appctl(socket, args);
        daemon.wait().and(asked.map(drop))
    }

    /// Removes an interface, if it is there.
    fn remove(&self, name: &str) -> Result<(), Error> {
        if self.netns.exec("ip", &["link", "show", "dev", name]).code != Some(0) {
            return Ok(());
        }
        changes::run(self.netns, &["ip", "link", "del", "dev", name]).map(drop)
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String, Error> {
        let exit = self.netns.spawn(program, args).try_wait(PATIENCE);
        match exit {
            Ok(exit) if exit.code == Some(0) => Ok(exit.stdout),
            Ok(exit) | Err(exit) => {
                Err(format!("{program} {}: {}", args.join(" "), last_words(&exit)).into())
            }
        }
    }
}

impl Forwarder for Ovs<'_> {
    fn check(&mut self) -> Result<(), Error> {
        self.switch.check()?;
        self.database.check()
    }

    fn swap_rules(&mut self, rules: &Rules) -> Result<(), Error> {
        self.tools.replace_flows(rules)
    }

    fn flows(&self) -> Option<u64> {
        self.tools.appctl(SWITCH, &["dpctl/ct-get-nconns"]).ok()?.trim().parse().ok()
    }

    fn end(&mut self) -> Result<(), Error> {
        let Self { switch, database, tools } = self;
        // Told to clean up, it takes its programs off the NICs; by a signal it would leave them.
        let switch = tools.end(switch, SWITCH, &["exit", "--cleanup"]);
        let database = tools.end(database, DATABASE, &["exit"]);
        // What is left by one that was killed.
        let interfaces = INTERFACES.iter().try_for_each(|name| tools.remove(name));
        switch.and(database).and(interfaces)
    }
}

impl Drop for Ovs<'_> {
    fn drop(&mut self) {
        // Has been called, unless the start failed, which is said already.
        let _ = self.end();
    }
}
