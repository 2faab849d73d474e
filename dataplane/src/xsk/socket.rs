//! AF_XDP sockets: one per NIC queue, all on one UMEM, and the [`Device`] a worker makes of one.
//!
//! Set up on control before any worker runs; afterwards a device belongs to its worker. The first socket registers the
//! UMEM; the others share it and inherit its flags (`XDP_SHARED_UMEM`), each with its own four rings.

use super::ring::{Consumer, Producer, RingMemory};
use super::{Frame, FramePool, Umem, XskError};
use crate::device::{Device, DeviceCounters, FrameBurst};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// `XDP_MAX_TX_SKB_BUDGET` (Linux 6.17): descriptors one kick sends in copy mode; 32 without it.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// What we ask for: measured at 252 packets per kick against 32, within the noise for throughput, fewer system calls.
const TX_BUDGET: u32 = 256;

/// How frames get between NIC and UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy if every NIC's driver can, else copy.
    Auto,
    /// Zero-copy or fail.
    ZeroCopy,
    /// Copy.
    Copy,
}

/// What all sockets have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Zero-copy or copy.
    pub mode: BindMode,
    /// Descriptors in the rx and tx ring each; fill and completion ring have twice as many. A power of two.
    pub ring_size: u32,
    /// Whether packets may span chunks (`XDP_USE_SG`), for MTUs above a chunk.
    pub jumbo: bool,
    /// `SO_BUSY_POLL` in microseconds; 0 for none.
    pub busy_poll_us: u32,
}

/// A NIC queue to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Interface index.
    pub ifindex: u32,
    /// Queue number.
    pub queue: u32,
}

/// Opens a socket for every queue, all on `umem`, in the same mode, in order.
///
/// # Errors
/// The first failure; every socket opened before it is closed again.
pub fn open_all(
    umem: &Arc<Umem>,
    queues: &[QueueSpec],
    options: &SocketOptions,
) -> Result<Vec<XskDevice>, XskError> {
    let open = |mode| {
        let mut devices: Vec<XskDevice> = Vec::with_capacity(queues.len());
        for queue in queues {
            let first = devices.first().map(|device| device.fd.as_raw_fd());
            devices.push(XskDevice::open(Arc::clone(umem), *queue, options, mode, first)?);
        }
        Ok(devices)
    };
    match options.mode {
        BindMode::Copy => open(libc::XDP_COPY),
        BindMode::ZeroCopy => open(libc::XDP_ZEROCOPY),
        // Sharing one UMEM means sharing its mode: if one NIC cannot, none does.
        BindMode::Auto => open(0).or_else(|error: XskError| match error.errno() {
            Some(libc::EOPNOTSUPP | libc::EINVAL) => open(libc::XDP_COPY),
            _ => Err(error),
        }),
    }
}

/// One AF_XDP socket.
#[derive(Debug)]
pub struct XskDevice {
    // The rings point into `_maps`; fields drop in order, the descriptor last.
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    _maps: [Map; 4],
    umem: Arc<Umem>,
    queue: QueueSpec,
    /// Chunks kept on the fill ring.
    fill_target: u32,
    /// A jumbo packet whose last descriptor has not come yet, and its last segment.
    partial: Option<(Frame, u64)>,
    zero_copy: bool,
    /// Whether the driver works when we ask it to, not when it is interrupted.
    busy_polls: bool,
    link_down: bool,
    counters: DeviceCounters,
    fd: OwnedFd,
}

/// A mapping that is unmapped with its owner.
#[derive(Debug)]
struct Map {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping may be unmapped from any thread; nothing else is done with it.
unsafe impl Send for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `XskDevice::map_ring`, unmapped once; the ring ends that point into it are dropped before.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl XskDevice {
    fn open(
        umem: Arc<Umem>,
        queue: QueueSpec,
        options: &SocketOptions,
        mode: u16,
        share_with: Option<RawFd>,
    ) -> Result<Self, XskError> {
        let fail = |step| XskError::socket(queue.ifindex, queue.queue, step);
        // SAFETY: creates a descriptor, touches no memory.
        let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(fail("creating the socket"));
        }
        // SAFETY: a descriptor just made and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        if share_with.is_none() {
            register(&fd, &umem).map_err(|()| fail("registering frame memory"))?;
        }
        let ring_sizes = [
            (libc::XDP_UMEM_FILL_RING, options.ring_size * 2),
            (libc::XDP_UMEM_COMPLETION_RING, options.ring_size * 2),
            (libc::XDP_RX_RING, options.ring_size),
            (libc::XDP_TX_RING, options.ring_size),
        ];
        for (option, size) in ring_sizes {
            set_option(&fd, libc::SOL_XDP, option, &size).map_err(|()| fail("sizing its rings"))?;
        }
        let offsets: libc::xdp_mmap_offsets =
            get_option(&fd, libc::XDP_MMAP_OFFSETS).ok_or_else(|| fail("asking for ring offsets"))?;
        let map = |offset, size: u32, bytes: usize, page| {
            Map::ring(&fd, &offset, size as usize * bytes, page).map_err(|()| fail("mapping its rings"))
        };
        let (desc, addr) = (size_of::<libc::xdp_desc>(), size_of::<u64>());
        let size = options.ring_size;
        let rx = map(offsets.rx, size, desc, libc::XDP_PGOFF_RX_RING)?;
        let tx = map(offsets.tx, size, desc, libc::XDP_PGOFF_TX_RING)?;
        let fill = map(offsets.fr, size * 2, addr, pgoff(libc::XDP_UMEM_PGOFF_FILL_RING))?;
        let completion = map(offsets.cr, size * 2, addr, pgoff(libc::XDP_UMEM_PGOFF_COMPLETION_RING))?;
        // Not every kernel has it, and a kick is repeated anyway: its failure is no error.
        let _ = set_option(&fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET.min(size));
        busy_poll(&fd, options.busy_poll_us).map_err(|()| fail("turning busy polling on"))?;
        bind(&fd, queue, options, mode, share_with).map_err(|()| fail("binding to the queue"))?;
        let got: libc::xdp_options =
            get_option(&fd, libc::XDP_OPTIONS).ok_or_else(|| fail("asking for its mode"))?;
        Ok(Self {
            // SAFETY: each ring was mapped for this socket with this size and these offsets, `_maps` below keeps the
            // mappings alive, and each end is made once.
            rx: Consumer::new(unsafe { rx.memory(&offsets.rx, size) }),
            // SAFETY: as above.
            tx: Producer::new(unsafe { tx.memory(&offsets.tx, size) }),
            // SAFETY: as above.
            fill: Producer::new(unsafe { fill.memory(&offsets.fr, size * 2) }),
            // SAFETY: as above.
            completion: Consumer::new(unsafe { completion.memory(&offsets.cr, size * 2) }),
            _maps: [rx, tx, fill, completion],
            umem,
            queue,
            fill_target: size,
            partial: None,
            zero_copy: got.flags & libc::XDP_OPTIONS_ZEROCOPY != 0,
            busy_polls: options.busy_poll_us > 0,
            link_down: false,
            counters: DeviceCounters::default(),
            fd,
        })
    }

    /// Whether the NIC reads and writes the UMEM itself.
    #[must_use]
    pub const fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The queue it serves.
    #[must_use]
    pub const fn queue(&self) -> QueueSpec {
        self.queue
    }

    /// One received descriptor becomes a packet, or a part of one.
    #[inline]
    fn receive(&mut self, desc: libc::xdp_desc, burst: &mut FrameBurst) {
        if !self.umem.contains(desc.addr, desc.len) {
            self.counters.invalid_descs += 1;
            return;
        }
        let more = desc.options & libc::XDP_PKT_CONTD != 0;
        let whole = match self.partial.take() {
            None if !more => {
                let frame = self.umem.frame(desc.addr, desc.len);
                self.umem.prefetch(&frame);
                frame
            }
            None => {
                self.partial = Some((self.umem.frame(desc.addr, desc.len), desc.addr));
                return;
            }
            Some((mut frame, tail)) => {
                self.umem.append(&mut frame, tail, desc.addr, desc.len);
                if more {
                    self.partial = Some((frame, desc.addr));
                    return;
                }
                frame
            }
        };
        self.counters.frames_held -= u64::from(whole.segments());
        burst.push(whole);
    }

    /// Wakes the kernel to look at the tx ring.
    fn kick(&mut self) {
        self.counters.kicks += 1;
        // SAFETY: sends nothing: no buffer, no address; the kernel takes descriptors from the ring.
        let sent =
            unsafe { libc::sendto(self.fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        if sent >= 0 {
            self.link_down = false;
            return;
        }
        match errno() {
            libc::EAGAIN | libc::EBUSY | libc::ENOBUFS => self.counters.kicks_again += 1,
            // ENETDOWN: the link is down. ENXIO, EBADF: the NIC is gone; for traffic that is the same.
            _ => self.link_down = true,
        }
    }

    /// Tops up the fill ring.
    #[inline]
    fn refill(&mut self, pool: &mut FramePool) {
        let outstanding = self.fill.outstanding();
        let wanted = self.fill_target.saturating_sub(outstanding);
        let count = wanted.min(u32::try_from(pool.available()).unwrap_or(u32::MAX));
        // The ring may look full for a moment although chunks are missing: what does not fit waits in the pool.
        for _ in 0..count.min(self.fill.room(wanted)) {
            let Some(chunk) = pool.take() else { break };
            self.fill.push(self.umem.chunk_addr(chunk));
            self.counters.frames_held += 1;
        }
        self.fill.publish();
        if self.fill.needs_wakeup() && count > 0 {
            self.wake_driver();
        }
    }

    /// Wakes the driver's receiving side, or does its work with busy polling.
    fn wake_driver(&self) {
        // SAFETY: receives nothing: no buffer, no address; the call only wakes the driver.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
                ptr::null_mut(),
            );
        }
    }
}

impl Device for XskDevice {
    #[inline]
    fn rx_burst(&mut self, burst: &mut FrameBurst) -> usize {
        let before = burst.len();
        while !burst.is_full() {
            let Some(desc) = self.rx.pop() else { break };
            self.counters.rx_descs += 1;
            self.receive(desc, burst);
        }
        self.rx.release();
        // What this brings is there at the next poll.
        if self.busy_polls && burst.len() == before {
            self.wake_driver();
        }
        burst.len() - before
    }

    #[inline]
    fn tx_room(&self) -> usize {
        self.tx.room_now() as usize
    }

    #[inline]
    fn tx(&mut self, frame: Frame) -> Result<(), Frame> {
        let segments = frame.segments();
        if self.tx.room(segments) < segments {
            return Err(frame);
        }
        if segments == 1 {
            self.tx.push(libc::xdp_desc { addr: frame.addr, len: frame.head_len, options: 0 });
        } else {
            // No count of the `Arc` is touched: workers share its cache line.
            let Self { umem, tx, .. } = self;
            for (index, (addr, len)) in umem.segments(&frame).enumerate() {
                let last = index + 1 == segments as usize;
                let options = if last { 0 } else { libc::XDP_PKT_CONTD };
                tx.push(libc::xdp_desc { addr, len, options });
            }
        }
        self.counters.tx_descs += u64::from(segments);
        self.counters.frames_held += u64::from(segments);
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {
        self.tx.publish();
        if self.tx.needs_wakeup() && self.tx.outstanding() > 0 {
            self.kick();
        }
    }

    #[inline]
    fn replenish(&mut self, pool: &mut FramePool) {
        while let Some(addr) = self.completion.pop() {
            // Completions name the packet's first byte, not the chunk's.
            pool.put(self.umem.chunk(addr));
            self.counters.frames_held -= 1;
        }
        self.completion.release();
        self.refill(pool);
    }

    #[inline]
    fn rx_room(&self) -> usize {
        self.fill.outstanding() as usize
    }

    #[inline]
    fn is_tx_pending(&self) -> bool {
        !self.link_down && self.tx.outstanding() > 0 && self.tx.needs_wakeup()
    }

    #[inline]
    fn is_link_down(&self) -> bool {
        self.link_down
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn counters(&self) -> DeviceCounters {
        let kernel: libc::xdp_statistics =
            get_option(&self.fd, libc::XDP_STATISTICS).unwrap_or(libc::xdp_statistics {
                rx_dropped: 0,
                rx_invalid_descs: 0,
                tx_invalid_descs: 0,
                rx_ring_full: 0,
                rx_fill_ring_empty_descs: 0,
                tx_ring_empty_descs: 0,
            });
        DeviceCounters {
            // The kernel counts a full ring apart from what else it drops.
            rx_dropped: kernel.rx_dropped + kernel.rx_ring_full,
            rx_ring_full: kernel.rx_ring_full,
            rx_fill_ring_empty: kernel.rx_fill_ring_empty_descs,
            invalid_descs: self.counters.invalid_descs + kernel.rx_invalid_descs + kernel.tx_invalid_descs,
            ..self.counters
        }
    }
}

impl AsRawFd for XskDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[expect(clippy::cast_possible_wrap, reason = "page offsets are small numbers")]
const fn pgoff(offset: libc::c_ulonglong) -> libc::off_t {
    offset as libc::off_t
}

impl Map {
    /// Maps one ring of a socket.
    fn ring(
        fd: &OwnedFd,
        offset: &libc::xdp_ring_offset,
        bytes: usize,
        page: libc::off_t,
    ) -> Result<Self, ()> {
        let bytes = usize::try_from(offset.desc).map_err(drop)? + bytes;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, fd.as_raw_fd(), page) };
        if address == libc::MAP_FAILED {
            return Err(());
        }
        NonNull::new(address.cast()).map(|base| Self { base, bytes }).ok_or(())
    }

    /// The ring in this mapping.
    ///
    /// # Safety
    /// `offset` and `size` must be those the mapping was made with, and the result must not outlive it.
    unsafe fn memory<T>(&self, offset: &libc::xdp_ring_offset, size: u32) -> RingMemory<T> {
        let at = |offset: u64| {
            let offset = usize::try_from(offset).unwrap_or(0);
            debug_assert!(offset < self.bytes);
            // SAFETY: the kernel gave the offset for this mapping, so it lies within.
            unsafe { self.base.add(offset) }
        };
        // SAFETY: indices, flags and entries lie within the mapping and are aligned by the kernel's layout; the caller
        // answers for the rest.
        unsafe {
            RingMemory::new(
                at(offset.producer).cast(),
                at(offset.consumer).cast(),
                at(offset.flags).cast(),
                at(offset.desc).cast(),
                size,
            )
        }
    }
}

fn register(fd: &OwnedFd, umem: &Umem) -> Result<(), ()> {
    let registration = libc::xdp_umem_reg {
        addr: umem.base().as_ptr() as u64,
        len: umem.bytes() as u64,
        chunk_size: umem.frame_size(),
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

/// Prefers our polling to the driver's interrupts. Values as DPDK's driver uses them.
fn busy_poll(fd: &OwnedFd, microseconds: u32) -> Result<(), ()> {
    if microseconds == 0 {
        return Ok(());
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1_i32)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &microseconds)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &64_i32)
}

fn bind(
    fd: &OwnedFd,
    queue: QueueSpec,
    options: &SocketOptions,
    mode: u16,
    share_with: Option<RawFd>,
) -> Result<(), ()> {
    let jumbo = if options.jumbo { libc::XDP_USE_SG } else { 0 };
    let flags = match share_with {
        // A sharer inherits the others; naming them again is EINVAL.
        Some(_) => libc::XDP_SHARED_UMEM,
        None => mode | jumbo | libc::XDP_USE_NEED_WAKEUP,
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: u16::try_from(libc::AF_XDP).map_err(drop)?,
        sxdp_flags: flags,
        sxdp_ifindex: queue.ifindex,
        sxdp_queue_id: queue.queue,
        sxdp_shared_umem_fd: share_with.and_then(|fd| u32::try_from(fd).ok()).unwrap_or(0),
    };
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(drop)?;
    // SAFETY: `address` is a live sockaddr_xdp and `len` its size.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), len) };
    if bound == 0 { Ok(()) } else { Err(()) }
}

fn set_option<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> Result<(), ()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(drop)?;
    // SAFETY: `value` is live and `len` bytes long; the kernel copies it.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, ptr::from_ref(value).cast(), len) };
    if set == 0 { Ok(()) } else { Err(()) }
}

/// Reads an AF_XDP socket option that is made of integers only.
fn get_option<T>(fd: &OwnedFd, option: i32) -> Option<T> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).ok()?;
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `value` has room for `len` bytes and the kernel writes no more.
    let got = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, value.as_mut_ptr().cast(), &raw mut len)
    };
    // SAFETY: callers name `#[repr(C)]` structs of integers, for which zeroes and whatever the kernel wrote are valid.
    (got == 0).then(|| unsafe { value.assume_init() })
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

const _: () = assert!(offset_of!(libc::xdp_desc, options) == 12, "the kernel's descriptor layout");
