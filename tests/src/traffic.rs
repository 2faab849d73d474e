//! Traffic that checks itself: every byte sent is known to the receiver, and every answer is waited for.

use crate::lab::{Host, Netns};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Longest an answer may take that must come. Long, because a loaded machine is no bug.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait for what must not come.
pub const SILENCE: Duration = Duration::from_millis(400);

const CHUNK_BYTES: usize = 64 * 1024;

/// Pings `to`, `count` times with `payload` bytes, not fragmented; returns how many answers came.
///
/// # Panics
/// If `ping` cannot be run or says nothing that can be read.
#[must_use]
pub fn ping(from: &Netns, to: IpAddr, count: u32, payload: u32) -> u32 {
    let (count, payload, to) = (count.to_string(), payload.to_string(), to.to_string());
    let args = ["-n", "-q", "-M", "do", "-i", "0.01", "-W", "1", "-c", &count, "-s", &payload, &to];
    let exit = from.exec("ping", &args);
    let received = exit.stdout.split(", ").find_map(|part| part.strip_suffix(" received"));
    received
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("ping said: {}{}", exit.stdout, exit.stderr))
}

/// Listens for TCP connections inside `netns`.
///
/// # Panics
/// If the port is taken.
#[must_use]
pub fn listen(netns: &Netns, addr: SocketAddr) -> TcpListener {
    netns.within(|| TcpListener::bind(addr)).unwrap_or_else(|error| panic!("listen on {addr}: {error}"))
}

/// Connects from inside `netns`; gives up after `timeout`.
///
/// # Errors
/// What `connect` says: refused, unreachable, timed out.
pub fn connect(netns: &Netns, addr: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    netns.within(|| TcpStream::connect_timeout(&addr, timeout))
}

/// Opens one connection from `client` to `server` and sends `bytes` both ways at the same time. Both receivers compare
/// every byte with what was sent.
///
/// # Panics
/// If a byte is missing, wrong or too many, or the connection is not made.
pub fn tcp_both_ways(client: &Host, server: &Host, is_v6: bool, port: u16, bytes: u64) {
    let addr = SocketAddr::new(server.addr(is_v6), port);
    let listener = listen(&server.netns, addr);
    let connected =
        connect(&client.netns, addr, PATIENCE).unwrap_or_else(|error| panic!("connect to {addr}: {error}"));
    let (accepted, _) = listener.accept().expect("a connection was made, so one can be accepted");
    let reports = thread::scope(|scope| {
        let ends = [(&connected, 1, 2), (&accepted, 2, 1)];
        let threads: Vec<_> = ends
            .into_iter()
            .flat_map(|(socket, own, other)| {
                [
                    scope.spawn(move || send_stream(socket, own, bytes)),
                    scope.spawn(move || receive_stream(socket, other, bytes)),
                ]
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic on the way")).collect::<Vec<_>>()
    });
    for report in reports {
        report.unwrap_or_else(|error| panic!("transfer of {bytes} bytes over {addr}: {error}"));
    }
}

/// Sends `bytes` of the stream with number `seed`, then closes the sending side.
///
/// # Errors
/// What the socket says, or that nothing moved for [`PATIENCE`].
pub fn send_stream(mut socket: &TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut stream = Stream::new(seed);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let part = chunk.get_mut(..len).unwrap_or_default();
        stream.fill(part);
        socket.write_all(part)?;
        left -= u64::try_from(len).unwrap_or_default();
    }
    socket.shutdown(Shutdown::Write)
}

/// Receives until the other side closes and compares with the stream of number `seed`.
///
/// # Errors
/// `InvalidData` if it is not that stream of exactly `bytes` bytes; or what the socket says.
pub fn receive_stream(mut socket: &TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut chunk, mut expected) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let (mut got, mut sum_got, mut sum_expected) = (0_u64, Sum::default(), Sum::default());
    let mut stream = Stream::new(seed);
    loop {
        let len = socket.read(&mut chunk)?;
        if len == 0 {
            break;
        }
        let part = expected.get_mut(..len).unwrap_or_default();
        stream.fill(part);
        sum_expected.add(part);
        sum_got.add(chunk.get(..len).unwrap_or_default());
        got += u64::try_from(len).unwrap_or_default();
    }
    if got == bytes && sum_got == sum_expected {
        return Ok(());
    }
    let text = format!("{got} of {bytes} bytes came, checksum {sum_got:?}, expected {sum_expected:?}");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Opens a UDP socket inside `netns` that waits at most [`PATIENCE`] for a datagram.
///
/// # Panics
/// If the port is taken, and stays so: whoever had it before may be a moment late in giving it up.
#[must_use]
pub fn udp_socket(netns: &Netns, addr: SocketAddr) -> UdpSocket {
    let deadline = Instant::now() + PATIENCE;
    let socket = loop {
        match netns.within(|| UdpSocket::bind(addr)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            bound => break bound.unwrap_or_else(|error| panic!("UDP socket on {addr}: {error}")),
        }
    };
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero is taken");
    socket
}

/// Sends `count` datagrams of `bytes` from `client` to `server` and has each one sent back; returns how many came
/// home unchanged.
///
/// # Panics
/// If a socket cannot be opened.
#[must_use]
pub fn udp_echo(client: &Host, server: &Host, is_v6: bool, port: u16, count: u32, bytes: usize) -> u32 {
    let echo = udp_socket(&server.netns, SocketAddr::new(server.addr(is_v6), port));
    let socket = udp_socket(&client.netns, SocketAddr::new(client.addr(is_v6), 0));
    socket.connect(SocketAddr::new(server.addr(is_v6), port)).expect("the route is there");
    echo.set_read_timeout(Some(SILENCE)).expect("a timeout above zero is taken");
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout above zero is taken");
    let (mut payload, mut answer) = (vec![0; bytes], vec![0; bytes + 1]);
    let mut home = 0;
    for n in 0..count {
        Stream::new(u64::from(n)).fill(&mut payload);
        if socket.send(&payload).is_err() {
            continue;
        }
        let Ok((len, from)) = echo.recv_from(&mut answer) else { continue };
        if echo.send_to(answer.get(..len).unwrap_or_default(), from).is_err() {
            continue;
        }
        let Ok(len) = socket.recv(&mut answer) else { continue };
        home += u32::from(answer.get(..len) == Some(payload.as_slice()));
    }
    home
}

/// Bytes that both ends can make: xorshift64, never the same for two seeds.
struct Stream {
    state: u64,
    /// Bytes of the last word not given out yet: chunks may end anywhere.
    rest: [u8; 8],
    used: usize,
}

impl Stream {
    fn new(seed: u64) -> Self {
        let state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { state, rest: [0; 8], used: 8 }
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            if self.used == 8 {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.rest = self.state.to_le_bytes();
                self.used = 0;
            }
            *byte = self.rest.get(self.used).copied().unwrap_or_default();
            self.used += 1;
        }
    }
}

/// FNV-1a, 64 bits: every byte and its place count.
#[derive(Debug, PartialEq, Eq)]
struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
