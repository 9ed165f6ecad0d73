//! Destinations as they are written on the command line.

use std::path::PathBuf;

use crate::model::{check_host, check_user};
use crate::transport::SshTarget;

/// Where a push without configuration goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// A directory of this host.
    Local(PathBuf),
    /// A directory of another host.
    Ssh(SshTarget, String),
}

impl Destination {
    /// Understands `[user@]host:/path`, `ssh://[user@]host[:port]/path` and local paths. As with rsync, a
    /// colon before the first slash makes a host; `./a:b` is a local path.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("destination `{}`: {what}", text.escape_debug());
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(bad("it is empty or holds control characters"));
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            let (authority, path) = rest.split_once('/').ok_or_else(|| bad("the path is missing: ssh://host/path"))?;
            return Ok(Destination::Ssh(target(authority, true).map_err(|why| bad(&why))?, format!("/{path}")));
        }
        if text.starts_with('[')
            && let Some((host, path)) = text.split_once("]:")
        {
            return Ok(Destination::Ssh(target(&format!("{host}]"), false).map_err(|why| bad(&why))?, path.to_owned()));
        }
        match text.split_once(':') {
            Some((host, path)) if !host.contains('/') => {
                if path.is_empty() {
                    return Err(bad("the path is missing: host:/path"));
                }
                Ok(Destination::Ssh(target(host, false).map_err(|why| bad(&why))?, path.to_owned()))
            }
            _ => Ok(Destination::Local(text.into())),
        }
    }
}

fn target(authority: &str, with_port: bool) -> Result<SshTarget, String> {
    let (user, rest) = match authority.rsplit_once('@') {
        Some((user, rest)) => (Some(check_user(user).map_err(|error| error.to_string())?.to_owned()), rest),
        None => (None, authority),
    };
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None if with_port => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        None => (rest, None),
    };
    let port = match port {
        None => None,
        Some(text) => match text.parse() {
            Ok(port @ 1..=u16::MAX) => Some(port),
            _ => return Err(format!("`{}` is no port", text.escape_debug())),
        },
    };
    let host = check_host(host).map_err(|error| error.to_string())?.to_owned();
    Ok(SshTarget { host, user, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(host: &str, user: Option<&str>, port: Option<u16>, path: &str) -> Destination {
        Destination::Ssh(SshTarget { host: host.into(), user: user.map(Into::into), port }, path.into())
    }

    #[test]
    fn the_forms_of_a_destination() {
        let table = [
            ("web2:/srv", ssh("web2", None, None, "/srv")),
            ("deploy@web2:/srv/a:b", ssh("web2", Some("deploy"), None, "/srv/a:b")),
            ("web2:srv", ssh("web2", None, None, "srv")),
            ("ssh://deploy@web2:2222/srv", ssh("web2", Some("deploy"), Some(2222), "/srv")),
            ("ssh://[::1]:2222/srv", ssh("::1", None, Some(2222), "/srv")),
            ("[::1]:/srv", ssh("::1", None, None, "/srv")),
            ("/srv/a", Destination::Local("/srv/a".into())),
            ("srv", Destination::Local("srv".into())),
            ("./a:b", Destination::Local("./a:b".into())),
        ];
        for (text, destination) in table {
            assert_eq!(Destination::parse(text), Ok(destination), "{text}");
        }
    }

    #[test]
    fn what_could_become_an_option_or_a_command_is_refused() {
        for text in [
            "-oProxyCommand=x:/srv",
            "-l@web2:/srv",
            "web2:",
            "web 2:/srv",
            "web2;id:/srv",
            "web2\n:/srv",
            "@web2:/srv",
            ":/srv",
            "ssh://web2",
            "ssh://web2:0/srv",
            "ssh://web2:70000/srv",
            "ssh://-x/srv",
            "",
        ] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }
}
