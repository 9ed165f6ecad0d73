//! The status over HTTP: `/`, `/status.json`, `/metrics`, `/healthz`, `/readyz`.
//!
//! Read-only, without a secret in it, and unable to hold up what it reports of: it takes the latest status that was
//! handed over and asks nobody. What a client can cost is bounded: the connections, how long each may take to say
//! what it wants and to read the answer, and one document is made once for all that ask for it.
//!
//! | file      | what it owns |
//! |-----------|--------------|
//! | `feed`    | the latest status, and how long ago it came |
//! | `names`   | under which names this is asked for: the check against DNS rebinding |
//! | `routes`  | paths, answers and headers |
//! | `health`  | what makes a host healthy and ready |
//! | `metrics` | the status and a few histograms in Prometheus' format |
//! | `page`    | the page, as the server draws it |
//! | `words`   | spans, sizes and times for people |
//!
//! Crates: `axum` without its features for routes and answers; `hyper` and `hyper-util` under it, as axum's own server
//! knows no bounds on time and size; `maud`, which escapes whatever is put into the page; `prometheus-client`, see
//! `metrics`.
//!
//! It knows no wall clock: what the page calls "12 s ago" is counted from the time in the status.

mod feed;
mod health;
mod metrics;
mod names;
mod page;
mod routes;
#[cfg(test)]
mod tests;
pub mod words;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::status::FleetStatus;
use feed::Feed;
pub use metrics::Metrics;

/// What is served, and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names under which this may be asked for: this host's own, and those of the configuration. Loopback and the
    /// address that a client has connected to are always allowed.
    pub names: Vec<String>,
    /// A status that did not come anew for so long is one that nobody keeps up to date.
    pub stale_after: Duration,
    /// How long ago a ready secondary may have got what it has; `None` is no bound.
    pub ready_max_age: Option<Duration>,
    /// What a client may cost.
    pub limits: Limits,
}

impl Settings {
    /// The usual ones, for a host of this name.
    pub fn new(own_name: &str, names: &[String], ready_max_age: Option<Duration>) -> Self {
        let short = own_name.split('.').next().unwrap_or_default();
        let names = [own_name, short].map(str::to_owned).into_iter().chain(names.iter().cloned()).collect();
        Settings { names, stale_after: Duration::from_secs(30), ready_max_age, limits: Limits::default() }
    }
}

/// What clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; others wait in the kernel's queue.
    pub connections: usize,
    /// Time for the head of a request, and for the next one on the same connection.
    pub head: Duration,
    /// Time for a connection; it ends after the answer that is under way then.
    pub connection: Duration,
    /// Time for that answer.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 64,
            head: Duration::from_secs(10),
            connection: Duration::from_secs(60),
            grace: Duration::from_secs(5),
        }
    }
}

/// Most bytes of the head of a request; the least that hyper can do with is half of it.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Most headers of a request: browsers behind a proxy send about thirty.
const MAX_HEADERS: usize = 64;

/// Pause after a connection could not be taken, as when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown` turns true or its sender is gone, then lets the answers under way end.
pub async fn serve(
    listener: TcpListener,
    status: watch::Receiver<Arc<FleetStatus>>,
    metrics: Metrics,
    settings: Settings,
    shutdown: watch::Receiver<bool>,
) {
    let limits = settings.limits;
    let feed = Feed::new(status);
    let router = routes::router(feed.clone(), metrics, settings);
    let free = Arc::new(Semaphore::new(limits.connections));
    let mut stop = shutdown.clone();
    tokio::select! {
        () = stopped(&mut stop) => {}
        () = feed.follow() => {}
        () = accept(&listener, &router, &free, limits, &shutdown) => {}
    }
    drop(listener);
    // Each connection has seen the same signal and ends by itself, at the latest when its grace is over.
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = timeout(limits.grace + ACCEPT_PAUSE, free.acquire_many(all)).await;
}

/// When the signal comes, or can come no more.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    free: &Arc<Semaphore>,
    limits: Limits,
    shutdown: &watch::Receiver<bool>,
) {
    loop {
        // Nobody closes it.
        let Ok(permit) = Arc::clone(free).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                tokio::spawn(async move {
                    connection(stream, router, limits, shutdown).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("a connection for the status could not be taken: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The address that the client has connected to.
#[derive(Clone, Copy, Debug)]
struct Local(Option<IpAddr>);

async fn connection(stream: TcpStream, router: Router, limits: Limits, mut shutdown: watch::Receiver<bool>) {
    let local = Local(stream.local_addr().ok().map(|address| address.ip()));
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router.layer(Extension(local)));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        // Why a client went is its own affair.
        _ = serving.as_mut() => return,
        () = stopped(&mut shutdown) => {}
        () = sleep(limits.connection) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = timeout(limits.grace, serving).await;
}
