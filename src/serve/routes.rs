//! Paths, answers and headers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio::sync::Mutex;

use super::feed::Feed;
use super::names::Names;
use super::{Local, Metrics, Settings, health, page};
use crate::status::FleetStatus;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// What Prometheus and others call the text format that `prometheus-client` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every answer says of itself, beside its type: it is as it was said, now, here, to whoever asked.
const HEADERS: [(&str, &str); 6] = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

struct App {
    feed: Feed,
    metrics: Metrics,
    settings: Settings,
    names: Names,
    json: Document,
    page: Document,
    exposition: Document,
}

pub(super) fn router(feed: Feed, metrics: Metrics, settings: Settings) -> Router {
    let names = Names::new(&settings.names);
    let (json, page, exposition) = Default::default();
    let app = Arc::new(App { feed, metrics, settings, names, json, page, exposition });
    Router::new()
        .route("/", get(root))
        .route("/status.json", get(status))
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(nothing)
        .layer(from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// What holds for every request, whatever it asks for.
async fn guard(
    State(app): State<Arc<App>>,
    Extension(Local(local)): Extension<Local>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match refusal(&app.names, local, &request) {
        Some(response) => response,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    response
}

fn refusal(names: &Names, local: Option<IpAddr>, request: &Request) -> Option<Response> {
    if let Err(why) = names.check(local, request.version(), request.uri(), request.headers()) {
        return Some(text(StatusCode::FORBIDDEN, format!("{why}\n")));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refused = text(StatusCode::METHOD_NOT_ALLOWED, "this can only be read\n".to_owned());
        return Some(([(header::ALLOW, "GET, HEAD")], refused).into_response());
    }
    None
}

async fn nothing() -> Response {
    text(StatusCode::NOT_FOUND, "there is /, /status.json, /metrics, /healthz and /readyz\n".to_owned())
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    match health::unhealthy(&app.feed.latest(), app.settings.stale_after) {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    let reasons = health::not_ready(&app.feed.latest(), app.settings.stale_after, app.settings.ready_max_age);
    match reasons.as_slice() {
        [] => text(StatusCode::OK, "ok\n".to_owned()),
        _ => text(StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect()),
    }
}

async fn status(State(app): State<Arc<App>>) -> Response {
    let made = app.json.of(app.feed.latest().status, 0, |status| serde_json::to_vec(&**status).ok());
    answer(JSON, made.await)
}

async fn root(State(app): State<Arc<App>>) -> Response {
    let latest = app.feed.latest();
    let stale_s = (latest.age > app.settings.stale_after).then_some(latest.age.as_secs());
    let draw = move |status: &Arc<FleetStatus>| Some(page::render(status, stale_s).into_bytes());
    answer(HTML, app.page.of(latest.status, stale_s.unwrap_or(0), draw).await)
}

async fn scrape(State(app): State<Arc<App>>) -> Response {
    let metrics = app.metrics.clone();
    let version = metrics.version();
    let made = app.exposition.of(app.feed.latest().status, version, move |status| metrics.render(status));
    answer(OPENMETRICS, made.await)
}

fn text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

fn answer(kind: &'static str, bytes: Option<Bytes>) -> Response {
    match bytes {
        Some(bytes) => ([(header::CONTENT_TYPE, kind)], Body::from(bytes)).into_response(),
        None => text(StatusCode::INTERNAL_SERVER_ERROR, "it could not be written\n".to_owned()),
    }
}

/// What a status looks like in one format. However many ask, it is made once, one at a time, and is in memory once.
#[derive(Default)]
struct Document(Mutex<Option<Made>>);

struct Made {
    of: Arc<FleetStatus>,
    version: u64,
    bytes: Bytes,
}

impl Document {
    /// As `make` makes it of `status`, unless that was done already, with the same `version` of what else is in it.
    async fn of(
        &self,
        status: Arc<FleetStatus>,
        version: u64,
        make: impl FnOnce(&Arc<FleetStatus>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Option<Bytes> {
        let mut last = self.0.lock().await;
        if let Some(made) = last.as_ref().filter(|made| Arc::ptr_eq(&made.of, &status) && made.version == version) {
            return Some(made.bytes.clone());
        }
        let of = Arc::clone(&status);
        // A fleet of thousands takes a while, and sessions live on the other threads.
        let made = tokio::task::spawn_blocking(move || make(&status)).await.ok().flatten()?;
        let bytes = Bytes::from(made);
        *last = Some(Made { of, version, bytes: bytes.clone() });
        Some(bytes)
    }
}
