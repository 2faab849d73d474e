//! Sets as ipset(8) speaks of them: `ipset save` files and commands read ([`command`], [`create`], [`element`]), carried
//! out (`run`) on the daemon's sets ([`store`]) and printed ([`mod@print`]). The judge of text is ipset 7.17.
//!
//! Control threads and tools. Invariant: a file with an error in it changes nothing; every error has its place.

pub mod command;
pub mod create;
pub mod element;
pub mod file;
pub mod icmp;
mod listing;
pub mod orders;
mod overlay;
pub mod print;
mod run;
pub mod store;
pub mod words;

pub use store::Store;
