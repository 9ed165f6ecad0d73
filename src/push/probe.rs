//! What a push would meet at a host, without a push: a greeting that asks for nothing to be changed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use super::channel::{Channel, ChannelError, shortened};
use super::endpoint::Endpoint;
use super::limit::Limits;
use super::session::explain;
use crate::model::{Fidelity, Term};
use crate::wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, RootState, ToPrimary, ToReceiver};

/// What to ask for.
#[derive(Clone, Debug)]
pub struct ProbeRequest {
    /// The fleet; `None` for a push without configuration.
    pub fleet: Option<String>,
    /// The root's name.
    pub root: String,
    /// The primaryship.
    pub term: Term,
    /// This host's name.
    pub primary: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for each answer.
    pub timeout: Duration,
}

/// What a receiver says of itself and of one root. Strings in it are the peer's and not fit for a terminal.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Version of its software.
    pub software: String,
    /// The protocol that was agreed on.
    pub protocol: u16,
    /// What entries can keep there.
    pub fidelity: Fidelity,
    /// Whether it deletes at all.
    pub allow_delete: bool,
    /// What an earlier push recorded; `None` if this fleet has not used the root.
    pub state: Option<RootState>,
    /// Entries in a root that this fleet has not used; `None` if it has, or if listing it took too long.
    pub foreign_entries: Option<u64>,
    /// Room for content in bytes; `None` if it is not known.
    pub free_bytes: Option<u64>,
    /// Room for entries; `None` where the filesystem has no limit.
    pub free_inodes: Option<u64>,
    /// Whether the receiver may change the root, or make it where it does not exist.
    pub writable: bool,
    /// Something an operator should know.
    pub notes: Vec<String>,
}

/// How far a probe came. Each is one line for the operator.
#[derive(Clone, Debug, Error)]
pub enum ProbeError {
    /// There is no connection.
    #[error("{0}")]
    Connect(String),
    /// There is one, but no receiver that can be understood.
    #[error("{0}")]
    Receiver(String),
    /// There is a receiver, and it refuses.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// Starts `receiver` at `endpoint` and asks what a push of one root would meet. Changes nothing there.
///
/// # Errors
/// [`ProbeError`] says how far it came.
pub async fn probe(endpoint: &Endpoint, receiver: &[String], request: &ProbeRequest) -> Result<Probe, ProbeError> {
    // The bound of the connection itself is not one on a handshake that trickles.
    let patience = request.connect_timeout.saturating_add(request.timeout);
    let started = timeout(patience, endpoint.start(receiver)).await;
    let no_answer = |_| ProbeError::Connect(format!("no connection after {} s; given up", patience.as_secs()));
    let link = started.map_err(no_answer)?.map_err(ProbeError::Connect)?;
    let mut channel = Channel::open(link, request.timeout, Limits::default(), Box::new(|_, _| {}));
    let answer = talk(&mut channel, request).await;
    let unheard = channel.shared.received_bytes.load(Ordering::Relaxed) == 0;
    let (exit, said) = channel.close().await;
    answer.map_err(|error| match error {
        ChannelError::Refused(refusal) => ProbeError::Refused(refusal),
        error => {
            let explained = explain(&error, exit, said, receiver, unheard);
            ProbeError::Receiver(explained.unwrap_or_else(|| error.to_string()))
        }
    })
}

async fn talk(channel: &mut Channel, request: &ProbeRequest) -> Result<Probe, ChannelError> {
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: request.fleet.clone(),
        root: request.root.clone(),
        term: request.term,
        primary: request.primary.clone(),
        read_only: true,
        checksum: false,
        adopt: false,
        attributes: true,
    };
    channel.send(&ToReceiver::Hello(hello)).await?;
    // Absolute, since heartbeats keep a channel alive for as long as the peer likes.
    let answer = timeout(request.timeout, channel.receive()).await;
    let ToPrimary::Welcome(welcome) = answer.map_err(|_| ChannelError::Silent(request.timeout))?? else {
        return Err(ChannelError::Unexpected("something else than a welcome"));
    };
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol) {
        return Err(ChannelError::Unexpected("a protocol that was not offered"));
    }
    let foreign_entries = match &welcome.state {
        Some(_) => None,
        None => {
            channel.send(&ToReceiver::List).await?;
            match timeout(request.timeout, channel.receive()).await {
                Ok(Ok(ToPrimary::Inventory(inventory))) => Some(inventory.entries),
                Ok(Ok(_)) => return Err(ChannelError::Unexpected("something else than an inventory")),
                Ok(Err(error)) => return Err(error),
                Err(_) => None,
            }
        }
    };
    Ok(Probe {
        software: shortened(welcome.software),
        protocol: welcome.protocol,
        fidelity: welcome.fidelity,
        allow_delete: welcome.allow_delete,
        state: welcome.state,
        foreign_entries,
        free_bytes: Some(welcome.free_bytes).filter(|&bytes| bytes != u64::MAX),
        free_inodes: welcome.free_inodes,
        writable: welcome.writable,
        notes: welcome.notes.into_iter().map(shortened).collect(),
    })
}
