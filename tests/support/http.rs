//! The least of an HTTP client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::Agent;
use super::agent::SOON;
use super::scratch::wait_until;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn has_type(&self, kind: &str) -> bool {
        self.head.lines().any(|line| line.to_lowercase().starts_with(&format!("content-type: {kind}")))
    }
}

/// Where the agent's status is, by the last line of its log that says so.
pub fn port(agent: &Agent) -> u16 {
    let said = || {
        let log = agent.log();
        let (_, after) = log.rsplit_once("the status is at http://127.0.0.1:")?;
        after.split_once('/')?.0.parse().ok()
    };
    wait_until("the agent says where it serves", SOON, || said().is_some());
    said().unwrap()
}

pub fn get(port: u16, path: &str) -> Reply {
    ask(port, "GET", path, &format!("localhost:{port}")).unwrap()
}

/// `None` where nobody answers.
pub fn ask(port: u16, method: &str, path: &str, host: &str) -> Option<Reply> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .ok()?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok()?;
    let text = String::from_utf8(all).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { code, head: head.to_owned(), body: body.to_owned() })
}
