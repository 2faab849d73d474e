//! Whole frames in and out of an interface, by `AF_PACKET`: the only way to send a malformed one. The socket does not
//! see what it or anybody else on the host sends, only what arrives.
#![allow(
    unsafe_code,
    reason = "packet sockets have no safe binding: bind and two socket options go through libc"
)]

use super::netns::Netns;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Longest frame taken: a jumbo frame with tags fits.
const FRAME_MAX_BYTES: usize = 16 * 1024;

/// Room for a burst of frames while the test is busy elsewhere.
const RECEIVE_BUFFER_BYTES: libc::c_int = 8 << 20;

/// A raw socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    file: File,
}

impl PacketSocket {
    /// Opens one on `iface` of `netns`, for every EtherType.
    ///
    /// # Panics
    /// Without root, or if there is no such interface.
    #[must_use]
    pub fn open(netns: &Netns, iface: &str) -> Self {
        let index = netns.link(iface).get("ifindex").and_then(serde_json::Value::as_i64);
        let index = index.and_then(|index| i32::try_from(index).ok()).expect("an interface has an index");
        let fd = netns
            .within(|| open_bound(index))
            .unwrap_or_else(|error| panic!("packet socket on {iface} of {}: {error}", netns.name()));
        Self { file: File::from(fd) }
    }

    /// Sends one frame, from the destination MAC address on.
    ///
    /// # Panics
    /// If the kernel does not take it: shorter than an Ethernet header, longer than the MTU, link down.
    pub fn send(&self, frame: &[u8]) {
        (&self.file).write_all(frame).unwrap_or_else(|error| panic!("send {} bytes: {error}", frame.len()));
    }

    /// The next frame that `wanted` likes, or `None` when `timeout` has passed without one.
    ///
    /// # Panics
    /// If the socket fails.
    pub fn receive(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; FRAME_MAX_BYTES];
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            if !wait_readable(self.file.as_raw_fd(), left) {
                return None;
            }
            let len = match (&self.file).read(&mut buffer) {
                Ok(len) => len,
                // The interface went down meanwhile: said once, and it may come back.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => continue,
                Err(error) => panic!("receive: {error}"),
            };
            if let Some(frame) = buffer.get(..len).filter(|frame| wanted(frame)) {
                return Some(frame.to_vec());
            }
        }
    }
}

fn open_bound(index: i32) -> io::Result<OwnedFd> {
    let protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::c_int::from(protocol))
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above returned `fd` just now, so nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)?;
    // SAFETY: `sockaddr_ll` is plain integers, for which all-zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    // SAFETY: `address` lives across the call, and `len` is its size.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: `value` lives across the call, and `len` is its size.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn wait_readable(fd: RawFd, timeout: Duration) -> bool {
    let millis = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX).saturating_add(1);
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one `pollfd`, which lives across the call.
    unsafe { libc::poll(&raw mut poll, 1, millis) > 0 }
}
