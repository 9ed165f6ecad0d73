//! The HTTP listener of an agent: bound when it starts, and again where a reload names another place.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::fleet;
use crate::config::{DEFAULT_LISTEN, Listen, ServeConfig};
use crate::serve::{self, Metrics};
use crate::status::FleetStatus;

/// What answers under way get when the agent ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves until it is told to stop.
pub(super) struct Web {
    changes: mpsc::UnboundedSender<ServeConfig>,
    task: JoinHandle<()>,
}

/// One listener and what serves on it.
struct Serving {
    config: ServeConfig,
    listener: Option<TcpListener>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

/// What is shown.
#[derive(Clone)]
struct Shown {
    status: watch::Receiver<Arc<FleetStatus>>,
    metrics: Metrics,
}

impl Web {
    /// Begins to serve, on the runtime that this is called in.
    ///
    /// # Errors
    /// One line: the place that the configuration names cannot be had.
    pub(super) fn start(
        config: &ServeConfig,
        status: watch::Receiver<Arc<FleetStatus>>,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let shown = Shown { status, metrics };
        let mut serving = Serving::begin(config.clone(), bind(config.listen)?, &shown)?;
        let (changes, mut inbox) = mpsc::unbounded_channel::<ServeConfig>();
        let task = tokio::spawn(async move {
            while let Some(config) = inbox.recv().await {
                if config != serving.config {
                    serving = serving.change(config, &shown).await;
                }
            }
            serving.end().await;
        });
        Ok(Web { changes, task })
    }

    /// Where to say that the configuration has changed.
    pub(super) fn changes(&self) -> mpsc::UnboundedSender<ServeConfig> {
        self.changes.clone()
    }

    /// Ends when nobody else can say that anything has changed.
    pub(super) async fn stop(self) {
        drop(self.changes);
        // Who does not end in time is cut off with the runtime.
        let _ = tokio::time::timeout(LAST_ANSWERS, self.task).await;
    }
}

impl Serving {
    fn begin(config: ServeConfig, listener: Option<TcpListener>, shown: &Shown) -> Result<Self, String> {
        let (stop, stopped) = watch::channel(false);
        let mut task = None;
        if let Some(listener) = &listener {
            let failed = |error: std::io::Error| format!("the status cannot be served: {error}");
            let own = listener.try_clone().and_then(tokio::net::TcpListener::from_std).map_err(failed)?;
            let settings = serve::Settings::new(&fleet::own_name(), &config.hosts, config.ready_max_age);
            let Shown { status, metrics } = shown.clone();
            task = Some(tokio::spawn(serve::serve(own, status, metrics, settings, stopped)));
        }
        Ok(Serving { config, listener, stop, task })
    }

    /// Goes over to `config`; stays as it is if that cannot be.
    async fn change(mut self, config: ServeConfig, shown: &Shown) -> Self {
        let listener = match self.listener.take() {
            Some(listener) if config.listen == self.config.listen => Ok(Some(listener)),
            before => bind(config.listen).inspect_err(|_| self.listener = before),
        };
        let begun = listener.and_then(|listener| Serving::begin(config, listener, shown));
        match begun {
            Ok(new) => {
                self.end().await;
                new
            }
            Err(error) => {
                tracing::error!("{error}; what is served stays as it was");
                self
            }
        }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        drop(self.listener);
        if let Some(task) = self.task {
            // As above.
            let _ = tokio::time::timeout(LAST_ANSWERS, task).await;
        }
    }
}

/// A listener at the place, ready for the runtime; `None` where none is wanted, or none could be had that nobody asked
/// for.
fn bind(listen: Listen) -> Result<Option<TcpListener>, String> {
    let at = match listen {
        Listen::Off => return Ok(None),
        Listen::Default => DEFAULT_LISTEN,
        Listen::At(at) => at,
    };
    match bound(at) {
        Ok((listener, at)) => {
            tracing::info!("the status is at http://{at}/");
            Ok(Some(listener))
        }
        Err(error) if listen == Listen::Default => {
            tracing::warn!("the status is not served, {at} cannot be had: {error}; [serve] listen names another place");
            Ok(None)
        }
        Err(error) => Err(format!("[serve] listen = {at}: {error}")),
    }
}

fn bound(at: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}
