//! `fwctl explain`: what would become of a packet, and why.

mod render;

pub use render::write_explanation;
