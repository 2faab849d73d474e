//! Who it was: as much as the kernel tells of the process at the other end of the socket.

use crate::api::backend::Peer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;

/// Longest command line kept, in characters.
const COMMAND_MAX: usize = 400;

/// What `/proc/PID/loginuid` says of a process that nobody logged in for.
const NOBODY: u32 = u32::MAX;

/// Who did something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Who {
    /// User number, checked by the kernel; `None`: the daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The user's name; the daemon's own doings say what made it do them.
    pub user: String,
    /// Who had logged in to become this user by sudo or su, where the kernel keeps track of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Process number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The process's own word for what it is: its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Who {
    /// The daemon itself, for a reason.
    #[must_use]
    pub fn daemon(reason: &str) -> Self {
        Self { user: format!("fwd ({reason})"), ..Self::default() }
    }

    /// The process at the other end of a connection, asked while it waits for its answer.
    #[must_use]
    pub fn of(peer: Peer) -> Self {
        let of_process = |what: &str| peer.pid.and_then(|pid| fs::read(format!("/proc/{pid}/{what}")).ok());
        let login = of_process("loginuid").and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
        Self {
            uid: peer.uid,
            user: peer.uid.map_or_else(|| "unknown".to_owned(), name_of),
            login: login.filter(|uid| *uid != NOBODY && Some(*uid) != peer.uid).map(name_of),
            pid: peer.pid,
            command: of_process("cmdline")
                .map(|words| command_line(&words))
                .filter(|words| !words.is_empty()),
        }
    }
}

fn name_of(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// A command line as `/proc` has it, on one line.
fn command_line(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let text = text.trim_end_matches('\0').replace('\0', " ");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(COMMAND_MAX).collect()
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.user)?;
        if let Some(login) = &self.login {
            write!(f, " (logged in as {login})")?;
        }
        self.pid.map_or(Ok(()), |pid| write!(f, ", process {pid}"))
    }
}
