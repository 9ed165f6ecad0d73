//! The running agent, over its socket: one line there, one line back. Whatever it answers is bounded in size and time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::control::{
    Answer, HostAction, HostDone, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Refusal, Request, SOCKET, WaitDone, WaitHosts,
    WaitPath, from_line, to_line,
};
use crate::push::RootReport;
use crate::status::FleetStatus;

/// Time for an answer to what needs no waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for a push.
const LONGEST_PUSH: Duration = Duration::from_secs(30 * 24 * 3600);

/// A connection to the agent of this host.
#[derive(Debug)]
pub(super) struct AgentClient {
    stream: UnixStream,
    patience: Duration,
}

impl AgentClient {
    /// Connects to the agent whose state directory this is; `None` if none runs.
    ///
    /// # Errors
    /// One line: there may be one, but it cannot be reached.
    pub(super) fn connect(state: &Path) -> Result<Option<Self>, String> {
        let path = state.join(SOCKET);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Some(AgentClient { stream, patience: PATIENCE })),
            // A socket that nobody listens on was left by one that was killed.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(format!("the agent cannot be reached: {}: {error}", path.display())),
        }
    }

    /// How the fleet is.
    ///
    /// # Errors
    /// One line: the agent's reason, or why there is no answer.
    pub(super) fn status(&mut self) -> Result<FleetStatus, String> {
        self.ask(&Request::Status {}, self.patience).map_err(|refusal| refusal.error)
    }

    /// Has the agent pause, resume or reset the host `name`.
    ///
    /// # Errors
    /// As for [`AgentClient::status`].
    pub(super) fn host(&mut self, action: HostAction, name: &str) -> Result<HostDone, String> {
        self.ask(&Request::Host { action, name: name.to_owned() }, self.patience).map_err(|refusal| refusal.error)
    }

    /// Waits until `hosts` have what `paths` are here now.
    ///
    /// # Errors
    /// The refusal names the hosts that are late, if the time was up.
    pub(super) fn wait(&mut self, paths: Vec<WaitPath>, hosts: WaitHosts, most: Duration) -> Result<WaitDone, Refusal> {
        let timeout_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.ask(&Request::Wait { paths, hosts, timeout_ms }, most.saturating_add(self.patience))
    }

    /// Has the agent push everything now, and waits for what comes of it.
    ///
    /// # Errors
    /// As for [`AgentClient::status`].
    pub(super) fn push(&mut self, confirmed: Vec<String>, adopt: bool, full: bool) -> Result<Vec<RootReport>, String> {
        // It may be the first copy of a large tree.
        self.ask(&Request::Push { confirmed, adopt, full }, LONGEST_PUSH).map_err(|refusal| refusal.error)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request, patience: Duration) -> Result<T, Refusal> {
        let failed = |error: String| Refusal { error, late: Vec::new() };
        let line = to_line(request).map_err(failed)?;
        if line.len() > MAX_REQUEST_BYTES {
            return Err(failed("these are too many paths for one request".to_owned()));
        }
        let answer = self.exchange(&line, patience).map_err(|error| failed(no_answer(&error, patience)))?;
        let answer: Result<Answer<T>, String> = from_line(&answer);
        answer.map_err(|error| failed(format!("the agent's answer is not understood: {error}")))?.into_result()
    }

    /// One line there, one line back.
    fn exchange(&mut self, line: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        // One that is further away than the clock can tell is never over.
        let end = Instant::now().checked_add(patience);
        self.stream.set_write_timeout(Some(self.patience))?;
        self.stream.write_all(line)?;
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(left)?;
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            answer.extend_from_slice(read);
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(io::Error::other("it is too long"));
            }
            if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                answer.truncate(answer.len() - (read.len() - end));
                return Ok(answer);
            }
        }
    }
}

fn no_answer(error: &io::Error, patience: Duration) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("the agent does not answer (for {} s)", patience.as_secs())
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            "the agent ended the connection without an answer".to_owned()
        }
        _ => format!("the agent's answer: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A stub in the agent's place that answers each request in turn, and gives back what it was asked.
    fn stub(answers: Vec<Vec<u8>>) -> (tempfile::TempDir, thread::JoinHandle<Vec<String>>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut asked = Vec::new();
            for answer in answers {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                asked.push(line);
                // It may have had enough before the end.
                let _ = stream.write_all(&answer);
            }
            asked
        });
        (dir, served)
    }

    #[test]
    fn a_stub_agent_is_asked_in_lines_and_its_answers_are_understood() {
        let status = FleetStatus { fleet: "cms".into(), ..FleetStatus::default() };
        let (dir, served) = stub(vec![
            to_line(&Answer::new(Ok(status.clone()))).unwrap(),
            b"{\"ok\":{\"changed\":true}}\n".to_vec(),
            b"{\"error\":\"no host is called web9\"}\n".to_vec(),
            b"{\"ok\":{\"hosts\":[\"web2\"]}}\n".to_vec(),
            b"{\"error\":\"not in time\",\"late\":[\"web3\"]}\n".to_vec(),
        ]);
        let mut agent = AgentClient::connect(dir.path()).unwrap().unwrap();
        assert_eq!(agent.status().unwrap(), status);
        assert!(agent.host(HostAction::Pause, "web2").unwrap().changed);
        assert_eq!(agent.host(HostAction::Reset, "web9").unwrap_err(), "no host is called web9");
        let wait = |agent: &mut AgentClient| agent.wait(vec![], WaitHosts::AtLeast(1), Duration::from_secs(2));
        assert_eq!(wait(&mut agent).unwrap().hosts, ["web2"]);
        let late = Refusal { error: "not in time".into(), late: vec!["web3".into()] };
        assert_eq!(wait(&mut agent).unwrap_err(), late);
        let wait = "{\"op\":\"wait\",\"paths\":[],\"hosts\":1,\"timeout_ms\":2000}\n";
        assert_eq!(
            served.join().unwrap(),
            [
                "{\"op\":\"status\"}\n",
                "{\"op\":\"host\",\"action\":\"pause\",\"name\":\"web2\"}\n",
                "{\"op\":\"host\",\"action\":\"reset\",\"name\":\"web9\"}\n",
                wait,
                wait,
            ]
        );
    }

    #[test]
    fn where_none_listens_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AgentClient::connect(dir.path()).unwrap().is_none());
        drop(UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert!(dir.path().join(SOCKET).exists(), "left by one that was killed");
        assert!(AgentClient::connect(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_stub_agent_that_answers_nothing_nonsense_or_without_end_is_an_error() {
        for (answer, said) in [
            (b"nonsense\n".to_vec(), "is not understood"),
            (b"{\"ok\":{}}\n".to_vec(), "is not understood"),
            (b"{}\n".to_vec(), "neither"),
            (b"{\"ok\":{".to_vec(), "without an answer"),
            (vec![b' '; MAX_ANSWER_BYTES + 1], "too long"),
        ] {
            let (dir, served) = stub(vec![answer]);
            let mut agent = AgentClient::connect(dir.path()).unwrap().unwrap();
            let error = agent.status().unwrap_err();
            assert!(error.contains(said), "{error}");
            drop(agent);
            served.join().unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let _silent = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let mut agent = AgentClient::connect(dir.path()).unwrap().unwrap();
        agent.patience = Duration::from_millis(50);
        let error = agent.status().unwrap_err();
        assert!(error.contains("does not answer"), "{error}");
    }
}
