//! The web page, and where it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What the page may do where this is asked, and where else it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebView {
    /// TCP address of the page; `None`: on the daemon's socket only.
    pub listen: Option<SocketAddr>,
    /// Whether the page may confirm and roll back changes here.
    pub write: bool,
}
