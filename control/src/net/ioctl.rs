//! The system calls that no library we use wraps: interface flags and MTU, ethtool's offload switches, promiscuous
//! membership. Our own, because the `ethtool` crate reads features but cannot set them.

#![allow(unsafe_code, reason = "ioctl and setsockopt take pointers")]

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;

/// A socket to ask about interfaces through.
pub(super) fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is a C struct of integers and a union of integers and pointers: zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = byte.cast_signed();
    }
    Ok(request)
}

fn call(socket: &OwnedFd, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: `request` is a live `ifreq`, which is what every request number used here reads and writes; if it holds
    // a pointer, the caller has made it point to a live struct of the size the request takes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Interface flags (`IFF_UP`, `IFF_RUNNING`, ...).
pub(super) fn flags(socket: &OwnedFd, name: &str) -> io::Result<i32> {
    let mut request = request(name)?;
    call(socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the call has filled in this member of the union.
    Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// Sets interface flags.
pub(super) fn set_flags(socket: &OwnedFd, name: &str, flags: i32) -> io::Result<()> {
    let mut request = request(name)?;
    #[expect(clippy::cast_possible_truncation, reason = "the kernel's flags in this call are 16 bits")]
    let flags = flags as i16;
    request.ifr_ifru.ifru_flags = flags;
    call(socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Sets the MTU.
pub(super) fn set_mtu(socket: &OwnedFd, name: &str, mtu: u32) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = i32::try_from(mtu).map_err(io::Error::other)?;
    call(socket, libc::SIOCSIFMTU, &mut request)
}

/// MTU in bytes.
pub(super) fn mtu(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    let mut request = request(name)?;
    call(socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the call has filled in this member of the union.
    u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).map_err(io::Error::other)
}

/// The kernel's time zone in minutes west of Greenwich, which `-m time --kerneltz` goes by; 0 if it does not say.
#[must_use]
pub fn minutes_west() -> i32 {
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // `struct timezone`.
    let mut zone = [0 as libc::c_int; 2];
    // SAFETY: both point to live variables of the size the call fills in. The C library's function of this name leaves
    // the zone out.
    let result = unsafe {
        libc::syscall(libc::SYS_gettimeofday, std::ptr::from_mut(&mut time), std::ptr::from_mut(&mut zone))
    };
    if result == 0 { zone[0] } else { 0 }
}

/// `struct ethtool_value`: what the simple switches take.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Asks one of ethtool's simple switches.
pub(super) fn ethtool_get(socket: &OwnedFd, name: &str, command: u32) -> io::Result<u32> {
    ethtool(socket, name, EthtoolValue { command, data: 0 })
}

/// Sets one of ethtool's simple switches.
pub(super) fn ethtool_set(socket: &OwnedFd, name: &str, command: u32, data: u32) -> io::Result<()> {
    ethtool(socket, name, EthtoolValue { command, data }).map(drop)
}

const SIOCETHTOOL: libc::c_ulong = 0x8946;

fn ethtool(socket: &OwnedFd, name: &str, mut value: EthtoolValue) -> io::Result<u32> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    call(socket, SIOCETHTOOL, &mut request)?;
    Ok(value.data)
}

/// Any ethtool command whose struct is made of 32-bit words: `words` begins with its number, and is as long as the
/// command and the sizes in it say.
pub(super) fn ethtool_words(socket: &OwnedFd, name: &str, words: &mut [u32]) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    call(socket, SIOCETHTOOL, &mut request)
}

/// Name of a NIC's driver.
pub(super) fn driver(socket: &OwnedFd, name: &str) -> io::Result<String> {
    const ETHTOOL_GDRVINFO: u32 = 0x3;
    // `struct ethtool_drvinfo`: 196 bytes, the name the 32 after the command.
    let mut words = [0; 49];
    words[0] = ETHTOOL_GDRVINFO;
    ethtool_words(socket, name, &mut words)?;
    let bytes: Vec<u8> =
        words[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Channels {
    command: u32,
    max: [u32; 4],
    pub(super) rx: u32,
    pub(super) tx: u32,
    other: u32,
    pub(super) combined: u32,
}

/// How many queues a NIC uses.
pub(super) fn channels(socket: &OwnedFd, name: &str) -> io::Result<Channels> {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    call_channels(socket, name, Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() })
}

/// Sets how many queues a NIC uses.
pub(super) fn set_channels(socket: &OwnedFd, name: &str, channels: Channels) -> io::Result<()> {
    const ETHTOOL_SCHANNELS: u32 = 0x3d;
    call_channels(socket, name, Channels { command: ETHTOOL_SCHANNELS, ..channels }).map(drop)
}

fn call_channels(socket: &OwnedFd, name: &str, mut channels: Channels) -> io::Result<Channels> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut channels).cast();
    call(socket, SIOCETHTOOL, &mut request)?;
    Ok(channels)
}

/// Makes a NIC take every frame for as long as the returned socket lives.
pub(super) fn promiscuous(ifindex: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let membership = libc::packet_mreq {
        mr_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(io::Error::other)?,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of_val(&membership)).map_err(io::Error::other)?;
    // SAFETY: `membership` is live and `len` bytes long; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            std::ptr::from_ref(&membership).cast(),
            len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}
