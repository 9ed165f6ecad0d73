//! A session with a host that is kept open from one cycle to the next.

use std::sync::{Mutex, PoisonError};

use super::channel::Channel;
use crate::model::Position;
use crate::wire::Welcome;

/// The way in which a host is spoken to without greeting it each time. Empty at first, and whenever it failed.
#[derive(Default)]
pub struct Line(Mutex<Option<Open>>);

/// An open session between two rounds.
pub(super) struct Open {
    pub(super) channel: Channel,
    /// What the host said of itself; its record is kept up to date.
    pub(super) welcome: Welcome,
    /// What it has, less what it had problems with.
    pub(super) at: Position,
    /// It could not do everything: what it lacks is found by comparing only.
    pub(super) lacks: bool,
}

impl Line {
    pub(super) fn take(&self) -> Option<Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn put(&self, open: Open) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
    }

    /// Whether it is open, and was heard of lately. One that was not is hung up.
    pub fn is_alive(&self) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| !open.channel.is_alive()) {
            *open = None;
        }
        open.is_some()
    }

    /// Ends the session in order.
    pub async fn close(&self) {
        let open = self.take();
        if let Some(open) = open {
            open.channel.close().await;
        }
    }
}
