//! A relay in front of the server, by which one host becomes sick: it stops relaying, or relays slowly.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// Relays as fast as it can.
pub const FAST: u64 = u64::MAX;
/// Relays nothing, and closes nothing.
pub const SILENT: u64 = 0;

/// A relay that listens on a port of its own until the program ends.
pub struct Relay {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// Bytes per second of each connection and direction.
    rate: Arc<AtomicU64>,
}

impl Relay {
    /// In front of the port `to`.
    pub fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let rate = Arc::new(AtomicU64::new(FAST));
        let own = Arc::clone(&rate);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let rate = Arc::clone(&own);
                thread::spawn(move || serve(&near, to, &rate));
            }
        });
        Ok(Self { port, rate })
    }

    /// From now on it relays so many bytes per second, [`FAST`] or [`SILENT`].
    pub fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }
}

/// Relay a connection until either end closes it.
fn serve(near: &TcpStream, to: u16, rate: &AtomicU64) {
    wait_for_life(rate);
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
    thread::scope(|scope| {
        scope.spawn(|| copy(near, &far, rate));
        copy(&far, near, rate);
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, rate: &AtomicU64) {
    let _ = from.set_nodelay(true);
    let mut buffer = [0; 64 << 10];
    loop {
        // A slow one takes a twentieth of a second's worth at a time.
        let most = (rate.load(Ordering::Relaxed) / 20).clamp(512, buffer.len() as u64);
        let room = usize::try_from(most).unwrap_or(buffer.len());
        let Ok(count @ 1..) = from.read(&mut buffer[..room]) else { break };
        wait_for_life(rate);
        let rate = rate.load(Ordering::Relaxed);
        if rate != FAST && rate != SILENT {
            thread::sleep(Duration::from_secs_f64(count as f64 / rate as f64));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Either end may have gone first.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

fn wait_for_life(rate: &AtomicU64) {
    while rate.load(Ordering::Relaxed) == SILENT {
        thread::sleep(Duration::from_millis(20));
    }
}
