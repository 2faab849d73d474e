//! Requests and their answers. Handlers only translate; what happens is up to the backend.

use super::access::{Access, Caller, Route, authorise};
use super::answers::{call, call_last};
use super::backend::{ApplyError, Backend};
use super::body::{body_of, small_body_of, understand};
use super::failure::Failure;
use super::ledger::Entry;
use super::limits::CONFIRM_MAX_SECS;
use super::listener::Lasting;
use super::metrics::{Facts, Format, exposition};
use super::server::Shared;
use super::types::{
    ApplyReport, ApplyRequest, CaptureRequest, ConfigReport, ConfigSetRequest, EditRequest, ErrorKind,
    ExplainRequest, Family, FlowCount, FlowFilter, RecentEdit, RollbackRequest, SetRequest, SetsRequest,
    SettingChange, TablesRequest, Tally, TapFilter, TopRequest, UpdateRequest, WebView,
};
use crate::audit::{AuditLog, AuditReport, RECORDS_MAX};
use crate::web::{self, Refusal};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

type App = State<Arc<Shared>>;

/// Lists the routes: each with what it asks of whoever calls it, which is checked before its handler is called. There is no
/// other way to add one.
macro_rules! routes {
    ($($method:ident $path:literal $access:ident => $handler:expr;)*) => {
        /// Every route there is.
        pub const ROUTES: &[Route] =
            &[$(Route { method: stringify!($method), path: $path, access: Access::$access },)*];

        fn table(audit: &Arc<AuditLog>) -> Router<Arc<Shared>> {
            let asks = |access| {
                let audit = Arc::clone(audit);
                from_fn(move |request, next| authorise(Arc::clone(&audit), access, request, next))
            };
            web::pages()$(.route($path, $method($handler).layer(asks(Access::$access))))*
        }
    };
}

routes! {
    get "/metrics" Read => metrics;
    get "/v1/version" Read => version;
    get "/v1/web" Read => web_view;
    get "/v1/openapi.json" Read => openapi;
    get "/v1/stats" Read => stats;
    get "/v1/rules" Read => rules;
    get "/v1/rules/counters" Read => rule_counters;
    get "/v1/flows" Read => flows;
    get "/v1/flows/count" Read => count_flows;
    post "/v1/flows/delete" Write => delete_flows;
    post "/v1/flows/update" Write => update_flows;
    post "/v1/flows/flush" Write => flush_flows;
    get "/v1/flows/events" Read => events;
    get "/v1/flows/stats" Read => track_stats;
    get "/v1/expectations" Read => expectations;
    post "/v1/expectations/flush" Write => flush_expectations;
    get "/v1/expectations/events" Read => expect_events;
    get "/v1/sysctl" Read => settings;
    post "/v1/sysctl" Write => set;
    post "/v1/sets" Depends => sets;
    get "/v1/recent" Read => recent;
    post "/v1/recent" Write => edit_recent;
    get "/v1/hashlimit" Read => hashlimit;
    get "/v1/workers" Read => workers;
    post "/v1/workers/rebalance" Depends => rebalance;
    post "/v1/explain" Read => explain;
    get "/v1/drops" Read => drops;
    post "/v1/trace" Look => trace;
    post "/v1/capture" Look => capture;
    post "/v1/apply" Write => apply;
    post "/v1/diff" Read => diff;
    post "/v1/rules/edit" Write => edit;
    post "/v1/confirm" Write => confirm;
    post "/v1/rollback" Write => roll_back;
    get "/v1/history" Read => history;
    get "/v1/history/rules" Read => history_rules;
    get "/v1/top" Read => top;
    get "/v1/audit" Read => audit;
    get "/v1/config" Read => config;
    post "/v1/config/set" Write => set_config;
    post "/v1/config/reload" Write => reload_config;
}

/// The API, as one service. Each request must have its [`super::access::Caller`] with it.
pub(super) fn router(shared: Arc<Shared>, access: web::Access) -> Router {
    let view = WebView { listen: shared.page, write: access.page_changes() };
    let router = table(&shared.audit)
        .layer(Extension(view))
        .fallback(async || {
            Failure::new(
                ErrorKind::NotFound,
                "there is no such address; GET /v1/openapi.json lists those there are",
            )
        })
        .method_not_allowed_fallback(async || {
            Failure::new(ErrorKind::BadRequest, "this address does not take such a request")
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .with_state(shared);
    guarded(router, access)
}

/// A service that answers only whom it may, and tells browsers what they may do with answers.
pub(super) fn guarded(router: Router, access: web::Access) -> Router {
    let access = Arc::new(access);
    let admit = move |request, next| admit(Arc::clone(&access), request, next);
    router.layer(from_fn(admit)).layer(from_fn(web::add_headers))
}

/// Lets a request through unless it comes from elsewhere than it should, or asks for more than is given here.
async fn admit(access: Arc<web::Access>, request: Request, next: Next) -> Response {
    let Err(refusal) = access.check(request.method(), request.uri(), request.headers()) else {
        return next.run(request).await;
    };
    let words = refusal.to_string();
    if matches!(refusal, Refusal::Host(_)) {
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Failure::new(ErrorKind::BadRequest, words).with_status(status).into_response();
    }
    Failure::new(ErrorKind::Forbidden, words).into_response()
}

/// Where the web page is.
async fn web_view(Extension(view): Extension<WebView>) -> Response {
    Json(view).into_response()
}

async fn version(State(shared): App) -> Response {
    Json(shared.backend.version()).into_response()
}

/// What the API takes and answers, for programs.
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::openapi::text()).into_response()
}

async fn stats(State(shared): App) -> Result<Response, Failure> {
    let taken = shared.clone();
    let mut stats = call(move || taken.backend.stats()).await?;
    shared.sampler.lock().unwrap_or_else(PoisonError::into_inner).rate(&mut stats);
    Ok(Json(stats).into_response())
}

/// What is counted, for monitoring.
pub(super) async fn metrics(State(shared): App, headers: HeaderMap) -> Result<Response, Failure> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept);
    let told = move || {
        let facts = Facts { clients: shared.tally.facts(), ..shared.backend.metrics() };
        exposition(facts, format)
    };
    let text = call(told).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// One family, or both.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FamilyQuery {
    family: Option<Family4Or6>,
}

impl FamilyQuery {
    fn family(&self) -> Option<Family> {
        self.family.map(Family::from)
    }

    fn families(&self) -> Vec<Family> {
        self.family().map_or_else(|| vec![Family::V4, Family::V6], |family| vec![family])
    }
}

impl From<Family4Or6> for Family {
    fn from(family: Family4Or6) -> Self {
        match family {
            Family4Or6::V4 => Self::V4,
            Family4Or6::V6 => Self::V6,
        }
    }
}

/// A family in a URL, where numbers come as text.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
enum Family4Or6 {
    #[serde(rename = "4")]
    V4,
    #[serde(rename = "6")]
    V6,
}

async fn rules(
    State(shared): App,
    query: Result<Query<FamilyQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let families = query?.0.families();
    let views = call(move || {
        families.into_iter().filter_map(|family| shared.backend.rules(family)).collect::<Vec<_>>()
    });
    Ok(Json(views.await?).into_response())
}

async fn rule_counters(
    State(shared): App,
    query: Result<Query<FamilyQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let families = query?.0.families();
    let counters = call(move || {
        families.into_iter().filter_map(|family| shared.backend.rule_counters(family)).collect::<Vec<_>>()
    });
    Ok(Json(counters.await?).into_response())
}

async fn flows(
    State(shared): App,
    query: Result<Query<FlowFilter>, QueryRejection>,
) -> Result<Response, Failure> {
    let filter = shared.filter(query?.0)?;
    Ok(shared.rows(move |backend, each| backend.flows(&filter, each)))
}

/// Tables in a URL.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TablesQuery {
    name: Option<String>,
    family: Option<Family4Or6>,
}

impl From<TablesQuery> for TablesRequest {
    fn from(TablesQuery { name, family }: TablesQuery) -> Self {
        Self { name, family: family.map(Family::from) }
    }
}

async fn recent(
    State(shared): App,
    query: Result<Query<TablesQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let which = query?.0.into();
    Ok(shared.rows(move |backend, each| backend.recent(&which, each)))
}

async fn edit_recent(
    State(shared): App,
    Extension(entry): Extension<Entry>,
    request: Request,
) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let done = call(move || {
        let request: RecentEdit = understand(&body)?;
        entry.what(json(&request));
        shared.backend.edit_recent(&request).map_err(Failure::from)
    });
    done.await??;
    Ok(Json(()).into_response())
}

async fn hashlimit(
    State(shared): App,
    query: Result<Query<TablesQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let which = query?.0.into();
    Ok(shared.rows(move |backend, each| backend.hashlimit(&which, each)))
}

/// Events as they happen, one per line, until the client goes; empty lines in between.
async fn events(
    State(shared): App,
    Extension(lasting): Extension<Lasting>,
    query: Result<Query<FlowFilter>, QueryRejection>,
) -> Result<Response, Failure> {
    let filter = shared.filter(query?.0)?;
    shared.listen(lasting, move |backend, each| backend.events(&filter, each).map_err(deaf)).await
}

/// Nobody else can listen.
fn deaf(why: String) -> ApplyError {
    ApplyError::new(ErrorKind::Busy, why)
}

/// A capture file, for as long as the client reads.
async fn capture(
    State(shared): App,
    Extension(entry): Extension<Entry>,
    Extension(lasting): Extension<Lasting>,
    request: Request,
) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let request: CaptureRequest = understand(&body)?;
    entry.what(json(&request));
    lasting.watch()?;
    let answer = shared.stream(lasting, "application/x-pcapng", move |backend, lines| {
        backend.capture(&request, &mut |piece| {
            lines.begin();
            lines.push_bytes(piece)
        })
    });
    answer.await
}

/// Packets as they are followed, one per line, until the client goes; empty lines in between.
async fn trace(
    State(shared): App,
    Extension(entry): Extension<Entry>,
    Extension(lasting): Extension<Lasting>,
    request: Request,
) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let filter: TapFilter = understand(&body)?;
    entry.what(json(&filter));
    lasting.watch()?;
    shared.listen(lasting, move |backend, each| backend.trace(&filter, each)).await
}

async fn drops(State(shared): App) -> Result<Response, Failure> {
    Ok(Json(call(move || shared.backend.drops()).await?).into_response())
}

async fn expectations(
    State(shared): App,
    query: Result<Query<FamilyQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let family = query?.0.family();
    Ok(Json(call(move || shared.backend.expectations(family)).await?).into_response())
}

async fn flush_expectations(
    State(shared): App,
    Extension(entry): Extension<Entry>,
) -> Result<Response, Failure> {
    let count = call(move || shared.backend.flush_expectations()).await?;
    entry.after(json!({ "removed": count }));
    Ok(Json(Tally { count, ..Tally::default() }).into_response())
}

async fn expect_events(
    State(shared): App,
    Extension(lasting): Extension<Lasting>,
    query: Result<Query<FamilyQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let family = query?.0.family();
    shared.listen(lasting, move |backend, each| backend.expect_events(family, each).map_err(deaf)).await
}

impl Shared {
    /// A filter, its labels by the names that flows' labels have.
    fn filter(&self, filter: FlowFilter) -> Result<FlowFilter, Failure> {
        let names = self.backend.label_names();
        filter.with_labels(&names).map_err(|why| Failure::new(ErrorKind::BadRequest, why))
    }
}

async fn count_flows(
    State(shared): App,
    query: Result<Query<FlowFilter>, QueryRejection>,
) -> Result<Response, Failure> {
    let filter = shared.filter(query?.0)?;
    let count = call(move || shared.backend.count_flows(&filter)).await?;
    Ok(Json(FlowCount { count }).into_response())
}

async fn delete_flows(
    State(shared): App,
    Extension(entry): Extension<Entry>,
    query: Result<Query<FlowFilter>, QueryRejection>,
) -> Result<Response, Failure> {
    let filter = shared.filter(query?.0)?;
    Ok(shared.tally(entry, move |backend, each| backend.delete_flows(&filter, each)))
}

async fn update_flows(
    State(shared): App,
    Extension(entry): Extension<Entry>,
    request: Request,
) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let request: UpdateRequest = understand(&body)?;
    entry.what(json(&request));
    if request.is_empty() {
        let why = "the request has neither a mark nor labels nor a timeout";
        return Err(Failure::new(ErrorKind::BadRequest, why));
    }
    request.labels(&shared.backend.label_names()).map_err(|why| Failure::new(ErrorKind::BadRequest, why))?;
    let request = UpdateRequest { filter: shared.filter(request.filter)?, ..request };
    Ok(shared.tally(entry, move |backend, each| backend.update_flows(&request, each)))
}

async fn flush_flows(State(shared): App, Extension(entry): Extension<Entry>) -> Result<Response, Failure> {
    let tally = call(move || shared.backend.flush_flows()).await?;
    entry.after(json!(tally));
    Ok(Json(tally).into_response())
}

async fn track_stats(State(shared): App) -> Result<Response, Failure> {
    Ok(Json(call(move || shared.backend.track_stats()).await?).into_response())
}

async fn settings(State(shared): App) -> Result<Response, Failure> {
    Ok(Json(call(move || shared.backend.settings()).await?).into_response())
}

async fn config(State(shared): App) -> Result<Response, Failure> {
    Ok(Json(call(move || shared.backend.config()).await?).into_response())
}

async fn set_config(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
    request: Request,
) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let report = call(move || {
        let ConfigSetRequest { set } = understand(&body)?;
        entry.what(set.join(" "));
        let report = shared.backend.set_config(&set, caller.peer).map_err(Failure::from)?;
        note_settings(&entry, &report);
        Ok::<_, Failure>(report)
    });
    Ok(Json(report.await??).into_response())
}

async fn reload_config(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
) -> Result<Response, Failure> {
    let report = call(move || {
        let report = shared.backend.reload_config(caller.peer).map_err(Failure::from)?;
        note_settings(&entry, &report);
        Ok::<_, Failure>(report)
    });
    Ok(Json(report.await??).into_response())
}

/// What settings were and are, for the audit log.
fn note_settings(entry: &Entry, report: &ConfigReport) {
    let values = |of: fn(&SettingChange) -> &serde_json::Value| {
        let each = report.changed.iter().map(|one| (one.name.clone(), of(one).clone()));
        serde_json::Value::Object(each.collect())
    };
    entry.before(values(|one| &one.before));
    entry.after(values(|one| &one.after));
}

async fn set(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
    query: Result<Query<SetRequest>, QueryRejection>,
) -> Result<Response, Failure> {
    let SetRequest { name, value } = query?.0;
    entry.what(format!("{name}={value}"));
    let done = call(move || {
        let now = |name: &str| shared.backend.settings().into_iter().find(|(known, _)| known == name);
        let before = now(&name);
        let done = shared.backend.set(&name, &value, caller.peer);
        if let (Ok(()), Some((_, before)), Some((_, after))) = (&done, before, now(&name)) {
            entry.before(before);
            entry.after(after);
        }
        done
    })
    .await?;
    done.map_err(|why| Failure::new(ErrorKind::BadRequest, why))?;
    Ok(Json(()).into_response())
}

/// How long to look at workers, and whether that is all.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkersQuery {
    #[serde(default = "one_second")]
    interval_ms: u64,
    #[serde(default)]
    dry_run: bool,
}

const fn one_second() -> u64 {
    1000
}

impl WorkersQuery {
    fn interval(&self) -> Result<Duration, Failure> {
        if (10..=10_000).contains(&self.interval_ms) {
            return Ok(Duration::from_millis(self.interval_ms));
        }
        Err(Failure::new(ErrorKind::BadRequest, "interval_ms must be from 10 to 10000"))
    }
}

async fn workers(
    State(shared): App,
    query: Result<Query<WorkersQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let interval = query?.0.interval()?;
    Ok(Json(call(move || shared.backend.workers(interval)).await?).into_response())
}

/// Who has the most. Parameters are those of [`TopRequest`] and of [`FlowFilter`] together.
async fn top(
    State(shared): App,
    Extension(lasting): Extension<Lasting>,
    uri: Uri,
) -> Result<Response, Failure> {
    // Each by its own type, so that numbers are numbers; serde can only flatten what says its type by itself.
    let (own, filter): (Vec<&str>, Vec<&str>) = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .partition(|pair| TopRequest::NAMES.contains(&pair.split('=').next().unwrap_or_default()));
    let request: TopRequest = query_of(&own)?;
    request.check().map_err(|why| Failure::new(ErrorKind::BadRequest, why))?;
    let filter = shared.filter(query_of(&filter)?)?;
    lasting.watch()?;
    let report = call_last(move || shared.backend.top(&request, &filter).map_err(Failure::from));
    Ok(Json(report.await??).into_response())
}

/// What some of a URL's parameters say.
fn query_of<T: DeserializeOwned>(pairs: &[&str]) -> Result<T, Failure> {
    let uri = Uri::builder().path_and_query(format!("/?{}", pairs.join("&"))).build();
    let uri = uri.map_err(|error| Failure::new(ErrorKind::BadRequest, error.to_string()))?;
    Ok(Query::try_from_uri(&uri)?.0)
}

async fn rebalance(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
    query: Result<Query<WorkersQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = query?.0;
    let interval = query.interval()?;
    if query.dry_run {
        entry.drop_it();
    } else {
        caller.may_write().map_err(|why| Failure::new(ErrorKind::Forbidden, why))?;
    }
    let report = call(move || shared.backend.rebalance(interval, query.dry_run)).await?;
    entry.before(json!({ "busiest_percent": report.before_percent }));
    let moved = report.moves.iter().filter(|one| one.done).count();
    entry.after(json!({ "busiest_percent": report.after_percent, "buckets_moved": moved }));
    Ok(Json(report).into_response())
}

async fn explain(State(shared): App, request: Request) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let answer = call(move || {
        let request: ExplainRequest = understand(&body)?;
        shared.backend.explain(&request).map_err(Failure::from)
    });
    Ok(Json(answer.await??).into_response())
}

async fn apply(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
    request: Request,
) -> Result<Response, Failure> {
    let body = body_of(request, &shared.limits).await?;
    let report = call(move || {
        let request = new_rules(&body)?;
        let files = [&request.v4, &request.v6, &request.sets].into_iter().flatten();
        let files: Vec<&str> = files.map(|text| text.file.as_str()).collect();
        entry.what(with_comment(files.join(" and "), request.comment.as_deref(), request.confirm_secs));
        shared.changed(&entry, move |backend| backend.apply(request, caller.peer))
    });
    Ok(Json(report.await??).into_response())
}

async fn sets(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
    request: Request,
) -> Result<Response, Failure> {
    let body = body_of(request, &shared.limits).await?;
    let answer = call(move || {
        let request: SetsRequest = understand(&body)?;
        if is_looking(&request) {
            entry.drop_it();
        } else {
            entry.what(if request.restore {
                format!("restore {}, {} lines", request.file, request.text.lines().count())
            } else {
                request.text.clone()
            });
            caller.may_write().map_err(|why| Failure::new(ErrorKind::Forbidden, why))?;
        }
        shared.backend.command_sets(&request).map_err(Failure::from)
    });
    Ok(Json(answer.await??).into_response())
}

/// Whether a command about sets changes none.
fn is_looking(request: &SetsRequest) -> bool {
    !request.restore && crate::sets::command::only_looks(request.text.as_bytes())
}

async fn diff(State(shared): App, request: Request) -> Result<Response, Failure> {
    let body = body_of(request, &shared.limits).await?;
    let report = call(move || shared.backend.diff(new_rules(&body)?).map_err(Failure::from));
    Ok(Json(report.await??).into_response())
}

/// New rules for one family at least.
fn new_rules(body: &[u8]) -> Result<ApplyRequest, Failure> {
    let request: ApplyRequest = understand(body)?;
    if request.v4.is_none() && request.v6.is_none() {
        return Err(Failure::new(ErrorKind::BadRequest, "the request has no rules for either family"));
    }
    check_confirm(request.confirm_secs)?;
    Ok(request)
}

/// Whether a change can wait so long for its confirmation.
fn check_confirm(secs: Option<u32>) -> Result<(), Failure> {
    if secs.is_some_and(|secs| !(1..=CONFIRM_MAX_SECS).contains(&secs)) {
        let message = format!("a change can be confirmed within 1 to {CONFIRM_MAX_SECS} seconds");
        return Err(Failure::new(ErrorKind::BadRequest, message));
    }
    Ok(())
}

async fn edit(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
    request: Request,
) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let report = call(move || {
        let request: EditRequest = understand(&body)?;
        check_confirm(request.confirm_secs)?;
        let EditRequest { family, table, edit, chain, words, comment, confirm_secs, .. } = &request;
        let rule = words.join(" ");
        let what = format!("IPv{} {table} {} {chain} {rule}", family.number(), edit.word());
        entry.what(with_comment(what, comment.as_deref(), *confirm_secs));
        shared.changed(&entry, move |backend| backend.edit(request, caller.peer))
    });
    Ok(Json(report.await??).into_response())
}

async fn confirm(State(shared): App, Extension(entry): Extension<Entry>) -> Result<Response, Failure> {
    let confirmed = call(move || shared.backend.confirm()).await??;
    entry.what(format!("ruleset {}", confirmed.number));
    Ok(Json(confirmed).into_response())
}

async fn roll_back(
    State(shared): App,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<Entry>,
    request: Request,
) -> Result<Response, Failure> {
    let body = small_body_of(request, &shared.limits).await?;
    let report = call(move || {
        let request: RollbackRequest = understand(&body)?;
        check_confirm(request.confirm_secs)?;
        let to =
            request.number.map_or_else(|| "what ran before".to_owned(), |number| format!("ruleset {number}"));
        entry.what(with_comment(to, request.comment.as_deref(), request.confirm_secs));
        shared.changed(&entry, move |backend| backend.roll_back(request, caller.peer))
    });
    Ok(Json(report.await??).into_response())
}

async fn history(State(shared): App) -> Result<Response, Failure> {
    Ok(Json(call(move || shared.backend.history()).await?).into_response())
}

/// Which rules of the history.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    number: u64,
    family: Family4Or6,
}

async fn history_rules(
    State(shared): App,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let HistoryQuery { number, family } = query?.0;
    let text = call(move || shared.backend.history_rules(number, family.into())).await??;
    Ok(Json(text).into_response())
}

/// How many records.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    #[serde(default = "twenty")]
    count: usize,
}

const fn twenty() -> usize {
    20
}

async fn audit(
    State(shared): App,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let AuditQuery { count } = query?.0;
    if count > RECORDS_MAX {
        let message = format!("at most {RECORDS_MAX} records are given at once; the file has them all");
        return Err(Failure::new(ErrorKind::BadRequest, message));
    }
    let report: AuditReport = call(move || shared.audit.last(count)).await?;
    Ok(Json(report).into_response())
}

impl Shared {
    /// Changes the rules, and says in the audit log which ran before and which run now.
    fn changed(
        &self,
        entry: &Entry,
        change: impl FnOnce(&dyn Backend) -> Result<ApplyReport, ApplyError>,
    ) -> Result<ApplyReport, Failure> {
        let report = change(&*self.backend)?;
        entry.before(json!({ "ruleset": report.before }));
        entry.after(
            json!({ "ruleset": report.number, "generation": report.generation, "rules": report.rules }),
        );
        Ok(report)
    }
}

/// A change in words, with what its author said about it.
fn with_comment(what: String, comment: Option<&str>, confirm_secs: Option<u32>) -> String {
    let mut what = what;
    if let Some(secs) = confirm_secs {
        what.push_str(&format!(", to be confirmed within {secs} s"));
    }
    if let Some(comment) = comment {
        what.push_str(&format!("  # {comment}"));
    }
    what
}

/// A request as it goes into the audit log.
fn json(request: &impl serde::Serialize) -> String {
    serde_json::to_string(request).unwrap_or_default()
}
