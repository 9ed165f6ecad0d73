//! How a host is reached. The connection is kept for the roots that follow.

use std::ffi::OsString;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::limit::Limiter;
use crate::transport::{self, Link, SshOptions, SshSession, SshTarget};

/// The way to a host.
#[derive(Clone, Debug)]
pub enum Reach {
    /// The receiver is a process of this host.
    Local,
    /// Over SSH.
    Ssh(SshTarget, SshOptions),
}

/// A host that is pushed to.
pub struct Endpoint {
    /// Its name in reports.
    pub name: String,
    /// The bound on what is sent to it.
    pub limiter: Option<Arc<Limiter>>,
    reach: Reach,
    session: Mutex<Option<Result<Arc<SshSession>, String>>>,
}

impl Endpoint {
    /// The host `name`, not connected yet.
    pub fn new(name: impl Into<String>, reach: Reach) -> Self {
        Endpoint { name: name.into(), limiter: None, reach, session: Mutex::new(None) }
    }

    /// Sends at most `bytes_per_second` to it.
    #[must_use]
    pub fn limited(self, bytes_per_second: Option<u64>) -> Self {
        Endpoint { limiter: bytes_per_second.map(|rate| Arc::new(Limiter::new(rate))), ..self }
    }

    /// Whether content travels over a network, so that compressing it can pay.
    pub fn is_remote(&self) -> bool {
        matches!(self.reach, Reach::Ssh(..))
    }

    /// Starts `receiver` there. A host that could not be connected is not tried again for this
    /// endpoint: the next root would wait as long for the same answer.
    ///
    /// # Errors
    /// One line for the operator.
    pub async fn start(&self, receiver: &[String]) -> Result<Link, String> {
        match &self.reach {
            Reach::Local => {
                let argv: Vec<OsString> = receiver.iter().map(OsString::from).collect();
                transport::spawn(&argv).map_err(|error| {
                    let program = receiver.first().map_or("", String::as_str);
                    format!("`{program}` cannot be started: {error}")
                })
            }
            Reach::Ssh(target, options) => self.start_over_ssh(target, options, receiver).await,
        }
    }

    async fn start_over_ssh(
        &self,
        target: &SshTarget,
        options: &SshOptions,
        receiver: &[String],
    ) -> Result<Link, String> {
        let mut session = self.session.lock().await;
        let known = match session.take() {
            // Over an earlier root, or by an earlier process: it may be dead by now.
            None => SshSession::attach(target, options).await.map(Arc::new),
            Some(Ok(known)) => Some(known),
            Some(Err(error)) => {
                *session = Some(Err(error.clone()));
                return Err(error);
            }
        };
        if let Some(known) = known {
            if let Ok(link) = known.start(receiver).await {
                *session = Some(Ok(known));
                return Ok(link);
            }
            if let Ok(known) = Arc::try_unwrap(known) {
                known.discard().await;
            }
        }
        let connected = SshSession::connect(target, options).await;
        let connected = connected.map(Arc::new).map_err(|error| error.to_string());
        *session = Some(connected.clone());
        drop(session);
        connected?.start(receiver).await.map_err(|error| error.to_string())
    }

    /// Tries again to connect, if that failed before.
    pub fn forget_failure(&self) {
        // Held, it is being tried just now.
        if let Ok(mut session) = self.session.try_lock()
            && matches!(*session, Some(Err(_)))
        {
            *session = None;
        }
    }

    /// Has done with the connection, if there is one. It ends, unless it is kept for later processes.
    pub async fn close(&self) {
        let session = self.session.lock().await.take();
        if let Some(Ok(session)) = session
            && let Ok(session) = Arc::try_unwrap(session)
        {
            session.close().await;
        }
    }
}
