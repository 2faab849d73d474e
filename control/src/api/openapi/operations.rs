//! Every request that the API takes. Whoever adds a route adds its entry here; a test finds the route that has none.

use super::super::access::{Access, Route};
use super::super::routes::{AuditQuery, FamilyQuery, HistoryQuery, ROUTES, TablesQuery, WorkersQuery};
use super::super::types::*;
use crate::audit::AuditReport;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};

/// How a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks; changes nothing.
    Get,
    /// Commands, or asks with a body.
    Post,
}

impl Method {
    /// As HTTP writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

    /// As OpenAPI writes it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

/// Where the schema of a type comes from.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What comes back when a request was done.
#[derive(Clone, Copy)]
pub enum Answer {
    /// One JSON value.
    Json(SchemaOf),
    /// One JSON object per line.
    Lines(SchemaOf),
    /// Something else, of this media type.
    Text(&'static str),
}

/// A request that the API takes.
pub struct Operation {
    /// How.
    pub method: Method,
    /// Where.
    pub path: &'static str,
    /// What it is about: the heading it stands under.
    pub tag: &'static str,
    /// In one line.
    pub summary: &'static str,
    /// What has to be known beyond that.
    pub description: &'static str,
    /// Fields of the query.
    pub query: Option<SchemaOf>,
    /// The body.
    pub body: Option<SchemaOf>,
    /// What comes back.
    pub answer: Answer,
    /// Statuses with which it may be refused.
    pub refusals: &'static [u16],
}

impl Operation {
    /// A name for programs: `get_flows_count`.
    #[must_use]
    pub fn id(&self) -> String {
        let path = self.path.strip_prefix("/v1/").unwrap_or(self.path);
        let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        std::iter::once(self.method.key()).chain(words).collect::<Vec<_>>().join("_")
    }

    /// What it asks of whoever calls it, as its route says.
    #[must_use]
    pub fn access(&self) -> Option<Access> {
        let mine = |route: &&Route| (route.method, route.path) == (self.method.key(), self.path);
        ROUTES.iter().find(mine).map(|route| route.access)
    }

    const fn new(method: Method, path: &'static str, tag: &'static str, summary: &'static str) -> Self {
        let answer = Answer::Json(of::<()>);
        Self {
            method,
            path,
            tag,
            summary,
            description: "",
            query: None,
            body: None,
            answer,
            refusals: &[500],
        }
    }

    const fn get(path: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Get, path, tag, summary)
    }

    const fn post(path: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Post, path, tag, summary)
    }

    const fn text(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    const fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(of::<T>), ..self }
    }

    const fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(of::<T>), ..self }
    }

    const fn json<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Json(of::<T>), ..self }
    }

    const fn lines<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Lines(of::<T>), ..self }
    }

    const fn answered(self, kind: &'static str) -> Self {
        Self { answer: Answer::Text(kind), ..self }
    }

    const fn refused(self, refusals: &'static [u16]) -> Self {
        Self { refusals, ..self }
    }
}

fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    schemas.subschema_for::<T>()
}

/// A request that can be wrong in itself.
const ASKED: &[u16] = &[400, 500];

/// One with a body.
const SENT: &[u16] = &[400, 408, 413, 500];

/// A change of the rules.
const CHANGED: &[u16] = &[400, 404, 408, 409, 413, 422, 500];

/// Parameters of the one request that takes those of two types.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is asked for")]
struct TopQuery {
    #[schemars(flatten)]
    own: TopRequest,
    #[schemars(flatten)]
    filter: FlowFilter,
}

/// All of them, in the order of the reference.
pub const OPERATIONS: &[Operation] = &[
    Operation::get("/v1/web", "Daemon", "Where the web page is, and whether it may change anything here").json::<WebView>(),
    Operation::get("/v1/version", "Daemon", "Which daemon is talking").json::<Version>(),
    Operation::get("/v1/openapi.json", "Daemon", "This description").answered("application/json"),
    Operation::get("/v1/stats", "Daemon", "Everything that is counted")
        .text("Rates are those of the last second or so.")
        .json::<Stats>(),
    Operation::get("/metrics", "Daemon", "Everything that is counted, as OpenMetrics text")
        .text("Prometheus' older text format for clients that ask for no other. Also over TCP, where that is switched on.")
        .answered("application/openmetrics-text")
        .refused(&[500]),
    Operation::get("/v1/workers", "Workers", "What each worker has to do, and the largest flows")
        .text("Takes as long as it is told to look: `interval_ms`, from 10 to 10000.")
        .query::<WorkersQuery>()
        .json::<WorkersReport>()
        .refused(ASKED),
    Operation::get("/v1/top", "Workers", "Who has the most: flows, hosts, services and rules by rate")
        .text("Looks for `interval_ms` at the flows that the filter's fields leave.")
        .query::<TopQuery>()
        .json::<TopReport>()
        .refused(&[400, 409, 500]),
    Operation::post("/v1/workers/rebalance", "Workers", "Move flows from busy workers to idle ones")
        .query::<WorkersQuery>()
        .json::<RebalanceReport>()
        .refused(ASKED),
    Operation::get("/v1/rules", "Rules", "The rules in force, with their counters")
        .text("Both families unless one is asked for.")
        .query::<FamilyQuery>()
        .json::<Vec<RulesView>>()
        .refused(ASKED),
    Operation::get("/v1/rules/counters", "Rules", "What the rules have counted, without the rules")
        .text("In the order of `/v1/rules` of the same generation: for who asks often.")
        .query::<FamilyQuery>()
        .json::<Vec<RuleCounters>>()
        .refused(ASKED),
    Operation::post("/v1/explain", "Packets", "What would become of a packet, and why")
        .text("Nothing is sent, counted or changed.")
        .body::<ExplainRequest>()
        .json::<Explanation>()
        .refused(&[400, 408, 409, 413, 422, 500]),
    Operation::post("/v1/apply", "Rules", "Load new rules")
        .text("A family without text keeps its rules. With `confirm_secs` the rules go back by themselves unless confirmed.")
        .body::<ApplyRequest>()
        .json::<ApplyReport>()
        .refused(CHANGED),
    Operation::post("/v1/diff", "Rules", "What new rules would change")
        .text("Nothing is changed.")
        .body::<ApplyRequest>()
        .json::<DiffReport>()
        .refused(CHANGED),
    Operation::post("/v1/rules/edit", "Rules", "Add, insert, delete or replace one rule")
        .body::<EditRequest>()
        .json::<ApplyReport>()
        .refused(CHANGED),
    Operation::post("/v1/confirm", "Rules", "Keep the rules that wait for confirmation")
        .json::<HistoryEntry>()
        .refused(&[400, 404, 409, 500]),
    Operation::post("/v1/rollback", "Rules", "Go back to rules that ran before")
        .body::<RollbackRequest>()
        .json::<ApplyReport>()
        .refused(CHANGED),
    Operation::get("/v1/history", "Rules", "The rules that ran: who, when, what").json::<HistoryReport>(),
    Operation::get("/v1/history/rules", "Rules", "One ruleset of the history, as iptables-save prints it")
        .query::<HistoryQuery>()
        .json::<String>()
        .refused(&[400, 404, 500]),
    Operation::get("/v1/audit", "Audit", "Who changed what: the last records of the audit log")
        .query::<AuditQuery>()
        .json::<AuditReport>()
        .refused(ASKED),
    Operation::get("/v1/config", "Configuration", "What the daemon works with, and where each value comes from")
        .json::<ConfigView>(),
    Operation::post("/v1/config/set", "Configuration", "Change settings while it runs, all or none of them")
        .body::<ConfigSetRequest>()
        .json::<ConfigReport>()
        .refused(&[400, 408, 413, 422, 500]),
    Operation::post("/v1/config/reload", "Configuration", "Read the configuration file again")
        .text("What can change does; what needs a restart is named. The rules stay as they are.")
        .json::<ConfigReport>()
        .refused(ASKED),
    Operation::get("/v1/flows", "Flows", "The flows that fit a filter, one per line")
        .text("Fields of the query narrow; without any all flows come. Streams at its reader's pace.")
        .query::<FlowFilter>()
        .lines::<FlowRow>()
        .refused(ASKED),
    Operation::get("/v1/flows/count", "Flows", "How many flows fit a filter")
        .query::<FlowFilter>()
        .json::<FlowCount>()
        .refused(ASKED),
    Operation::get("/v1/flows/events", "Flows", "What happens to flows, as it happens")
        .text("Goes on until the client goes. Empty lines come in between, so that a client that is gone is noticed.")
        .query::<FlowFilter>()
        .lines::<EventRow>()
        .refused(&[400, 409, 500]),
    Operation::get("/v1/flows/stats", "Flows", "Each worker's tracker, under the names of conntrack -S")
        .json::<Vec<TrackRow>>(),
    Operation::post("/v1/flows/delete", "Flows", "Delete the flows that fit a filter")
        .text("Each flow as it was, one per line, and at the end how many.")
        .query::<FlowFilter>()
        .lines::<TallyLine>()
        .refused(ASKED),
    Operation::post("/v1/flows/update", "Flows", "Set mark, labels or timer of the flows that fit a filter")
        .text("Each flow as it is since, one per line, and at the end how many.")
        .body::<UpdateRequest>()
        .lines::<TallyLine>()
        .refused(SENT),
    Operation::post("/v1/flows/flush", "Flows", "Delete all flows").json::<Tally>(),
    Operation::get("/v1/expectations", "Flows", "Connections that helpers expect")
        .query::<FamilyQuery>()
        .json::<Vec<ExpectRow>>()
        .refused(ASKED),
    Operation::get("/v1/expectations/events", "Flows", "What happens to expectations, as it happens")
        .query::<FamilyQuery>()
        .lines::<ExpectEventRow>()
        .refused(&[400, 409, 500]),
    Operation::post("/v1/expectations/flush", "Flows", "Forget all expectations").json::<Tally>(),
    Operation::get("/v1/drops", "Packets", "The last packets that were dropped")
        .text("512 per worker are remembered, oldest first.")
        .json::<Vec<DropRow>>(),
    Operation::post("/v1/trace", "Packets", "Follow packets that pass by")
        .text("Goes on until the client goes, or as many have come as were asked for. Empty lines come in between.")
        .body::<TapFilter>()
        .lines::<TraceRow>()
        .refused(&[400, 409, 500]),
    Operation::post("/v1/capture", "Packets", "Packets that pass by, as a capture file")
        .text("Goes on until the client goes, or as many have come as were asked for.")
        .body::<CaptureRequest>()
        .answered("application/x-pcapng")
        .refused(&[400, 409, 500]),
    Operation::get("/v1/sysctl", "Connection tracking", "Connection tracking settings, by name")
        .text("Pairs of name and number.")
        .json::<Vec<(String, u32)>>(),
    Operation::post("/v1/sysctl", "Connection tracking", "Change one of them")
        .text("Until the daemon ends; the configuration says what it starts with.")
        .query::<SetRequest>()
        .refused(ASKED),
    Operation::post("/v1/sets", "Sets and lists", "A command in ipset's language, or a file of them")
        .body::<SetsRequest>()
        .json::<SetsAnswer>()
        .refused(CHANGED),
    Operation::get("/v1/recent", "Sets and lists", "What recent rules have seen")
        .query::<TablesQuery>()
        .lines::<TableLine<RecentEntry>>()
        .refused(ASKED),
    Operation::post("/v1/recent", "Sets and lists", "Change such a list by hand")
        .body::<RecentEdit>()
        .refused(CHANGED),
    Operation::get("/v1/hashlimit", "Sets and lists", "What hashlimit rules keep of addresses")
        .query::<TablesQuery>()
        .lines::<TableLine<HashlimitEntry>>()
        .refused(ASKED),
];
