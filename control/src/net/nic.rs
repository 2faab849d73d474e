//! One of our NICs: found, prepared, watched, and put back on drop.

use super::ioctl;
use super::journal::{self, Entry};
use super::napi::Napi;
use super::offloads::Offloads;
use crate::config::names::nearest;
use crate::placement::irqs::Affinities;
use rustix::fd::OwnedFd;
use std::io;
use std::path::{Path, PathBuf};

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
    pub(super) socket: OwnedFd,
    /// What to put back, and where that is written down.
    pub(super) before: Option<(Entry, PathBuf)>,
    _promiscuous: Option<OwnedFd>,
}

/// Bytes of Ethernet header and one VLAN tag on top of the MTU.
const LINK_OVERHEAD: u32 = 14 + 4;

impl Nic {
    /// Finds an interface.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn find(name: &str) -> Result<Self, NicError> {
        let system = |what| move |source: io::Error| NicError::System { name: name.to_owned(), what, source };
        let socket = ioctl::control_socket().map_err(system("opening a socket"))?;
        let ifindex = rustix::net::netdevice::name_to_index(&socket, name).map_err(|_| not_found(name))?;
        Ok(Self { name: name.to_owned(), ifindex, socket, before: None, _promiscuous: None })
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
        let mut warnings = Vec::new();
        let flags = ioctl::flags(&self.socket, &self.name).map_err(system("reading its flags"))?;
        let entry = journal::left_behind(journal_dir, &self.name, self.ifindex).unwrap_or_else(|| Entry {
            name: self.name.clone(),
            ifindex: self.ifindex,
            up: flags & libc::IFF_UP != 0,
            offloads: Offloads::read(&self.socket, &self.name),
            irqs,
            napi: None,
        });
        if let Err(error) = journal::write(journal_dir, &entry) {
            warnings.push(format!(
                "cannot write down the state of {name} in {}: {error}. If the daemon is killed, its offloads stay off",
                journal_dir.display()
            ));
        }
        self.before = Some((entry, journal_dir.to_owned()));
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
        let set = written.and_then(|()| Napi::DEFERRED.write(&self.name, self.ifindex));
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

    /// Puts back what was changed. Returns what could not be.
    pub(super) fn restore(&mut self) -> Vec<String> {
        let Some((entry, dir)) = self.before.take() else { return Vec::new() };
        let mut failed = entry.offloads.restore(&self.socket, &self.name);
        let stuck = entry.irqs.restore(Path::new("/"));
        failed.extend(stuck.iter().map(|irq| format!("interrupt {irq}")));
        if entry.napi.is_some_and(|napi| napi.write(&self.name, self.ifindex).is_err()) {
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
