//! The hosts, the gateway and the cables between them.

use super::netns::Netns;
use super::packet_socket::PacketSocket;
use super::process::run;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The only interface of each host.
pub const HOST_IFACE: &str = "eth0";
/// The gateway's left NIC.
pub const GATEWAY_LEFT: &str = "left";
/// The gateway's right NIC.
pub const GATEWAY_RIGHT: &str = "right";

/// Ethernet's payload size.
const MTU_ETHERNET: u32 = 1500;

/// Two hosts with a gateway between them. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The host on the left.
    pub left: Host,
    /// The host on the right.
    pub right: Host,
    /// The machine in the middle: its NICs are up and have no address.
    pub gateway: Netns,
}

/// An end host.
#[derive(Debug)]
pub struct Host {
    /// Where it lives.
    pub netns: Netns,
    /// Its IPv4 address, in a /24 with the other host.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, in a /64 with the other host.
    pub v6: Ipv6Addr,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// How a [`Lab`] is to be built.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    mtu: u32,
    queues: u32,
}

/// One cable: the host's end and the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Between left host and gateway.
    Left,
    /// Between gateway and right host.
    Right,
}

impl Lab {
    /// MTU 1500, one queue per NIC.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To choose otherwise.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder { mtu: MTU_ETHERNET, queues: 1 }
    }

    /// A socket that sends and receives whole frames on the left host's interface.
    #[must_use]
    pub fn left_wire(&self) -> PacketSocket {
        PacketSocket::open(&self.left.netns, HOST_IFACE)
    }

    /// The same on the right.
    #[must_use]
    pub fn right_wire(&self) -> PacketSocket {
        PacketSocket::open(&self.right.netns, HOST_IFACE)
    }

    /// Takes a cable out, or puts it back: the host's end goes down, so the gateway's NIC loses its carrier.
    pub fn set_cable(&self, link: Link, is_in: bool) {
        let host = match link {
            Link::Left => &self.left,
            Link::Right => &self.right,
        };
        host.netns.ip(&["link", "set", HOST_IFACE, if is_in { "up" } else { "down" }]);
        if is_in {
            // Going down lost the IPv6 address.
            host.add_v6();
        }
    }

    /// Name and id of the XDP program on one of the gateway's NICs, if there is one.
    #[must_use]
    pub fn xdp_program(&self, iface: &str) -> Option<(String, u64)> {
        let link = self.gateway.link(iface);
        let id = link.pointer("/xdp/prog/id").and_then(serde_json::Value::as_u64)?;
        let text = self.gateway.run("bpftool", &["-j", "prog", "show", "id", &id.to_string()]);
        let program: serde_json::Value = serde_json::from_str(&text).expect("bpftool -j prints JSON");
        let name = program.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        Some((name.to_owned(), id))
    }

    /// What `ethtool -k` says of a NIC of the gateway: lines as they come.
    #[must_use]
    pub fn offloads(&self, iface: &str) -> String {
        self.gateway.run("ethtool", &["-k", iface])
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl LabBuilder {
    /// MTU of every interface, in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Queues of every interface, rx and tx.
    #[must_use]
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// Builds it.
    ///
    /// # Panics
    /// Without root, or if a tool is missing.
    #[must_use]
    pub fn build(self) -> Lab {
        let gateway = Netns::new("gw");
        // A bump in the wire has no addresses, and its own stack stays silent.
        gateway.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        gateway.sysctl("net.ipv6.conf.default.disable_ipv6", "1");
        let left = self.host("left", &gateway, GATEWAY_LEFT, 1);
        let right = self.host("right", &gateway, GATEWAY_RIGHT, 2);
        Lab { left, right, gateway }
    }

    fn host(&self, role: &str, gateway: &Netns, gateway_iface: &str, number: u8) -> Host {
        let netns = Netns::new(role);
        // Silence that no test asked for: router solicitations, and reports of multicast groups joined.
        netns.sysctl("net.ipv6.conf.default.router_solicitations", "0");
        netns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
        let (queues, mtu) = (self.queues.to_string(), self.mtu.to_string());
        // Equal counts: native XDP refuses a peer with more tx queues than the NIC has rx queues.
        let counts = ["numtxqueues", &queues, "numrxqueues", &queues];
        let mac = [0x02, 0, 0, 0, 0x77, number];
        let mac_text = mac.map(|byte| format!("{byte:02x}")).join(":");
        let mut args = vec!["link", "add", "name", gateway_iface, "netns", gateway.name(), "mtu", &mtu];
        args.extend(counts);
        args.extend(["type", "veth", "peer", "name", HOST_IFACE, "netns", netns.name(), "mtu", &mtu]);
        args.extend(["address", &mac_text]);
        args.extend(counts);
        run("ip", &args);
        // Nobody completes a checksum or a VLAN tag that the far end leaves to its NIC, nor cuts what it leaves uncut;
        // GRO makes the end run NAPI, without which frames redirected into it vanish.
        for features in [["tx", "off"], ["txvlan", "off"], ["tso", "off"], ["gso", "off"], ["gro", "on"]] {
            netns.run("ethtool", &["-K", HOST_IFACE, features[0], features[1]]);
        }
        gateway.ip(&["link", "set", gateway_iface, "up"]);
        netns.ip(&["link", "set", HOST_IFACE, "up"]);
        let host = Host {
            netns,
            v4: Ipv4Addr::new(10, 77, 0, number),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)),
            mac,
        };
        host.netns.ip(&["addr", "add", &format!("{}/24", host.v4), "dev", HOST_IFACE]);
        host.add_v6();
        host
    }
}

impl Host {
    /// Its IPv6 address, or else its IPv4 one.
    #[must_use]
    pub fn addr(&self, is_v6: bool) -> IpAddr {
        if is_v6 { IpAddr::V6(self.v6) } else { IpAddr::V4(self.v4) }
    }

    fn add_v6(&self) {
        // `replace` so that it may be there already; `nodad` so that it can be used at once.
        self.netns.ip(&["addr", "replace", &format!("{}/64", self.v6), "dev", HOST_IFACE, "nodad"]);
    }
}
