//! Who may do what through the API. The kernel says who is at the other end of a connection; each route declares what it
//! asks for where it is listed (`super::routes`); this module brings both together, before a handler sees the request.
//!
//! * **Reading** (everything that changes nothing): root, the daemon's own user, members of `api.group` and of
//!   `api.write_group`.
//! * **Writing** (everything that changes anything): root, the daemon's own user, and members of `api.write_group`.
//!
//! A member is who has the group as primary or as supplementary group at the time of connecting. On the API's
//! thread.
//!
//! Invariant: a request without [`Caller`] is refused, whatever it asks for: no listener can forget to say who calls.

use super::answers::{call, failed};
use super::backend::Peer;
use super::ledger::{self, Entry, Said};
use super::listener;
use super::types::{ErrorBody, ErrorKind};
use crate::audit::AuditLog;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use nix::sys::socket::{getsockopt, sockopt};
use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;

/// What a route asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing.
    Read,
    /// Changes nothing, and shows what passes: written down in the audit log all the same.
    Look,
    /// Changes something.
    Write,
    /// Some requests change something, others do not: the handler asks [`Caller::may_write`] once it knows.
    Depends,
}

/// A route of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// `get` or `post`.
    pub method: &'static str,
    /// Its path.
    pub path: &'static str,
    /// What it asks for.
    pub access: Access,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Nothing.
    #[default]
    None,
    /// See everything.
    Read,
    /// Change everything.
    Write,
}

/// Who calls, and what they may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Who it is, as far as the kernel says.
    pub peer: Peer,
    /// What they may do.
    pub rights: Rights,
    /// The groups that would give rights, for refusals.
    pub groups: Arc<Groups>,
}

/// The groups that open the API, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// `api.group`.
    pub read: Option<Group>,
    /// `api.write_group`.
    pub write: Option<Group>,
}

/// A group by both its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub gid: u32,
    /// What the operator calls it.
    pub name: String,
}

/// The same as the operator names them: each a name or a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupNames {
    /// `api.group`.
    pub read: Option<String>,
    /// `api.write_group`.
    pub write: Option<String>,
}

impl From<Option<&str>> for GroupNames {
    /// Only those who look.
    fn from(read: Option<&str>) -> Self {
        Self { read: read.map(str::to_owned), write: None }
    }
}

impl Groups {
    /// Who has to be able to connect besides root: a group, or everybody if there are two of them; each is asked for at the
    /// door.
    pub(super) fn of_socket(&self) -> (Option<u32>, bool) {
        match (&self.read, &self.write) {
            (Some(read), Some(write)) if read.gid != write.gid => (None, true),
            (read, write) => (read.as_ref().or(write.as_ref()).map(|group| group.gid), false),
        }
    }

    /// What somebody with this user and these groups may do. `own` is the daemon's user.
    #[must_use]
    pub fn rights(&self, uid: u32, gids: &[u32], own: u32) -> Rights {
        let is_in = |group: &Option<Group>| group.as_ref().is_some_and(|group| gids.contains(&group.gid));
        if uid == 0 || uid == own || is_in(&self.write) {
            Rights::Write
        } else if is_in(&self.read) {
            Rights::Read
        } else {
            Rights::None
        }
    }

    /// Who is at the other end of a Unix socket, and what they may do.
    pub(super) fn caller(self: &Arc<Self>, socket: &impl AsFd) -> Caller {
        let Ok(credentials) = getsockopt(socket, sockopt::PeerCredentials) else {
            return Caller { groups: Arc::clone(self), ..Caller::default() };
        };
        let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid());
        let mut gids = supplementary(pid, uid);
        gids.push(gid);
        let rights = self.rights(uid, &gids, rustix::process::geteuid().as_raw());
        Caller { peer: Peer { uid: Some(uid), pid: Some(pid) }, rights, groups: Arc::clone(self) }
    }

    /// Why somebody may not even read.
    fn refusal(&self) -> String {
        match (&self.read, &self.write) {
            (None, None) => {
                "only root may use this daemon: run fwctl as root, or set api.group (who may look) or api.write_group (who may \
                 change things)"
                    .to_owned()
            }
            (read, write) => {
                let names: Vec<&str> = read.iter().chain(write).map(|group| group.name.as_str()).collect();
                format!("you are in none of the groups that may use this daemon: {}", names.join(", "))
            }
        }
    }
}

impl Caller {
    /// Somebody of whom nothing is known, at a listener that is there for everybody: may see what is served there.
    pub(super) fn guest() -> Self {
        Self { rights: Rights::Read, ..Self::default() }
    }

    /// Whether what changes something may be done.
    ///
    /// # Errors
    /// Says which group may.
    pub fn may_write(&self) -> Result<(), String> {
        if self.rights == Rights::Write {
            return Ok(());
        }
        Err(match &self.groups.write {
            Some(group) => format!(
                "this changes the gateway: only root and members of group {} (api.write_group) may",
                group.name
            ),
            None => "this changes the gateway: only root may; api.write_group names a group that may, too"
                .to_owned(),
        })
    }

    /// Whether a route may be used.
    fn may(&self, access: Access) -> Result<(), String> {
        match access {
            Access::Write => self.may_write(),
            Access::Read | Access::Look | Access::Depends if self.rights >= Rights::Read => Ok(()),
            Access::Read | Access::Look | Access::Depends => Err(self.groups.refusal()),
        }
    }
}

/// Lets a request through to its handler, or refuses it. What may change something is written down.
pub(super) async fn authorise(
    log: Arc<AuditLog>,
    access: Access,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return forbidden("nobody has said who asks".to_owned());
    };
    if access == Access::Read {
        return answer(&caller, access, request, next).await;
    }
    // Whoever asked may hang up, and whatever awaits the answer goes with the connection. The change goes on all the same, and
    // so does writing it down.
    let recorded = async move {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let entry = match Entry::open(log, access, caller.peer, path, query).await {
            Ok(entry) => entry,
            Err(failure) => return failure.into_response(),
        };
        request.extensions_mut().insert(entry.clone());
        let answer = answer(&caller, access, request, next).await;
        if entry.is_open() {
            let (status, said) = (answer.status(), ledger::said(&answer));
            // A disk may take its time; the answer waits for it, others do not.
            let _ = call(move || entry.answered(status, said)).await;
        }
        answer
    };
    listener::spawn(recorded).await.unwrap_or_else(|error| failed(error).into_response())
}

/// Lets a request through to its handler, or refuses it.
async fn answer(caller: &Caller, access: Access, request: Request, next: Next) -> Response {
    match caller.may(access) {
        Ok(()) => next.run(request).await,
        Err(why) => forbidden(why),
    }
}

/// 403, and why.
fn forbidden(message: String) -> Response {
    let said = Extension(Said(message.clone()));
    let body = ErrorBody { kind: ErrorKind::Forbidden, message, diagnostics: Vec::new() };
    (StatusCode::FORBIDDEN, said, Json(body)).into_response()
}

/// Supplementary groups of a process. From `/proc`, since the credentials of a socket have none of them; a process that is
/// gone, or whose number somebody else of another user has by now, has none.
fn supplementary(pid: i32, uid: u32) -> Vec<u32> {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return Vec::new() };
    groups_of(&status, uid).unwrap_or_default()
}

fn groups_of(status: &str, uid: u32) -> Option<Vec<u32>> {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>().ok();
    // Real, effective, saved and file system user; sudo and the like differ in them for a moment.
    let is_same = numbers(line("Uid:")?)?.contains(&uid);
    if is_same { numbers(line("Groups:")?) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Groups {
        let group = |gid, name: &str| Some(Group { gid, name: name.to_owned() });
        Groups { read: group(100, "look"), write: group(200, "change") }
    }

    #[test]
    fn root_and_the_daemon_write_and_groups_do_what_they_are_for() {
        let groups = groups();
        for (uid, gids, rights) in [
            (0, &[][..], Rights::Write),
            (990, &[], Rights::Write),
            (1000, &[1000], Rights::None),
            (1000, &[1000, 100], Rights::Read),
            (1000, &[200], Rights::Write),
            (1000, &[100, 200], Rights::Write),
        ] {
            assert_eq!(groups.rights(uid, gids, 990), rights, "{uid} {gids:?}");
        }
        assert_eq!(Groups::default().rights(1000, &[0, 100, 200], 990), Rights::None);
        assert!(
            groups.refusal().contains("look, change") && Groups::default().refusal().contains("only root")
        );
    }

    #[test]
    fn a_refusal_names_the_group() {
        let caller = Caller { rights: Rights::Read, groups: Arc::new(groups()), ..Caller::default() };
        assert_eq!(caller.may(Access::Read), Ok(()));
        assert_eq!(caller.may(Access::Depends), Ok(()));
        assert!(caller.may(Access::Write).unwrap_err().contains("group change"));
        let stranger = Caller::default();
        assert!(
            [Access::Read, Access::Look, Access::Write, Access::Depends]
                .map(|access| stranger.may(access).is_err())
                == [true; 4]
        );
    }

    #[test]
    fn supplementary_groups_are_those_of_the_same_user() {
        let status =
            "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t27 100 1000 \n";
        assert_eq!(groups_of(status, 1000), Some(vec![27, 100, 1000]));
        assert_eq!(groups_of(status, 1001), None);
        assert_eq!(groups_of("", 1000), None);
        let own = supplementary(std::process::id().cast_signed(), rustix::process::getuid().as_raw());
        let mut known: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        known.sort_unstable();
        assert_eq!(own, known);
    }

    #[test]
    fn the_caller_of_a_socket_is_who_has_its_other_end() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let caller = Arc::new(groups()).caller(&here);
        assert_eq!(caller.peer.pid, Some(std::process::id().cast_signed()));
        assert_eq!(caller.peer.uid, Some(rustix::process::getuid().as_raw()));
        assert_eq!(caller.rights, Rights::Write, "the daemon's own user");
    }
}
