//! Palisade's control plane: rules text, configuration, NICs, the API, and the fwd and fwctl programs.

pub mod check;
pub mod iptables;
