//! The process and its machine: what we may do, which cores we run on, how we are told to stop. Control thread only.

pub mod capabilities;
pub mod cores;
pub mod privileges;
pub mod seccomp;
pub mod signals;
