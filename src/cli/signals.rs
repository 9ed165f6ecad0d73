//! Ctrl-C and SIGTERM: stop, in order.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Turns true at the first signal that asks to stop. A second one is for the impatient: the process
/// ends at once, which is as safe, since receivers discard what is not whole.
pub(super) fn stop_on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if round > 0 {
                std::process::exit(i32::from(super::Exit::Partial as u8));
            }
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}
