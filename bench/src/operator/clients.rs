//! Who asks the daemon while it forwards, well-behaved or not. Each goes on until it is told to stop, and says what it did.

use crate::Error;
use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::lab::Netns;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often is looked whether it is time to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where records of flows go.
pub(super) const COLLECTOR: &str = "127.0.0.1:4739";

/// Longest silence of a daemon that answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A list of all flows, taken.
pub(super) struct Dump {
    /// From the request to the last byte.
    pub(super) time: Duration,
    /// Lines.
    pub(super) rows: u64,
    /// Bytes.
    pub(super) bytes: u64,
    /// What the daemon's own memory grew by, at most.
    pub(super) grown_kib: u64,
}

/// Asks for all flows and reads them, as fast as they come.
pub(super) fn dump(daemon: &Daemon) -> Result<Dump, Error> {
    let pid = daemon.process().pid();
    let before = anonymous_kib(pid)?;
    let start = Instant::now();
    let mut stream = ask(daemon, "/v1/flows")?;
    let (mut rows, mut bytes, mut most) = (0_u64, 0_u64, before);
    let mut looked = start;
    let mut piece = vec![0; 256 << 10];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        rows += piece[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
        if looked.elapsed() >= Duration::from_millis(50) {
            (most, looked) = (most.max(anonymous_kib(pid)?), Instant::now());
        }
    }
    let time = start.elapsed();
    Ok(Dump { time, rows, bytes, grown_kib: most.max(anonymous_kib(pid)?) - before })
}

/// A request sent; its answer is still to be read.
fn ask(daemon: &Daemon, target: &str) -> Result<UnixStream, Error> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: fwd\r\n\r\n").as_bytes())?;
    Ok(stream)
}

/// Memory of a process that is no file's: the flow table is not part of it.
fn anonymous_kib(pid: u32) -> Result<u64, Error> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| "this kernel does not tell a process's own memory".into())
}

/// Nothing at all.
pub(super) fn wait(stop: &AtomicBool) -> Result<String, Error> {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
    }
    Ok("nothing done".to_owned())
}

/// Lists of all flows.
pub(super) fn dumps(daemon: &Daemon, stop: &AtomicBool) -> Result<String, Error> {
    let (mut whole, mut bytes) = (0, 0_u64);
    let mut piece = vec![0; 256 << 10];
    while !stop.load(Ordering::Relaxed) {
        let mut stream = ask(daemon, "/v1/flows")?;
        loop {
            match stream.read(&mut piece)? {
                0 => {
                    whole += 1;
                    break;
                }
                count => bytes += count as u64,
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(format!("{whole} whole lists and a part of one, {} MB", bytes / 1_000_000))
}

/// Lists of who has the most.
pub(super) fn tops(daemon: &Daemon, stop: &AtomicBool) -> Result<String, Error> {
    let (mut count, mut walk_us) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut text = String::new();
        ask(daemon, "/v1/top?interval_ms=1000&n=100")?.read_to_string(&mut text)?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let answer: serde_json::Value = serde_json::from_str(body)?;
        walk_us = answer["walk_us"].as_u64().ok_or_else(|| format!("no top list: {text}"))?;
        count += 1;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) && !stop.load(Ordering::Relaxed) {
            thread::sleep(LOOK_EVERY);
        }
    }
    Ok(format!("{count} top lists, one a second, walk {} ms", walk_us / 1000))
}

/// Clients that ask for all flows, and read a byte now and then.
pub(super) fn slow(daemon: &Daemon, clients: usize, stop: &AtomicBool) -> Result<String, Error> {
    let mut streams = Vec::new();
    for _ in 0..clients {
        // Some may be turned away; that is an answer too.
        if let Ok(stream) = ask(daemon, "/v1/flows") {
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
    }
    let mut read = 0;
    while !stop.load(Ordering::Relaxed) {
        for stream in &mut streams {
            match stream.read(&mut [0]) {
                Ok(count) => read += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {}
            }
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(format!("{} clients connected, {read} bytes read by all of them", streams.len()))
}

/// Connections that are made and say nothing; those that are refused or closed are made anew.
pub(super) fn crowd(daemon: &Daemon, connections: usize, stop: &AtomicBool) -> Result<String, Error> {
    let (mut streams, mut made) = (Vec::new(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        if streams.len() >= connections {
            streams.clear();
        }
        match connect_now(daemon) {
            Ok(stream) => {
                made += 1;
                streams.push(stream);
            }
            // The backlog is full, or so are our own descriptors.
            Err(_) => {
                thread::sleep(LOOK_EVERY);
                streams.truncate(connections / 2);
            }
        }
    }
    Ok(format!("{made} connections made"))
}

/// Connects without waiting for room.
fn connect_now(daemon: &Daemon) -> Result<UnixStream, Error> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(daemon.socket())?)?;
    Ok(socket.into())
}

/// Requests that are larger than any may be, in their heads and in their bodies.
pub(super) fn oversized(daemon: &Daemon, stop: &AtomicBool) -> Result<String, Error> {
    let long = "x".repeat(1 << 20);
    let head = format!("GET /v1/stats?{long} HTTP/1.0\r\n\r\n");
    let body =
        format!("POST /v1/apply HTTP/1.0\r\nHost: fwd\r\nContent-Length: {}\r\n\r\n{long}", 1_u64 << 40);
    let mut refused = 0;
    while !stop.load(Ordering::Relaxed) {
        for request in [&head, &body] {
            let mut stream = UnixStream::connect(daemon.socket())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // It may be refused before all of it is sent.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = [0; 12];
            if stream.read_exact(&mut answer).is_ok() && &answer[9..] == b"200" {
                return Err("a request that is too large is answered".into());
            }
            refused += 1;
        }
    }
    Ok(format!("{refused} requests, all refused"))
}

/// A collector of flow records that is there until it is to be gone, in the gateway's namespace.
pub(super) struct Collector<'a> {
    netns: &'a Netns,
    socket: Mutex<Option<UdpSocket>>,
}

impl<'a> Collector<'a> {
    /// One that takes records in and throws them away.
    pub(super) fn new(netns: &'a Netns) -> Result<Self, Error> {
        Ok(Self { netns, socket: Mutex::new(Some(bind(netns)?)) })
    }

    /// Is gone.
    pub(super) fn gone(&self, stop: &AtomicBool) -> Result<String, Error> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        *socket = None;
        wait(stop)?;
        *socket = Some(bind(self.netns)?);
        Ok("nobody listened".to_owned())
    }
}

fn bind(netns: &Netns) -> Result<UdpSocket, Error> {
    Ok(netns.within(|| UdpSocket::bind(COLLECTOR))?)
}

/// Captures into a device that is always full.
pub(super) fn full_disk(daemon: &Daemon, stop: &AtomicBool) -> Result<String, Error> {
    let mut said = None;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let done = Command::new(binary("fwctl"))
            .arg("--socket")
            .arg(daemon.socket())
            .args(["capture", "--for", "5s", "-w", "/dev/full"])
            .stdin(Stdio::null())
            .output()?;
        if done.status.success() {
            return Err("a capture into a full disk says that it is there".into());
        }
        said.get_or_insert_with(|| String::from_utf8_lossy(&done.stderr).trim().to_owned());
        count += 1;
    }
    Ok(format!("{count} captures; fwctl says: {}", said.unwrap_or_default()))
}
