//! Palisade's control plane: rules text, configuration, NICs, the API, and the fwd and fwctl programs.

pub mod ager;
pub mod api;
pub mod build_facts;
pub mod check;
pub mod cli;
pub mod config;
pub mod diff;
pub mod doctor;
pub mod history;
pub mod ipfix;
pub mod iptables;
pub mod labels;
pub mod lint;
pub mod net;
pub mod packet_log;
pub mod placement;
pub mod publish;
pub mod rebalance;
pub mod replay;
pub mod reproducer;
pub mod requests;
pub mod rules_file;
pub mod sets;
pub mod supervisor;
pub mod system;
pub(crate) mod top;
