//! The control API's server, and the metrics page.
//!
//! Over the Unix socket, the file's permissions say who may speak; over HTTP, see `access.rs`. Everything
//! that may wait for the disk or for a large list runs beside the control runtime's one thread.

mod incidents;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dnscrub_packet_filter::{AddError, AddOutcome, Entry, EntryFilter, Origin};
use dnscrub_scoring::{Action, Transport};
use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::api::{
    AddReply, AddRequest, BandStatus, BlocklistStatus, ConfigurationStatus, Covering, ExplainQuery,
    Failure, ImportQuery, IncidentRow, LevelsPage, ListFileStatus, ListPage, ListQuery,
    ListenerStatus, PrefixQuery, QueryCounts, RouteChange, RouteReply, RoutesPage, RuleStatus,
    SignalStatus, SignalsPage, Status, TestQuery, UpstreamCounts, VERSION_HEADER, parse_lifetime,
    parse_prefix,
};
use super::socket::{self, SocketFile};
use super::{access, page};
use crate::blocklist::{BlocklistOwner, Change, RemoveError, SaveFailure};
use crate::config::runtime::Startup;
use crate::metrics;
use crate::notify::{NotifyStatus, TestResult};
use crate::outcome::Outcome;
use crate::supervisor::Supervisor;

pub use super::socket::BindError;

/// Entries of a page when nothing else is asked for, and at most.
const USUAL_PAGE: usize = 100;
const LARGEST_PAGE: usize = 10_000;
/// Octets of an import.
const LARGEST_IMPORT: usize = 64 << 20;

/// Why the control side does not listen.
#[derive(Debug)]
pub enum StartError {
    /// The Unix socket.
    Socket(BindError),
    /// An HTTP address.
    Http {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        failure: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(failure) => failure.fmt(formatter),
            Self::Http {
                setting,
                address,
                failure,
            } => {
                write!(
                    formatter,
                    "cannot listen on {address} (`{setting}`): {failure}"
                )
            }
        }
    }
}

impl std::error::Error for StartError {}

/// The listening control side. Dropping it ends it and removes the socket's file.
#[derive(Debug)]
pub struct ControlServer {
    tasks: Vec<JoinHandle<()>>,
    /// Where metrics are served: as configured, but with the port that was taken for port 0.
    pub metrics: Option<SocketAddr>,
    /// Where the API is served over HTTP, in the same way.
    pub http: Option<SocketAddr>,
    _socket: SocketFile,
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Where the control side listens, before anybody is answered: who asks meanwhile waits.
#[derive(Debug)]
pub struct Doors {
    socket: (UnixListener, SocketFile),
    http: Option<(TcpListener, SocketAddr)>,
    metrics: Option<(TcpListener, SocketAddr)>,
}

/// Opens the control socket and, where they are configured, the HTTP addresses.
///
/// # Errors
/// The first that cannot be opened; nothing listens then.
pub async fn open(startup: &Startup) -> Result<Doors, StartError> {
    let control = &startup.control;
    let socket = socket::bind(&control.socket, control.socket_mode).map_err(StartError::Socket)?;
    let mut doors = Doors {
        socket,
        http: None,
        metrics: None,
    };
    if let Some(http) = &control.http {
        doors.http = Some(listen("control.http.address", http.address).await?);
    }
    if let Some(address) = startup.metrics {
        doors.metrics = Some(listen("metrics.address", address).await?);
    }
    Ok(doors)
}

impl Doors {
    /// Answers from now on.
    #[must_use]
    pub fn serve(self, supervisor: &Arc<Supervisor>) -> ControlServer {
        let (listener, file) = self.socket;
        let mut server = ControlServer {
            tasks: Vec::new(),
            metrics: None,
            http: None,
            _socket: file,
        };
        let api = api(supervisor);
        if let Some((listener, address)) = self.http {
            let http = supervisor.startup.control.http.as_ref();
            let token = http.and_then(|http| http.token.as_deref());
            // the page's own files hold nothing secret, and somebody without the token must see where to enter it
            let router = access::guarded(api.clone(), token).merge(page::router());
            info!(%address, "status page and control API over HTTP");
            server.http = Some(address);
            server.tasks.push(tokio::spawn(serve(listener, router)));
        }
        if let Some((listener, address)) = self.metrics {
            info!(%address, "metrics");
            server.metrics = Some(address);
            server
                .tasks
                .push(tokio::spawn(serve(listener, metrics_only(supervisor))));
        }
        server.tasks.push(tokio::spawn(serve(listener, api)));
        server
    }
}

/// Opens the doors of a program that serves already, and answers.
///
/// # Errors
/// As for [`open`].
pub async fn start(supervisor: &Arc<Supervisor>) -> Result<ControlServer, StartError> {
    Ok(open(&supervisor.startup).await?.serve(supervisor))
}

async fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |failure| StartError::Http {
        setting,
        address,
        failure,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

async fn serve<L>(listener: L, router: Router)
where
    L: axum::serve::Listener,
    L::Addr: fmt::Debug,
{
    if let Err(failure) = axum::serve(listener, router).await {
        error!(%failure, "the control side no longer listens");
    }
}

fn api(supervisor: &Arc<Supervisor>) -> Router {
    let blocklist = get(list).post(add).delete(remove);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/blocklist", blocklist)
        .route("/v1/blocklist/entry", get(covering))
        .route(
            "/v1/blocklist/import",
            post(import).layer(DefaultBodyLimit::max(LARGEST_IMPORT)),
        )
        .route("/v1/blocklist/export", get(export))
        .route("/v1/blocklist/stats", get(stats))
        .route("/v1/upstreams", get(upstreams))
        .route("/v1/zones", get(zones))
        .route("/v1/rules", get(rules))
        .route("/v1/levels", get(levels))
        .route("/v1/signals", get(signals))
        .route("/v1/notify", get(notify_status))
        .route("/v1/notify/test", post(notify_test))
        .route("/v1/routes", get(routes))
        .route("/v1/routes/announce", post(announce_route))
        .route("/v1/routes/approve", post(approve_route))
        .route("/v1/routes/withdraw", post(withdraw_route))
        .route("/v1/explain", post(explain))
        .route("/v1/reload", post(reload))
        .route("/metrics", get(metrics_page))
        .merge(incidents::routes())
        .fallback(|| async {
            failed(
                StatusCode::NOT_FOUND,
                Failure::new("there is nothing at this path"),
            )
        })
        .method_not_allowed_fallback(|| async {
            failed(
                StatusCode::METHOD_NOT_ALLOWED,
                Failure::new("this path takes another method"),
            )
        })
        .layer(middleware::map_response(name_version))
        .with_state(Arc::clone(supervisor))
}

fn metrics_only(supervisor: &Arc<Supervisor>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .fallback(|| async {
            failed(
                StatusCode::NOT_FOUND,
                Failure::new("metrics are at /metrics"),
            )
        })
        .with_state(Arc::clone(supervisor))
}

async fn name_version(mut response: Response) -> Response {
    response.headers_mut().insert(
        VERSION_HEADER,
        HeaderValue::from_static(env!("CARGO_PKG_VERSION")),
    );
    response
}

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) failure: Box<Failure>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.failure)).into_response()
    }
}

pub(super) fn failed(status: StatusCode, failure: Failure) -> Refusal {
    Refusal {
        status,
        failure: Box::new(failure),
    }
}

fn bad_request(failure: Failure) -> Refusal {
    failed(StatusCode::BAD_REQUEST, failure)
}

type Answer<T> = Result<Json<T>, Refusal>;

/// Runs what may wait beside the control thread.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            Failure::new("this request failed inside dnscrub: see its log"),
        )
    })
}

/// The query part of the address.
fn asked<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    Query::try_from_uri(uri)
        .map(|Query(asked)| asked)
        .map_err(|failure| bad_request(Failure::new(failure.body_text())))
}

fn body<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|failure| {
        bad_request(Failure::new(format!(
            "the body is not what this path expects: {failure}"
        )))
    })
}

/// A change of the blocklist is answered well only if it is on the disk.
fn saved<T: Serialize>(change: Change<T>) -> Answer<T> {
    match change.unsaved {
        None => Ok(Json(change.value)),
        Some(failure) => Err(unsaved(&failure)),
    }
}

fn unsaved(failure: &SaveFailure) -> Refusal {
    let failure = Failure::new(format!(
        "the change is in force, but it is not saved: {failure}"
    ))
    .with_hint("a restart would lose it; saving is tried again until it succeeds");
    failed(StatusCode::INSUFFICIENT_STORAGE, failure)
}

async fn status(State(supervisor): State<Arc<Supervisor>>) -> Answer<Status> {
    beside(move || {
        let shared = &supervisor.shared;
        let policy = shared.policy.load();
        let defence = shared.defence.load();
        let orders = shared.orders.load();
        let history = supervisor.history();
        let upstreams = policy.forwarding.snapshot(Instant::now());
        Json(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: shared.started,
            uptime_seconds: shared.epoch.elapsed().as_secs_f64(),
            workers: shared.counters.len(),
            configuration: ConfigurationStatus {
                file: supervisor.config_path.display().to_string(),
                generation: policy.generation,
                loaded: history.loaded,
                reload_failure: history.failure,
            },
            listeners: supervisor
                .startup
                .listeners
                .iter()
                .map(listener_status)
                .collect(),
            udp: query_counts(&supervisor, Transport::Udp),
            tcp: query_counts(&supervisor, Transport::Tcp),
            upstreams: UpstreamCounts {
                total: upstreams.len(),
                usable: upstreams
                    .iter()
                    .filter(|upstream| upstream.state != "down")
                    .count(),
            },
            pools: policy.forwarding.pool_snapshots(),
            proxy_pressure: metrics::thousandths(
                shared
                    .counters
                    .iter()
                    .map(|worker| worker.own_pressure.get())
                    .max()
                    .unwrap_or(0),
            ),
            level: defence.status(&policy.zones, &orders).into_iter().next(),
            levels_by_hand: orders.by_hand.clone(),
            incidents: open_incidents(&supervisor),
            alarmed_zones: defence.levels.suffixes.len(),
            rules: policy.scoring.rules().count(),
            blocklist: blocklist_status(&supervisor.blocklist),
            kernel: shared.kernel.status(&policy.kernel),
        })
    })
    .await
}

/// The incidents that are going on, the newest first.
fn open_incidents(supervisor: &Supervisor) -> Vec<IncidentRow> {
    let all = supervisor.shared.incidents.all();
    let open = all.iter().filter(|incident| incident.is_open());
    open.map(|incident| IncidentRow::of(incident)).collect()
}

fn listener_status(listener: &crate::config::runtime::Listener) -> ListenerStatus {
    let transports = [(listener.udp, "udp"), (listener.tcp, "tcp")];
    ListenerStatus {
        name: listener.name.clone(),
        addresses: listener
            .addresses
            .iter()
            .map(SocketAddr::to_string)
            .collect(),
        transports: transports
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| name.to_owned())
            .collect(),
    }
}

fn query_counts(supervisor: &Supervisor, transport: Transport) -> QueryCounts {
    let workers = &supervisor.shared.counters;
    let mut counts = QueryCounts {
        received: workers
            .iter()
            .map(|worker| worker.queries(transport).received())
            .sum(),
        in_flight: workers
            .iter()
            .map(|worker| match transport {
                Transport::Udp => worker.in_flight_udp.get(),
                Transport::Tcp => worker.in_flight_tcp.get(),
            })
            .sum(),
        queued: match transport {
            Transport::Udp => workers.iter().map(|worker| worker.queued.get()).sum(),
            // over TCP nothing waits: what a client may have in flight is limited
            Transport::Tcp => 0,
        },
        ..QueryCounts::default()
    };
    for (outcome, count) in metrics::outcomes(workers, transport) {
        match outcome {
            Outcome::Forwarded => counts.forwarded += count,
            Outcome::Answered(..) => counts.answered += count,
            Outcome::Dropped(_) => counts.dropped += count,
            Outcome::Expired => counts.expired += count,
        }
    }
    counts
}

fn blocklist_status(blocklist: &BlocklistOwner) -> BlocklistStatus {
    let stats = blocklist.stats();
    let saving = blocklist.save_state();
    let files = blocklist.lists().into_iter().map(|list| {
        let counts = stats.lists.iter().find(|counts| counts.name == list.name);
        ListFileStatus {
            entries: counts.map_or(0, |counts| counts.entries),
            duplicates: counts.map_or(0, |counts| counts.duplicates),
            name: list.name,
            loaded: list.loaded,
            failure: list.failure,
        }
    });
    BlocklistStatus {
        static_entries: stats.static_entries,
        static_limit: stats.static_limit,
        dynamic_entries: stats.dynamic_entries,
        dynamic_limit: stats.dynamic_limit,
        expired: stats.expired,
        evicted: stats.evicted,
        refused: blocklist.refused_blocks(),
        state_file: saving.path.display().to_string(),
        unsaved: saving.failure.map(|failure| failure.to_string()),
        files: files.collect(),
    }
}

async fn stats(State(supervisor): State<Arc<Supervisor>>) -> Answer<BlocklistStatus> {
    beside(move || Json(blocklist_status(&supervisor.blocklist))).await
}

fn filter(query: &ListQuery) -> Result<EntryFilter, Refusal> {
    if let Some(origin) = &query.origin {
        let kind = origin.split(':').next().unwrap_or_default();
        if !["list", "rule", "incident", "api", "cli"].contains(&kind) {
            return Err(bad_request(Failure::new(format!(
                "found origin \"{}\", expected list, rule, incident, api or cli, or one of these with a name, such as rule:NAME",
                origin.escape_debug()
            ))));
        }
    }
    let within = query
        .within
        .as_deref()
        .map(parse_prefix)
        .transpose()
        .map_err(bad_request)?;
    Ok(EntryFilter {
        origin: query.origin.clone(),
        within,
        reason: query.reason.clone(),
    })
}

async fn list(State(supervisor): State<Arc<Supervisor>>, uri: Uri) -> Answer<ListPage> {
    let query: ListQuery = asked(&uri)?;
    let filter = filter(&query)?;
    let offset = query.offset.unwrap_or(0);
    let limit = query.limit.unwrap_or(USUAL_PAGE).min(LARGEST_PAGE);
    let (entries, total) =
        beside(move || supervisor.blocklist.list(&filter, offset, limit)).await?;
    Ok(Json(ListPage {
        total,
        offset,
        entries,
    }))
}

async fn export(State(supervisor): State<Arc<Supervisor>>, uri: Uri) -> Result<Response, Refusal> {
    let query: ListQuery = asked(&uri)?;
    let filter = filter(&query)?;
    let (offset, limit) = (query.offset.unwrap_or(0), query.limit.unwrap_or(usize::MAX));
    let text = beside(move || {
        let (entries, _) = supervisor.blocklist.list(&filter, offset, limit);
        entries.iter().fold(String::new(), |mut text, entry| {
            text.push_str(&entry.list_line());
            text.push('\n');
            text
        })
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

async fn covering(State(supervisor): State<Arc<Supervisor>>, uri: Uri) -> Answer<Covering> {
    let PrefixQuery { prefix } = asked(&uri)?;
    let prefix = parse_prefix(&prefix).map_err(bad_request)?;
    beside(move || {
        let entries = supervisor.blocklist.show(prefix);
        let never_blocked = supervisor.blocklist.never_blocked(prefix);
        let blocked =
            never_blocked.is_none() && entries.iter().any(|entry| entry.prefix.contains(&prefix));
        Json(Covering {
            prefix,
            blocked,
            never_blocked,
            entries,
        })
    })
    .await
}

async fn add(State(supervisor): State<Arc<Supervisor>>, bytes: Bytes) -> Answer<AddReply> {
    let AddRequest {
        prefix,
        lifetime,
        reason,
        by,
    } = body(&bytes)?;
    let prefix = parse_prefix(&prefix).map_err(bad_request)?;
    let lifetime = parse_lifetime(lifetime.as_deref()).map_err(bad_request)?;
    let added = beside(move || {
        let change = supervisor
            .blocklist
            .add(prefix, &reason, by.into(), lifetime)?;
        let entry = supervisor
            .blocklist
            .show(prefix)
            .into_iter()
            .find(|entry| is_dynamic(entry, prefix));
        let reply = AddReply {
            added: change.value.outcome == AddOutcome::Added,
            entry,
            evicted: change.value.evicted,
        };
        info!(%prefix, %reason, ?lifetime, "blocked by an operator");
        Ok(Change {
            value: reply,
            unsaved: change.unsaved,
        })
    })
    .await?;
    saved(added.map_err(|refusal: AddError| {
        let failure = Failure::new(format!("{prefix} was not blocked: {refusal}"));
        failed(StatusCode::CONFLICT, failure)
    })?)
}

fn is_dynamic(entry: &Entry, prefix: IpNet) -> bool {
    entry.prefix == prefix.trunc() && !matches!(entry.origin, Origin::List(_))
}

async fn remove(State(supervisor): State<Arc<Supervisor>>, uri: Uri) -> Answer<Entry> {
    let PrefixQuery { prefix } = asked(&uri)?;
    let prefix = parse_prefix(&prefix).map_err(bad_request)?;
    let removed = beside(move || supervisor.blocklist.remove(prefix)).await?;
    match removed {
        Ok(change) => {
            info!(%prefix, "block removed by an operator");
            saved(change)
        }
        Err(RemoveError::Listed(file)) => Err(failed(
            StatusCode::CONFLICT,
            Failure::new(format!("{prefix} is blocked by the list file {file}")).with_hint(
                "take it out of the file, or add it to `blocklist.never-block` and reload",
            ),
        )),
        Err(RemoveError::NotThere(near)) => {
            let failure = Failure::new(format!("there is no entry for {prefix}"));
            let failure = match near.first() {
                Some(entry) => failure.with_hint(format!(
                    "{} ({}) is near: name exactly that prefix",
                    entry.prefix, entry.origin
                )),
                None => failure,
            };
            Err(failed(StatusCode::NOT_FOUND, failure))
        }
    }
}

async fn import(
    State(supervisor): State<Arc<Supervisor>>,
    uri: Uri,
    text: Bytes,
) -> Answer<crate::blocklist::ImportReport> {
    let ImportQuery {
        lifetime,
        reason,
        by,
    } = asked(&uri)?;
    let lifetime = parse_lifetime(lifetime.as_deref()).map_err(bad_request)?;
    let imported = beside(move || {
        let reason = reason.unwrap_or_default();
        supervisor
            .blocklist
            .import(&text, &reason, &by.into(), lifetime)
    })
    .await?;
    saved(imported.map_err(|failure| {
        bad_request(Failure::new(failure.to_string()).with_hint(
            "nothing was imported; each line is a prefix, and may have a reason after it",
        ))
    })?)
}

async fn upstreams(State(supervisor): State<Arc<Supervisor>>) -> Json<super::api::Upstreams> {
    Json(
        supervisor
            .shared
            .policy
            .load()
            .forwarding
            .snapshot(Instant::now()),
    )
}

async fn zones(State(supervisor): State<Arc<Supervisor>>) -> Json<super::api::Zones> {
    Json(supervisor.zones.status())
}

async fn rules(State(supervisor): State<Arc<Supervisor>>) -> Json<Vec<RuleStatus>> {
    let policy = supervisor.shared.policy.load();
    let rules = policy.scoring.rules().map(|rule| RuleStatus {
        name: rule.name.to_owned(),
        observe: rule.observe,
        from_level: rule.from_level.label().to_owned(),
        matched: rule.matched,
        acted: Action::ALL
            .into_iter()
            .map(|action| (action.label().to_owned(), rule.acted(action)))
            .collect::<BTreeMap<_, _>>(),
        held_back: rule.held_back,
        routed: rule.routed,
    });
    Json(rules.collect())
}

async fn levels(State(supervisor): State<Arc<Supervisor>>) -> Json<LevelsPage> {
    let policy = supervisor.shared.policy.load();
    let orders = supervisor.shared.orders.load();
    let defence = supervisor.shared.defence.load();
    Json(defence.status(&policy.zones, &orders))
}

async fn signals(State(supervisor): State<Arc<Supervisor>>) -> Json<SignalsPage> {
    let policy = supervisor.shared.policy.load();
    let defence = supervisor.shared.defence.load();
    let signals = policy.scoring.signals().into_iter().map(|signal| {
        let mut alarms = defence.levels.signals.iter();
        let alarm = alarms.find(|alarm| alarm.signal == signal.name);
        SignalStatus {
            name: signal.name.to_owned(),
            observe: signal.observe,
            queries: signal.queries,
            points: signal.points,
            held_back: signal.held_back,
            level: alarm.map(|alarm| alarm.level.label().to_owned()),
            rate: alarm.map(|alarm| alarm.rate),
            usual: alarm.map(|alarm| alarm.usual),
        }
    });
    let bands = policy.scoring.bands().map(|band| BandStatus {
        name: band.name,
        at: band.at,
        under_pressure: band.under_pressure,
        observe: band.observe,
        acted: band.acted,
        held_back: band.held_back,
    });
    Json(SignalsPage {
        observe: policy.scoring.is_observing(),
        signals: signals.collect(),
        bands: bands.collect(),
    })
}

async fn notify_status(State(supervisor): State<Arc<Supervisor>>) -> Json<NotifyStatus> {
    Json(supervisor.notifier.status())
}

async fn notify_test(
    State(supervisor): State<Arc<Supervisor>>,
    uri: Uri,
) -> Answer<Vec<TestResult>> {
    let TestQuery { destination } = asked(&uri)?;
    let tested = beside(move || supervisor.notifier.test(destination.as_deref())).await?;
    tested.map(Json).map_err(|unknown| {
        let failure = Failure::new("there is no destination of this name");
        let failure = match unknown.known.is_empty() {
            true => failure.with_hint("there are no destinations under `notify`"),
            false => failure.with_hint(format!("there are: {}", unknown.known.join(", "))),
        };
        failed(StatusCode::NOT_FOUND, failure)
    })
}

async fn routes(State(supervisor): State<Arc<Supervisor>>) -> Json<RoutesPage> {
    Json(supervisor.shared.routes.page(&supervisor.shared))
}

async fn announce_route(
    State(supervisor): State<Arc<Supervisor>>,
    octets: Bytes,
) -> Answer<RouteReply> {
    let shared = &supervisor.shared;
    let done = shared.routes.announce(shared, &body(&octets)?);
    route_reply(done)
}

async fn approve_route(
    State(supervisor): State<Arc<Supervisor>>,
    octets: Bytes,
) -> Answer<RouteReply> {
    let RouteChange { id, all } = body(&octets)?;
    let shared = &supervisor.shared;
    match id {
        Some(id) if !all => route_reply(shared.routes.approve(shared, &id).map(|done| vec![done])),
        _ => Err(bad_request(Failure::new("expected the `id` of a route"))),
    }
}

async fn withdraw_route(
    State(supervisor): State<Arc<Supervisor>>,
    octets: Bytes,
) -> Answer<RouteReply> {
    let RouteChange { id, all } = body(&octets)?;
    let shared = &supervisor.shared;
    match (id, all) {
        (Some(id), false) => {
            route_reply(shared.routes.withdraw(shared, &id).map(|done| vec![done]))
        }
        (None, true) => {
            let count = shared.routes.withdraw_all(shared);
            route_reply(Ok(vec![format!("withdrew {count}")]))
        }
        _ => Err(bad_request(Failure::new(
            "expected either the `id` of a route or `all`",
        ))),
    }
}

fn route_reply(done: Result<Vec<String>, String>) -> Answer<RouteReply> {
    match done {
        Ok(done) => Ok(Json(RouteReply { done })),
        Err(why) => Err(failed(StatusCode::CONFLICT, Failure::new(why))),
    }
}

async fn explain(
    State(supervisor): State<Arc<Supervisor>>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let query: ExplainQuery = body(&bytes)?;
    let listeners: Vec<&str> = supervisor
        .startup
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    let request = query.request(&listeners).map_err(bad_request)?;
    match supervisor.explain(request).await {
        Some(explanation) => Ok(Json(explanation).into_response()),
        None => Err(failed(
            StatusCode::SERVICE_UNAVAILABLE,
            Failure::new("no worker answers: dnscrub is starting or stopping"),
        )),
    }
}

async fn reload(State(supervisor): State<Arc<Supervisor>>) -> Result<Response, Refusal> {
    match supervisor.reload().await {
        Ok(report) => Ok(Json(report).into_response()),
        Err(problems) => Err(failed(
            StatusCode::UNPROCESSABLE_ENTITY,
            Failure {
                error: format!("the old configuration stays in force:\n{problems}"),
                hint: Some("mend it, try it with `dnscrub check`, and reload again".to_owned()),
                problems: serde_json::to_value(&problems).ok(),
            },
        )),
    }
}

async fn metrics_page(State(supervisor): State<Arc<Supervisor>>) -> Result<Response, Refusal> {
    let text = beside(move || metrics::exposition(&supervisor)).await?;
    Ok((
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        Body::from(text),
    )
        .into_response())
}

#[cfg(test)]
mod tests {

    use axum::http::Method;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::control::client::{Client, ClientError, Refused};
    use crate::control::testing::{PLAIN, Program, program};

    struct Served {
        program: Program,
        server: ControlServer,
        client: Client,
    }

    async fn served(yaml: &str) -> Served {
        let program = program(yaml);
        let server = start(&program.supervisor).await.unwrap();
        let client = Client::new(program.supervisor.startup.control.socket.clone());
        Served {
            program,
            server,
            client,
        }
    }

    impl Served {
        async fn get(&self, path: &str) -> Value {
            self.client
                .json(Method::GET, path, Vec::new())
                .await
                .unwrap()
        }

        async fn post(&self, path: &str, body: Value) -> Value {
            self.client
                .json(Method::POST, path, body.to_string().into_bytes())
                .await
                .unwrap()
        }

        async fn refused(&self, method: Method, path: &str, body: &str) -> Refused {
            let failure = self
                .client
                .json::<Value>(method, path, body.as_bytes().to_vec())
                .await
                .unwrap_err();
            let ClientError::Refused(refused) = failure else {
                panic!("{failure}")
            };
            refused
        }
    }

    #[tokio::test]
    async fn the_blocklist_is_changed_listed_and_shown() {
        let served = served(PLAIN).await;
        let added = served
            .post("/v1/blocklist", json!({"prefix": "192.0.2.0/24", "lifetime": "10m", "reason": "flood", "by": "cli"}))
            .await;
        assert_eq!(added["added"], true);
        assert_eq!(added["entry"]["prefix"], "192.0.2.0/24");
        assert_eq!(added["entry"]["origin"], "cli");
        assert!(added["entry"]["expires"].is_string());
        assert!(
            served
                .program
                .supervisor
                .shared
                .blocklist
                .load()
                .lookup("192.0.2.1".parse().unwrap())
                .is_some()
        );

        let shown = served.get("/v1/blocklist/entry?address=192.0.2.77").await;
        assert_eq!(
            (&shown["blocked"], &shown["entries"][0]["reason"]),
            (&json!(true), &json!("flood"))
        );
        let shown = served.get("/v1/blocklist/entry?address=198.51.100.1").await;
        assert_eq!(
            (&shown["blocked"], &shown["entries"]),
            (&json!(false), &json!([]))
        );

        let imported: Value = served
            .client
            .json(
                Method::POST,
                "/v1/blocklist/import?reason=ticket",
                b"198.51.100.0/24\n2001:db8::/48 own\n".to_vec(),
            )
            .await
            .unwrap();
        assert_eq!(imported["added"], 2);
        let page = served.get("/v1/blocklist?origin=api&limit=1").await;
        assert_eq!(
            (&page["total"], page["entries"].as_array().unwrap().len()),
            (&json!(2), 1)
        );
        let page = served.get("/v1/blocklist?within=2001:db8::/32").await;
        assert_eq!(page["entries"][0]["reason"], "own");
        let text = served
            .client
            .text(Method::GET, "/v1/blocklist/export", Vec::new())
            .await
            .unwrap();
        assert_eq!(
            text,
            "192.0.2.0/24 # flood\n198.51.100.0/24 # ticket\n2001:db8::/48 # own\n"
        );

        let removed: Value = served
            .client
            .json(
                Method::DELETE,
                "/v1/blocklist?prefix=192.0.2.0/24",
                Vec::new(),
            )
            .await
            .unwrap();
        assert_eq!(removed["reason"], "flood");
        let stats = served.get("/v1/blocklist/stats").await;
        assert_eq!(
            (&stats["dynamic_entries"], &stats["unsaved"]),
            (&json!(2), &Value::Null)
        );
    }

    #[tokio::test]
    async fn refusals_say_what_is_wrong_and_what_to_do() {
        let served = served(PLAIN).await;
        for (method, path, body, status, said) in [
            (
                Method::GET,
                "/v1/nothing",
                "",
                404,
                "there is nothing at this path",
            ),
            (Method::PUT, "/v1/blocklist", "", 405, "another method"),
            (
                Method::POST,
                "/v1/blocklist",
                "{",
                400,
                "the body is not what this path expects",
            ),
            (
                Method::POST,
                "/v1/blocklist",
                r#"{"prefix":"192.0.2.0/33"}"#,
                400,
                "found \"192.0.2.0/33\"",
            ),
            (
                Method::POST,
                "/v1/blocklist",
                r#"{"prefix":"192.0.2.1","lifetime":"x"}"#,
                400,
                "expected a time",
            ),
            (
                Method::POST,
                "/v1/blocklist",
                r#"{"prefix":"192.0.2.1","unknown":1}"#,
                400,
                "unknown field",
            ),
            (
                Method::POST,
                "/v1/blocklist",
                r#"{"prefix":"203.0.113.7"}"#,
                409,
                "never blocked",
            ),
            (
                Method::DELETE,
                "/v1/blocklist?prefix=192.0.2.1",
                "",
                404,
                "there is no entry for 192.0.2.1/32",
            ),
            (Method::DELETE, "/v1/blocklist", "", 400, "missing field"),
            (
                Method::GET,
                "/v1/blocklist?origin=me",
                "",
                400,
                "expected list, rule",
            ),
            (
                Method::GET,
                "/v1/blocklist?within=x",
                "",
                400,
                "found \"x\"",
            ),
            (Method::GET, "/v1/blocklist?limit=x", "", 400, "limit"),
            (
                Method::POST,
                "/v1/blocklist/import",
                "192.0.2.1\nbad\n",
                400,
                "line 2",
            ),
            (
                Method::POST,
                "/v1/explain",
                r#"{"source":"192.0.2.1","qname":"a..b"}"#,
                400,
                "expected a domain name",
            ),
            (
                Method::POST,
                "/v1/explain",
                r#"{"source":"192.0.2.1","qname":"a"}"#,
                503,
                "no worker answers",
            ),
        ] {
            let refused = served.refused(method.clone(), path, body).await;
            assert_eq!(
                refused.status, status,
                "{method} {path} {body}: {}",
                refused.failure.error
            );
            assert!(
                refused.failure.error.contains(said),
                "{method} {path} {body}: {}",
                refused.failure.error
            );
        }
    }

    #[tokio::test]
    async fn what_cannot_be_saved_is_an_error_though_it_is_in_force() {
        let served = served(PLAIN).await;
        let draft = served.program.folder.path().join("blocklist.json.new");
        std::os::unix::fs::symlink("/dev/full", draft).unwrap();
        let refused = served
            .refused(
                Method::POST,
                "/v1/blocklist",
                r#"{"prefix":"192.0.2.0/24"}"#,
            )
            .await;
        assert_eq!(refused.status, 507);
        assert!(
            refused
                .failure
                .error
                .starts_with("the change is in force, but it is not saved: cannot write ")
        );
        assert!(refused.failure.error.contains("No space left on device"));
        assert!(
            served
                .program
                .supervisor
                .shared
                .blocklist
                .load()
                .lookup("192.0.2.1".parse().unwrap())
                .is_some()
        );
    }

    #[tokio::test]
    async fn status_rules_and_upstreams_are_told() {
        let served = served(PLAIN).await;
        served.program.supervisor.shared.counters[0]
            .queries(Transport::Udp)
            .receive();
        served.program.supervisor.shared.counters[0]
            .queries(Transport::Udp)
            .settle(Outcome::Forwarded);
        let status: Status = serde_json::from_value(served.get("/v1/status").await).unwrap();
        assert_eq!(
            (
                status.udp.received,
                status.udp.forwarded,
                status.tcp.received
            ),
            (1, 1, 0)
        );
        assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(status.listeners[0].transports, ["udp", "tcp"]);
        assert_eq!(
            status.upstreams,
            UpstreamCounts {
                total: 1,
                usable: 1
            }
        );
        let rules: Vec<RuleStatus> = serde_json::from_value(served.get("/v1/rules").await).unwrap();
        assert_eq!(
            (
                rules[0].name.as_str(),
                rules[0].observe,
                rules[0].acted["drop"]
            ),
            ("no-any", false, 0)
        );
        let upstreams = served.get("/v1/upstreams").await;
        assert_eq!(upstreams[0]["address"], "127.0.0.1:5301");
    }

    #[tokio::test]
    async fn levels_signals_and_bands_are_told() {
        use dnscrub_scoring::{Level, Levels, SignalAlarm};

        use crate::defence::LevelStatus;

        let zones = "zones: [ { name: example.org } ]\n";
        let served = served(&(PLAIN.to_owned() + zones)).await;
        let shared = &served.program.supervisor.shared;
        let levels = Levels {
            signals: vec![SignalAlarm {
                signal: "loyalty",
                level: Level::Attack,
                rate: 900.0,
                usual: 2.5,
            }],
            suffixes: Vec::new(),
        };
        let (defence, _) = shared.defence.load().next(levels, shared.started);
        shared.defence.store(Arc::new(defence));
        let told: LevelsPage = serde_json::from_value(served.get("/v1/levels").await).unwrap();
        assert_eq!(
            (told[0].scope.as_str(), told[0].level.as_str(), told[0].rate),
            ("whole", "attack", Some(900.0))
        );
        let LevelStatus {
            scope, level, why, ..
        } = &told[1];
        assert_eq!(
            (scope.as_str(), level.as_str(), why),
            ("example.org", "calm", &None)
        );
        let page: SignalsPage = serde_json::from_value(served.get("/v1/signals").await).unwrap();
        let loyalty = page
            .signals
            .iter()
            .find(|signal| signal.name == "loyalty")
            .unwrap();
        assert_eq!(
            (loyalty.level.as_deref(), loyalty.usual, loyalty.queries),
            (Some("attack"), Some(2.5), 0)
        );
        assert!(page.bands.iter().any(|band| band.name.starts_with("drop-")));
        let status: Status = serde_json::from_value(served.get("/v1/status").await).unwrap();
        assert_eq!(status.level.unwrap().level, "attack");
        let metrics = served
            .client
            .text(Method::GET, "/metrics", Vec::new())
            .await
            .unwrap();
        for line in [
            "dnscrub_defence_level{scope=\"whole\"} 2",
            "dnscrub_zone_defence_level{zone=\"example.org\"} 0",
            "dnscrub_alarm_rate{signal=\"loyalty\"} 900",
            "dnscrub_signal_points_total{signal=\"shape\"} 0",
            "dnscrub_learned_saves_total{result=\"put-off\"} 0",
        ] {
            assert!(
                metrics.contains(&format!("\n{line}\n")),
                "{line}: {metrics}"
            );
        }
    }

    #[tokio::test]
    async fn a_bad_configuration_is_refused_with_its_problems() {
        let served = served(PLAIN).await;
        let report = served.post("/v1/reload", Value::Null).await;
        let before = report["generation"].as_u64().unwrap();
        std::fs::write(&served.program.supervisor.config_path, "listen: nonsense\n").unwrap();
        let refused = served.refused(Method::POST, "/v1/reload", "").await;
        assert_eq!(refused.status, 422);
        assert!(
            refused
                .failure
                .error
                .contains("the old configuration stays in force")
        );
        assert!(refused.failure.problems.unwrap()[0]["message"].is_string());
        let status: Status = serde_json::from_value(served.get("/v1/status").await).unwrap();
        assert_eq!(status.configuration.generation, before);
        assert!(status.configuration.reload_failure.is_some());
    }

    async fn raw(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A program that listens over HTTP, and where.
    async fn over_http(token: Option<&str>) -> (Program, ControlServer, SocketAddr) {
        let mut program = program(PLAIN);
        let startup = &mut Arc::get_mut(&mut program.supervisor).unwrap().startup;
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        startup.control.http = Some(crate::config::runtime::ControlHttp {
            address: local,
            token: token.map(str::to_owned),
        });
        startup.metrics = Some(local);
        let server = start(&program.supervisor).await.unwrap();
        let address = server.http.unwrap();
        (program, server, address)
    }

    async fn ask_raw(address: SocketAddr, request: &str, headers: &str) -> String {
        let request = format!("{request} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        raw(address, &request).await
    }

    #[tokio::test]
    async fn without_a_token_this_machine_may_look_and_the_page_is_there() {
        let (_program, _server, address) = over_http(None).await;
        let host = format!("Host: {address}\r\n");
        for (request, headers, status) in [
            ("GET /v1/status", host.as_str(), "200"),
            ("GET /v1/live?since=12.5", &host, "200"),
            ("GET /v1/incidents", &host, "200"),
            ("GET /v1/incidents/7", &host, "404"),
            ("GET /v1/incidents/%1b", &host, "400"),
            ("GET /metrics", &host, "200"),
            ("GET /nowhere", &host, "404"),
            ("GET /v1/status", "Host: evil.example\r\n", "403"),
            ("GET /metrics", "Host: evil.example\r\n", "403"),
            ("POST /v1/reload", &host, "403"),
            ("DELETE /v1/blocklist?address=192.0.2.1", &host, "403"),
            // what it takes to ask for the token, or to say why there is nothing to see
            ("GET /", "Host: evil.example\r\n", "200"),
            ("GET /page/main.js", &host, "200"),
        ] {
            let answer = ask_raw(address, request, headers).await;
            let head = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&head), "{request} {headers}: {answer}");
        }
        let page = ask_raw(address, "GET /", &host).await;
        for header in [
            "content-security-policy: default-src 'none';",
            "content-type: text/html; charset=utf-8",
            "etag: \"",
            "x-content-type-options: nosniff",
        ] {
            assert!(page.contains(header), "{header}: {page}");
        }
    }

    #[tokio::test]
    async fn over_http_only_the_token_opens() {
        let (_program, server, address) = over_http(Some("correct horse")).await;
        let ask = async |headers: &str| {
            ask_raw(address, "GET /v1/rules", &format!("Host: x\r\n{headers}")).await
        };
        for wrong in [
            "",
            "Authorization: Bearer correct hors\r\n",
            "Authorization: Basic correct horse\r\n",
            "Authorization: Bearer \r\n",
        ] {
            let answer = ask(wrong).await;
            assert!(
                answer.starts_with("HTTP/1.1 401 ")
                    && answer.contains("www-authenticate: Bearer")
                    && answer.contains("the token is missing or wrong"),
                "{wrong}: {answer}"
            );
        }
        assert!(
            ask("Authorization: Bearer correct horse\r\n")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        let page = ask_raw(address, "GET /", "Host: x\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");

        let answer = raw(
            server.metrics.unwrap(),
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4")
                && answer.contains("\ndnscrub_build_info{"),
            "{answer}"
        );
        let answer = raw(
            server.metrics.unwrap(),
            "POST /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 404 "),
            "the metrics address serves nothing else"
        );
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_setting() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut program = program(PLAIN);
        Arc::get_mut(&mut program.supervisor)
            .unwrap()
            .startup
            .metrics = Some(taken.local_addr().unwrap());
        let failure = start(&program.supervisor).await.unwrap_err().to_string();
        assert!(
            failure.contains("metrics.address") && failure.contains("in use"),
            "{failure}"
        );
        assert!(
            !program.supervisor.startup.control.socket.exists(),
            "nothing listens then"
        );
    }

    #[tokio::test]
    async fn clients_say_why_they_cannot_reach_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let ask = || async {
            Client::new(path.clone())
                .json::<Value>(Method::GET, "/v1/status", Vec::new())
                .await
                .unwrap_err()
        };
        let missing = ask().await.to_string();
        assert!(
            missing.contains("there is no socket at") && missing.contains("--socket"),
            "{missing}"
        );
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let dead = ask().await.to_string();
        assert!(dead.contains("nobody answers"), "{dead}");

        std::fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let older = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await.unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\n{VERSION_HEADER}: 99.0.0\r\ncontent-length: 2\r\n\r\n[]"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            // until the client has it all
            while stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
        });
        let failure = Client::new(path.clone())
            .json::<Status>(Method::GET, "/v1/status", Vec::new())
            .await
            .unwrap_err();
        assert!(failure.to_string().contains("99.0.0"), "{failure}");
        older.await.unwrap();
    }

    #[tokio::test]
    async fn the_socket_goes_with_the_server() {
        let served = served(PLAIN).await;
        let path = served.program.supervisor.startup.control.socket.clone();
        let second = start(&served.program.supervisor).await.unwrap_err();
        assert!(
            second.to_string().contains("another dnscrub runs already"),
            "{second}"
        );
        assert!(path.exists());
        drop(served.server);
        assert!(!path.exists());
    }
}
