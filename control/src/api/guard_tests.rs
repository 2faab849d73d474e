//! Every route under every right, and what of it is written down.

use super::access::{Access, Caller, Rights};
use super::limits::Limits;
use super::routes::{self, ROUTES};
use super::server::Shared;
use super::testing::Fake;
use super::types::{ErrorBody, ErrorKind};
use crate::audit::{AuditLog, Outcome, Record};
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct Rig {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
}

impl Rig {
    fn new() -> Self {
        Self::of(Fake::default())
    }

    fn of(fake: Fake) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let shared = Shared {
            backend: Arc::new(fake),
            sampler: Mutex::default(),
            limits: Limits::default(),
            groups: Arc::default(),
            audit: Arc::new(AuditLog::default()),
            tally: Arc::default(),
            page: None,
        };
        Self { runtime, shared: Arc::new(shared) }
    }

    fn ask(&self, method: &str, target: &str, body: &str, caller: Option<Caller>) -> Response {
        self.runtime.block_on(self.call(method, target, body, caller)).unwrap()
    }

    fn call(
        &self,
        method: &str,
        target: &str,
        body: &str,
        caller: Option<Caller>,
    ) -> impl Future<Output = Result<Response, Infallible>> {
        let mut request =
            Request::builder().method(method.to_uppercase().as_str()).uri(target).header("host", "fwd");
        if let Some(caller) = caller {
            request = request.extension(caller);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let service = TowerToHyperService::new(routes::router(
            Arc::clone(&self.shared),
            crate::web::Access::socket(&[], true),
        ));
        service.call(request)
    }

    fn error(&self, answer: Response) -> (StatusCode, ErrorBody) {
        let status = answer.status();
        let body = self.runtime.block_on(axum::body::to_bytes(answer.into_body(), 1 << 20)).unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn records(&self) -> Vec<Record> {
        self.shared.audit.last(100).records
    }
}

fn with(rights: Rights) -> Option<Caller> {
    let peer = super::backend::Peer { uid: Some(1000), pid: Some(std::process::id().cast_signed()) };
    Some(Caller { peer, rights, ..Caller::default() })
}

#[test]
fn every_route_asks_for_what_it_declares() {
    let rig = Rig::new();
    for route in ROUTES {
        let ask = |caller| rig.ask(route.method, route.path, "", caller).status();
        assert_eq!(ask(None), StatusCode::FORBIDDEN, "nobody said who asks: {route:?}");
        assert_eq!(ask(with(Rights::None)), StatusCode::FORBIDDEN, "{route:?}");
        let is_refused = ask(with(Rights::Read)) == StatusCode::FORBIDDEN;
        // By an empty request nobody can tell yet whether it would change something.
        let expected = route.access == Access::Write || route.path == "/v1/workers/rebalance";
        assert_eq!(is_refused, expected, "{route:?}");
        assert_ne!(ask(with(Rights::Write)), StatusCode::FORBIDDEN, "{route:?}");
    }
}

/// A route that takes a body and changes nothing is rare: it is named here, so that nobody declares one by mistake.
#[test]
fn what_is_posted_changes_something_unless_it_is_known_not_to() {
    let looks: Vec<&str> = ROUTES
        .iter()
        .filter(|route| route.method == "post" && route.access == Access::Read)
        .map(|route| route.path)
        .collect();
    assert_eq!(looks, ["/v1/explain", "/v1/diff"]);
    assert!(ROUTES.iter().all(|route| route.method != "get" || route.access != Access::Write));
}

#[test]
fn sets_may_be_looked_at_by_who_may_not_change_them() {
    let rig = Rig::new();
    let ask = |text: &str, rights| {
        let body = serde_json::json!({ "text": text }).to_string();
        rig.error(rig.ask("post", "/v1/sets", &body, with(rights)))
    };
    assert_eq!(ask("list", Rights::Read).0, StatusCode::OK);
    let (status, error) = ask("-output save add a 10.0.0.1", Rights::Read);
    assert_eq!((status, error.kind), (StatusCode::FORBIDDEN, ErrorKind::Forbidden));
    assert!(error.message.contains("api.write_group"), "{}", error.message);
    assert_eq!(ask("add a 10.0.0.1", Rights::Write).0, StatusCode::OK);
    let told: Vec<(String, Outcome)> =
        rig.records().into_iter().map(|record| (record.what, record.result)).collect();
    assert_eq!(
        told,
        [
            ("-output save add a 10.0.0.1".to_owned(), Outcome::Refused),
            ("add a 10.0.0.1".to_owned(), Outcome::Done)
        ]
    );
}

#[test]
fn a_change_is_written_down_though_its_client_hangs_up() {
    let fake = Fake::default();
    let walk = Arc::clone(&fake.walk);
    let rig = Rig::of(fake);
    let held = walk.lock().unwrap();
    let rules = r#"{"v4": {"file": "new.v4", "text": ""}}"#;
    let answer = rig.call("post", "/v1/apply", rules, with(Rights::Write));
    let is_late = rig
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(50), answer).await })
        .is_err();
    assert!(is_late && rig.records().is_empty());
    drop(held);
    rig.runtime.block_on(async {
        for _ in 0..500 {
            if !rig.records().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let told: Vec<_> = rig.records().into_iter().map(|record| (record.what, record.result)).collect();
    assert_eq!(told, [("new.v4".to_owned(), Outcome::Done)]);
}

#[test]
fn changes_are_written_down_with_who_what_and_what_came_of_it() {
    let rig = Rig::new();
    let rules = r#"{"v4": {"file": "new.v4", "text": ""}, "comment": "for the new server"}"#;
    assert_eq!(rig.ask("post", "/v1/apply", rules, with(Rights::Write)).status(), StatusCode::OK);
    rig.ask("post", "/v1/sysctl?name=tcp_loose&value=0", "", with(Rights::Write));
    rig.ask("post", "/v1/sysctl?name=tcp_loose&value=7", "", with(Rights::Write));
    rig.ask("post", "/v1/confirm", "", with(Rights::Read));
    rig.ask("get", "/v1/stats", "", with(Rights::Write));
    rig.ask("post", "/v1/workers/rebalance?dry_run=true", "", with(Rights::Write));
    let deleted = rig.ask("post", "/v1/flows/delete?proto=6", "", with(Rights::Write));
    rig.error(deleted);
    let records = rig.records();
    let told: Vec<(&str, &str, Outcome)> =
        records.iter().map(|record| (record.action.as_str(), record.what.as_str(), record.result)).collect();
    assert_eq!(
        told,
        [
            ("apply", "new.v4  # for the new server", Outcome::Done),
            ("sysctl", "tcp_loose=0", Outcome::Done),
            ("sysctl", "tcp_loose=7", Outcome::Refused),
            ("confirm", "", Outcome::Refused),
            ("flows delete", "proto=6", Outcome::Done),
        ]
    );
    assert_eq!(records[0].before["ruleset"], 3);
    assert_eq!(records[0].after["generation"], 8);
    assert!(records[2].error.as_deref().is_some_and(|why| why.contains("will not do")));
    assert_eq!(records[4].after["count"], 0);
    assert!(records.iter().all(|record| record.who.uid == Some(1000) && record.who.command.is_some()));
}
