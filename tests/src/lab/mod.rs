//! Two hosts and a gateway between them, each a network namespace of its own, joined by veth pairs:
//!
//! ```text
//!   left host            gateway             right host
//!   eth0 --------------- left  right --------------- eth0
//!   10.77.0.1                                   10.77.0.2
//!   fd77::1                                       fd77::2
//! ```
//!
//! A [`Lab`] owns its namespaces: they go when it is dropped, also by a panic. Namespaces of a process that was killed
//! are removed by the next [`Lab`] of any test; their names carry the process id for that.

mod netns;
mod packet_socket;
mod process;
mod topology;

pub use netns::Netns;
pub use packet_socket::PacketSocket;
pub use process::{Exit, Process};
pub use topology::{GATEWAY_LEFT, GATEWAY_RIGHT, HOST_IFACE, Host, Lab, LabBuilder, Link};
