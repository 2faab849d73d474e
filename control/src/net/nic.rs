//! One of our NICs: found, prepared, watched, and put back on drop.

use super::held::Held;
use super::ioctl;
use super::journal::{self, Entry, Queues};
use super::napi::Napi;
use super::offloads::Offloads;
use super::rss::{self, KernelRss, Programmed, RssState, RssTable};
use crate::config::names::nearest;
use crate::placement::irqs::Affinities;
use dataplane::rss::{BUCKETS, Fields};
use dataplane::wire::LINK_OVERHEAD;
use rustix::fd::OwnedFd;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Why a NIC cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// There is no such interface here.
    #[error("there is no interface `{name}` in this network namespace{hint}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// The kernel refused something.
    #[error("{name}: {what}: {source}")]
    System {
        /// Interface name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Frames of this MTU do not fit.
    #[error(
        "{name} has an MTU of {mtu}, but a frame holds {room} bytes and neither kernel nor driver can spread a packet \
         over several: lower the MTU, or set umem.frame_size_bytes = 4096 if that is enough"
    )]
    Mtu {
        /// Interface name.
        name: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// What fits.
        room: u32,
    },
}

/// What a link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Whether frames can be sent.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
}

/// A NIC in our care. Dropping it puts back what was changed.
#[derive(Debug)]
pub struct Nic {
    /// Name.
    pub name: String,
    /// The kernel's number for it.
    pub ifindex: u32,
    pub(super) socket: Arc<OwnedFd>,
    rss: Programmed,
    /// What to put back, and where that is written down.
    pub(super) before: Option<(Entry, PathBuf)>,
    _promiscuous: Option<OwnedFd>,
    /// What is written at exit and only root may open.
    held: Held,
}

/// How often, and after what time each, queue counts are tried again at exit.
const RELEASE_LOOKS: u32 = 20;
const RELEASE_WAIT: Duration = Duration::from_millis(10);

impl Nic {
    /// Finds an interface.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn find(name: &str) -> Result<Self, NicError> {
        let system = |what| move |source: io::Error| NicError::System { name: name.to_owned(), what, source };
        let socket = ioctl::control_socket().map_err(system("opening a socket"))?;
        let ifindex = rustix::net::netdevice::name_to_index(&socket, name).map_err(|_| not_found(name))?;
        Ok(Self {
            name: name.to_owned(),
            ifindex,
            socket: Arc::new(socket),
            rss: Programmed::default(),
            before: None,
            _promiscuous: None,
            held: Held::default(),
        })
    }

    /// Whether the link is up, and its MTU.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn link(&self) -> io::Result<LinkState> {
        let flags = ioctl::flags(&self.socket, &self.name)?;
        let needed = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(LinkState { up: flags & needed == needed, mtu: ioctl::mtu(&self.socket, &self.name)? })
    }

    /// Largest frame it sends, in bytes from the Ethernet header on, one VLAN tag included.
    #[must_use]
    pub const fn frame_len_max(mtu: u32) -> u32 {
        mtu + LINK_OVERHEAD
    }

    /// Receive queues in use; every one of them needs a socket.
    #[must_use]
    pub fn queues(&self) -> u32 {
        match ioctl::channels(&self.socket, &self.name) {
            Ok(channels) => (channels.rx + channels.combined).max(1),
            // A driver that cannot be asked has one.
            Err(_) => 1,
        }
    }

    /// Writes down what the NIC is like before that is changed, and where `irqs` are handled. What was written down before
    /// stands. Returns a warning if it cannot be written.
    fn write_down(&mut self, journal_dir: &Path, irqs: Affinities) -> Option<String> {
        let known = self.before.take().map(|(entry, _)| entry);
        let known = known.or_else(|| journal::left_behind(journal_dir, &self.name, self.ifindex));
        let mut entry = known.unwrap_or_else(|| self.entry());
        for (number, cores) in irqs.0 {
            entry.irqs.0.entry(number).or_insert(cores);
        }
        let failed = journal::write(journal_dir, &entry).err();
        self.before = Some((entry, journal_dir.to_owned()));
        failed.map(|error| {
            format!(
                "cannot write down the state of {} in {}: {error}. If the daemon is killed, its offloads stay off and \
                 its RSS stays ours",
                self.name,
                journal_dir.display()
            )
        })
    }

    /// What the NIC is like now.
    fn entry(&self) -> Entry {
        let queues = ioctl::channels(&self.socket, &self.name).ok();
        Entry {
            name: self.name.clone(),
            ifindex: self.ifindex,
            up: ioctl::flags(&self.socket, &self.name).is_ok_and(|flags| flags & libc::IFF_UP != 0),
            offloads: Offloads::read(&self.socket, &self.name),
            irqs: Affinities::default(),
            napi: None,
            queues: queues.map(|now| Queues { rx: now.rx, tx: now.tx, combined: now.combined }),
            rss: rss::Before::read(&self.ethtool()),
        }
    }

    /// Has the NIC use so many receive queues. Put back on drop. Returns a warning.
    ///
    /// # Errors
    /// If the driver refuses, or has not so many.
    pub fn set_queues(&mut self, count: u32, journal_dir: &Path) -> io::Result<Option<String>> {
        let warning = self.write_down(journal_dir, Affinities::default());
        let mut channels = ioctl::channels(&self.socket, &self.name)?;
        if channels.combined > 0 {
            channels.combined = count.checked_sub(channels.rx).ok_or(io::ErrorKind::InvalidInput)?;
        } else {
            // A socket sends on the queue it receives on.
            (channels.rx, channels.tx) = (count, count);
        }
        ioctl::set_channels(&self.socket, &self.name, channels)?;
        Ok(warning)
    }

    /// Whether it has a table by which packets are spread.
    #[must_use]
    pub fn has_rss(&self) -> bool {
        rss::is_there(&self.ethtool())
    }

    pub(super) fn ethtool(&self) -> KernelRss<'_> {
        KernelRss { socket: &self.socket, name: &self.name }
    }

    /// Settles the key and the fields by which packets are spread: sets them if `program`, else looks at them. Put back on
    /// drop, of a NIC in our care.
    pub fn agree_on_rss(&mut self, program: bool) {
        self.rss = rss::agree(&self.ethtool(), program && self.before.is_some());
    }

    /// Has ports hashed only where all NICs do.
    pub fn narrow_rss(&mut self, common: Fields, program: bool) {
        let mut done = std::mem::take(&mut self.rss);
        rss::narrow(&self.ethtool(), &mut done, common, program);
        self.rss = done;
    }

    /// Points the NIC's table at the queue of each bucket. Whether it agrees now.
    pub fn point_rss(&mut self, queues: &[u32; BUCKETS], program: bool) -> bool {
        let mut done = std::mem::take(&mut self.rss);
        let agrees = rss::point(&self.ethtool(), &mut done, queues, program);
        self.rss = done;
        agrees
    }

    /// Its table, to be changed while packets come.
    ///
    /// # Errors
    /// Says why it cannot be.
    pub fn rss_table(&self) -> Result<RssTable, String> {
        if self.rss.is_movable && self.rss.state == RssState::Agrees {
            return Ok(RssTable { socket: Arc::clone(&self.socket), name: self.name.clone() });
        }
        Err(self.rss.refused.first().cloned().unwrap_or_else(|| "net.rss is \"leave\"".to_owned()))
    }

    /// How it spreads packets.
    #[must_use]
    pub const fn rss(&self) -> &Programmed {
        &self.rss
    }

    /// Takes the NIC into our care: offloads off, link up, every frame taken. What was changed is written to
    /// `journal_dir` first, and put back on drop; so is `irqs`, where its interrupts are handled now and perhaps not for
    /// long. Returns warnings.
    ///
    /// # Errors
    /// If the kernel refuses, e.g. for lack of CAP_NET_ADMIN.
    pub fn prepare(
        &mut self,
        journal_dir: &Path,
        offloads: bool,
        promiscuous: bool,
        irqs: Affinities,
    ) -> Result<Vec<String>, NicError> {
        let name = self.name.clone();
        let system = |what| {
            let name = name.clone();
            move |source: io::Error| NicError::System { name, what, source }
        };
        let flags = ioctl::flags(&self.socket, &self.name).map_err(system("reading its flags"))?;
        irqs.hold(Path::new("/"), &mut self.held);
        let mut warnings = Vec::from_iter(self.write_down(journal_dir, irqs));
        if offloads {
            let stubborn = Offloads::switch_off(&self.socket, &self.name);
            if !stubborn.is_empty() {
                warnings.push(format!(
                    "{name}: {} cannot be switched off: packets may arrive merged, untagged or without checksum",
                    stubborn.join(", ")
                ));
            }
        }
        if flags & libc::IFF_UP == 0 {
            ioctl::set_flags(&self.socket, &self.name, flags | libc::IFF_UP)
                .map_err(system("setting the link up"))?;
        }
        if promiscuous {
            self._promiscuous =
                Some(ioctl::promiscuous(self.ifindex).map_err(system("turning promiscuous mode on"))?);
        }
        warnings.extend(self.address_warning());
        Ok(warnings)
    }

    /// Puts the driver's interrupts off for as long as somebody polls, as busy polling needs it. For a NIC in our care.
    /// Returns a warning if that cannot be.
    pub fn defer_interrupts(&mut self) -> Option<String> {
        let refused = |what: &str, error: io::Error| {
            format!(
                "{what}: {error}. Busy polling and interrupts will get in each other's way: set napi_defer_hard_irqs to 2 \
                 and gro_flush_timeout to 200000 by hand"
            )
        };
        let (entry, dir) = self.before.as_mut()?;
        let now = match Napi::read(&self.name, self.ifindex) {
            Ok(now) => now,
            Err(error) => {
                return Some(refused(&format!("{}: cannot see when its interrupts come", self.name), error));
            }
        };
        // After a crash the NIC shows our own values.
        let _ = entry.napi.get_or_insert(now);
        let written = journal::write(dir, entry);
        Napi::hold(&self.name, self.ifindex, &mut self.held);
        let set = written.and_then(|()| Napi::DEFERRED.write(&self.name, self.ifindex, &self.held));
        set.err().map(|error| refused(&format!("{}: its interrupts cannot be put off", self.name), error))
    }

    /// A wire NIC with addresses would make the host's own stack answer, were it ever to see a frame.
    fn address_warning(&self) -> Option<String> {
        let count = self.addresses();
        (count > 0).then(|| {
            format!(
                "{} has {count} address(es): the host is not reachable through it while it is part of a wire",
                self.name
            )
        })
    }

    /// Its addresses, link-local ones aside.
    #[must_use]
    pub fn addresses(&self) -> usize {
        let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return 0 };
        let own = addresses.filter(|address| address.interface_name == self.name);
        own.filter(|address| address.address.as_ref().is_some_and(is_routable)).count()
    }

    /// The queue counts before us. A table of RSS may name any of them, so they come first.
    fn restore_queues(&self, before: Option<Queues>) -> Vec<String> {
        let (Some(Queues { rx, tx, combined }), Ok(mut now)) =
            (before, ioctl::channels(&self.socket, &self.name))
        else {
            return Vec::new();
        };
        if (now.rx, now.tx, now.combined) == (rx, tx, combined) {
            return Vec::new();
        }
        (now.rx, now.tx, now.combined) = (rx, tx, combined);
        // The kernel lets go of a closed socket's queue only in a work item of its own, and refuses until then.
        let mut set = ioctl::set_channels(&self.socket, &self.name, now);
        for _ in 0..RELEASE_LOOKS {
            if set.is_ok() {
                break;
            }
            std::thread::sleep(RELEASE_WAIT);
            set = ioctl::set_channels(&self.socket, &self.name, now);
        }
        set.err().map(|error| format!("queue count ({error})")).into_iter().collect()
    }

    /// Puts back what was changed. Returns what could not be.
    pub(super) fn restore(&mut self) -> Vec<String> {
        let Some((entry, dir)) = self.before.take() else { return Vec::new() };
        let mut failed = self.restore_queues(entry.queues);
        failed.extend(entry.rss.restore(&self.ethtool()));
        failed.extend(entry.offloads.restore(&self.socket, &self.name));
        let stuck = entry.irqs.restore(Path::new("/"), &self.held);
        failed.extend(stuck.iter().map(|irq| format!("interrupt {irq}")));
        if entry.napi.is_some_and(|napi| napi.write(&self.name, self.ifindex, &self.held).is_err()) {
            failed.push("when its interrupts come".to_owned());
        }
        if !entry.up
            && let Ok(flags) = ioctl::flags(&self.socket, &self.name)
        {
            let _ = ioctl::set_flags(&self.socket, &self.name, flags & !libc::IFF_UP);
        }
        journal::remove(&dir, &entry);
        failed
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        let failed = self.restore();
        if !failed.is_empty() {
            tracing::warn!("{}: could not put back {}", self.name, failed.join(", "));
        }
    }
}

/// Whether an address is more than the link-local one every IPv6 interface has.
fn is_routable(address: &nix::sys::socket::SockaddrStorage) -> bool {
    address.as_sockaddr_in().is_some()
        || address.as_sockaddr_in6().is_some_and(|v6| !v6.ip().is_unicast_link_local())
}

fn not_found(name: &str) -> NicError {
    let mut names: Vec<String> = nix::ifaddrs::getifaddrs()
        .map(|all| all.map(|address| address.interface_name).collect())
        .unwrap_or_default();
    names.sort();
    names.dedup();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!(": did you mean `{near}`? There are {}", names.join(", ")),
        None => format!(". There are {}", names.join(", ")),
    };
    NicError::NotFound { name: name.to_owned(), hint }
}

/// Whether frames of this MTU can be carried: in one chunk, or spread over several. Returns whether they must be spread.
///
/// # Errors
/// If they fit neither way.
pub fn frame_fits(name: &str, mtu: u32, frame_size: u32, spread: bool) -> Result<bool, NicError> {
    let room = frame_size - dataplane::xsk::HEADROOM;
    // Two tags may come in front of a full packet.
    let needed = mtu + LINK_OVERHEAD + 4;
    match (needed <= room, spread) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err(NicError::Mtu { name: name.to_owned(), mtu, room }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_fits_is_spread_or_is_refused() {
        assert!(!frame_fits("eth0", 1500, 2048, false).unwrap());
        assert!(frame_fits("eth0", 9000, 4096, true).unwrap());
        let error = frame_fits("eth0", 9000, 4096, false).unwrap_err().to_string();
        assert!(error.contains("eth0") && error.contains("9000") && error.contains("3840"), "{error}");
    }

    #[test]
    fn a_misspelled_interface_gets_a_hint() {
        let error = Nic::find("loo").unwrap_err().to_string();
        assert!(error.contains("no interface `loo`") && error.contains("lo"), "{error}");
    }
}
