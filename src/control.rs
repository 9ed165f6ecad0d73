//! What is said over the socket of a running agent: one request in JSON on a line, one answer in JSON on a line,
//! as often as the caller likes.
//!
//! ```text
//! {"op":"status"}                                              {"ok":{"schema":1,...}}
//! {"op":"host","action":"pause","name":"web2"}                 {"ok":{"changed":true}}
//! {"op":"push","confirmed":[],"full":true}                     {"ok":[...]}
//! {"op":"wait","paths":[{"root":"uploads","path":"a/b"},"/srv/uploads/c"],"hosts":"all","timeout_ms":30000}
//!                                                              {"ok":{"hosts":["web2","web3"]}}
//!                                                              {"error":"...","late":["web3"]}
//! ```
//!
//! Both sides use these types. A field that the agent does not know makes the request one that it refuses, so that
//! nothing is done by half; a field of an answer that the caller does not know is passed over.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::status::FleetStatus;

/// The socket's name in the state directory; mode 0600.
pub const SOCKET: &str = "agent.sock";

/// Longest line of a request, its end included: 10,000 paths of a usual length.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Longest line of an answer, its end included: the status of 10,000 hosts.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Most paths of one [`Request::Wait`].
pub const MAX_WAIT_PATHS: usize = 10_000;

/// What is asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the fleet is; the answer is a [`FleetStatus`].
    Status {},
    /// Do something with a host; the answer is a [`HostDone`].
    Host {
        /// What.
        action: HostAction,
        /// Its name in the fleet.
        name: String,
    },
    /// Push all of it now; the answer is the report of each root, when every host had its turn.
    Push {
        /// Ids of plans whose deletions are confirmed.
        #[serde(default)]
        confirmed: Vec<String>,
        /// Destinations that this fleet has not used before are taken over.
        #[serde(default)]
        adopt: bool,
        /// Everything on every host is compared.
        #[serde(default)]
        full: bool,
    },
    /// Answer when hosts have what is here now; the answer is a [`WaitDone`], or an error with `late`.
    Wait {
        /// What they are to have; empty: everything.
        #[serde(default)]
        paths: Vec<WaitPath>,
        /// How many of them.
        hosts: WaitHosts,
        /// The longest time to wait, in milliseconds.
        timeout_ms: u64,
    },
}

/// What can be done with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostAction {
    /// Nothing is sent to it until it is resumed.
    Pause,
    /// It is pushed to again.
    Resume,
    /// What is known of it is forgotten: everything there is compared next.
    Reset,
}

impl HostAction {
    /// The word on the line and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            HostAction::Pause => "pause",
            HostAction::Resume => "resume",
            HostAction::Reset => "reset",
        }
    }
}

/// A path that is waited for. Bytes that are no text are escaped, see [`escape`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WaitPath {
    /// A path of the primary, from `/` on.
    Absolute(String),
    /// A path below a root.
    InRoot(PathInRoot),
}

/// A path below a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathInRoot {
    /// The root's name.
    pub root: String,
    /// The path below it; empty or `.` for all of it.
    pub path: String,
}

/// How many hosts are to have something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitHosts {
    /// All of them.
    All,
    /// As many, whichever is first.
    AtLeast(u32),
}

impl Serialize for WaitHosts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            WaitHosts::All => serializer.serialize_str("all"),
            WaitHosts::AtLeast(number) => serializer.serialize_u32(*number),
        }
    }
}

impl<'de> Deserialize<'de> for WaitHosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u32),
            Word(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(WaitHosts::AtLeast(number)),
            Either::Word(word) if word == "all" => Ok(WaitHosts::All),
            Either::Word(_) => Err(D::Error::custom("hosts is `all` or a number")),
        }
    }
}

/// Answer to [`Request::Host`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDone {
    /// Whether anything is different now: a host that is held cannot be paused again.
    pub changed: bool,
}

/// Answer to [`Request::Wait`] that says that it came true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitDone {
    /// The hosts that have it.
    pub hosts: Vec<String>,
}

/// What an agent answers: `{"ok":...}` or `{"error":"..."}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer<T> {
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    ok: Option<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    late: Vec<String>,
}

/// `Option::default` would ask for a default of what is in it.
fn nothing<T>() -> Option<T> {
    None
}

/// Why something was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// One line for people.
    pub error: String,
    /// Hosts that did not have it in time; empty unless the time of a [`Request::Wait`] was up.
    pub late: Vec<String>,
}

impl<T> Answer<T> {
    /// The answer that says this.
    pub fn new(result: Result<T, Refusal>) -> Self {
        match result {
            Ok(ok) => Answer { ok: Some(ok), error: None, late: Vec::new() },
            Err(refusal) => Answer { ok: None, error: Some(refusal.error), late: refusal.late },
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// The agent's refusal, or one that says that this is no answer.
    pub fn into_result(self) -> Result<T, Refusal> {
        match (self.ok, self.error) {
            (Some(ok), None) => Ok(ok),
            (None, Some(error)) => Err(Refusal { error, late: self.late }),
            _ => Err(Refusal { error: "the answer is neither `ok` nor `error`".into(), late: Vec::new() }),
        }
    }
}

/// Answer to [`Request::Status`].
pub type StatusAnswer = Answer<FleetStatus>;

/// `message` as a line, its end included.
///
/// # Errors
/// One line: it cannot be written as JSON.
pub fn to_line<T: Serialize>(message: &T) -> Result<Vec<u8>, String> {
    let mut line = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(line)
}

/// What a line says, with its end or without.
///
/// # Errors
/// One line that says where it is wrong.
pub fn from_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// Bytes of a path as a text from which [`unescape`] makes the same bytes: `\\` is a backslash and `\xff` a byte that is
/// no text.
pub fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// The bytes that a text of [`escape`], or a path in a [`FleetStatus`], stands for; `None` if it is neither.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, after) = rest[at + 1..].split_at_checked(1)?;
        rest = after;
        match byte {
            "\\" => bytes.push(b'\\'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "x" => {
                let (number, after) = after.split_at_checked(2).filter(|(number, _)| is_hex(number))?;
                bytes.push(u8::from_str_radix(number, 16).ok()?);
                rest = after;
            }
            "u" => {
                let (number, after) = after.strip_prefix('{')?.split_once('}')?;
                let char = u32::from_str_radix(number, 16).ok().filter(|_| is_hex(number)).and_then(char::from_u32)?;
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => return None,
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

/// `from_str_radix` takes a sign as well.
fn is_hex(number: &str) -> bool {
    number.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelPath;

    fn says(line: &str) -> Request {
        let request = from_line(line.as_bytes()).unwrap();
        assert_eq!(to_line(&request).unwrap(), format!("{line}\n").into_bytes(), "and back");
        request
    }

    #[test]
    fn requests_are_these_lines() {
        assert_eq!(says(r#"{"op":"status"}"#), Request::Status {});
        let host = says(r#"{"op":"host","action":"pause","name":"web2"}"#);
        assert_eq!(host, Request::Host { action: HostAction::Pause, name: "web2".into() });
        let wait = says(
            r#"{"op":"wait","paths":[{"root":"uploads","path":"a\\\\b"},"/srv/x"],"hosts":"all","timeout_ms":30000}"#,
        );
        let in_root = WaitPath::InRoot(PathInRoot { root: "uploads".into(), path: r"a\\b".into() });
        let paths = vec![in_root, WaitPath::Absolute("/srv/x".into())];
        assert_eq!(wait, Request::Wait { paths, hosts: WaitHosts::All, timeout_ms: 30_000 });
        let push = says(r#"{"op":"push","confirmed":["p1"],"adopt":false,"full":true}"#);
        assert_eq!(push, Request::Push { confirmed: vec!["p1".into()], adopt: false, full: true });
        let wait = says(r#"{"op":"wait","paths":[],"hosts":2,"timeout_ms":1}"#);
        assert_eq!(wait, Request::Wait { paths: vec![], hosts: WaitHosts::AtLeast(2), timeout_ms: 1 });
    }

    #[test]
    fn what_is_not_understood_in_full_is_refused() {
        for line in [
            "",
            "{}",
            "[]",
            r#"{"op":"halt"}"#,
            r#"{"op":"status","now":true}"#,
            r#"{"op":"host","action":"erase","name":"web2"}"#,
            r#"{"op":"host","action":"pause","name":"web2","for":"1h"}"#,
            r#"{"op":"host","action":"pause"}"#,
            r#"{"op":"wait","paths":[],"hosts":"most","timeout_ms":1}"#,
            r#"{"op":"wait","paths":[],"hosts":-1,"timeout_ms":1}"#,
            r#"{"op":"wait","paths":[{"root":"a","path":"b","x":1}],"hosts":1,"timeout_ms":1}"#,
            r#"{"op":"status"} {"op":"status"}"#,
        ] {
            let read: Result<Request, String> = from_line(line.as_bytes());
            assert!(!read.unwrap_err().is_empty(), "{line}");
        }
    }

    #[test]
    fn answers_are_ok_or_an_error() {
        let line = |answer: &Answer<WaitDone>| String::from_utf8(to_line(answer).unwrap()).unwrap();
        let done = Answer::new(Ok(WaitDone { hosts: vec!["web2".into()] }));
        assert_eq!(line(&done), "{\"ok\":{\"hosts\":[\"web2\"]}}\n");
        let late = Refusal { error: "too late".into(), late: vec!["web3".into()] };
        let answer = Answer::new(Err(late.clone()));
        assert_eq!(line(&answer), "{\"error\":\"too late\",\"late\":[\"web3\"]}\n");
        assert_eq!(answer.into_result(), Err(late));
        for neither in ["{}", r#"{"ok":{"hosts":[]},"error":"both"}"#] {
            let answer: Answer<WaitDone> = from_line(neither.as_bytes()).unwrap();
            assert!(answer.into_result().is_err(), "{neither}");
        }
        let newer: StatusAnswer = from_line(&to_line(&StatusAnswer::new(Ok(FleetStatus::default()))).unwrap()).unwrap();
        assert_eq!(newer.into_result(), Ok(FleetStatus::default()));
        let newer: Answer<HostDone> = from_line(br#"{"ok":{"changed":true,"since":5}}"#).unwrap();
        assert_eq!(newer.into_result(), Ok(HostDone { changed: true }), "fields are added");
    }

    #[test]
    fn paths_of_any_bytes_come_back_as_they_were() {
        for bytes in [&b"a/b c"[..], b"\\", b"\\x41", b"\xff\xfe/\\n", "a\u{202e}b\u{7f}\n\t".as_bytes(), b""] {
            assert_eq!(unescape(&escape(bytes)).as_deref(), Some(bytes), "{bytes:?}");
            if let Ok(path) = RelPath::new(bytes) {
                assert_eq!(unescape(&path.to_string()).as_deref(), Some(bytes), "as a status shows it: {path}");
            }
        }
        for bad in ["\\", "\\x4", "\\x+4", "\\xé", "\\q", "\\u{110000}", "\\u{+41}", "\\u41"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
