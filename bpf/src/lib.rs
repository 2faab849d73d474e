//! Palisade's XDP program and its loader.
