//! Under which names this is asked for. A web page of someone else can make its name point at 127.0.0.1 and have its
//! reader's browser ask here; that browser then says that page's name.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, Version, header};

/// The names that are answered to.
#[derive(Debug)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(names: &[String]) -> Self {
        let all = names.iter().map(|name| plain(name)).chain(["localhost".to_owned()]);
        Names(all.filter(|name| !name.is_empty()).collect())
    }

    /// Whether a request that came to `local` may be answered.
    ///
    /// # Errors
    /// What is wrong with its name.
    pub(super) fn check(
        &self,
        local: Option<IpAddr>,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), &'static str> {
        const OTHER: &str = "this name is not answered to; the key `hosts` in [serve] lists names that are";
        if uri.authority().is_some_and(|authority| !self.knows(authority.as_str(), local)) {
            return Err(OTHER);
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next().map(|host| host.to_str()), hosts.next()) {
            (Some(Ok(host)), None) if self.knows(host, local) => Ok(()),
            // Probes of load balancers; no browser leaves it out.
            (None, _) if version == Version::HTTP_10 => Ok(()),
            (None, _) => Err("the request names no host"),
            _ => Err(OTHER),
        }
    }

    /// Ports say nothing: a tunnel or a proxy has another one.
    fn knows(&self, host: &str, local: Option<IpAddr>) -> bool {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, after)) => (address, after.strip_prefix(':').or(after.is_empty().then_some(""))),
            None => host.split_once(':').map_or((host, Some("")), |(name, port)| (name, Some(port))),
        };
        if port.is_none_or(|port| !port.bytes().all(|byte| byte.is_ascii_digit())) {
            return false;
        }
        // An address cannot be made to point elsewhere.
        let own = |address: IpAddr| address.is_loopback() || local.is_some_and(|local| same(local, address));
        name.parse().is_ok_and(own) || self.0.contains(&plain(name))
    }
}

/// Whether both are one: a socket for all addresses sees those of IPv4 as part of IPv6.
fn same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: &str) -> bool {
        let names = Names::new(&["Web1.example.org", "status.example.net", "192.0.2.7"].map(String::from));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        names.check("::ffff:10.0.0.5".parse().ok(), Version::HTTP_11, &Uri::from_static("/"), &headers).is_ok()
    }

    #[test]
    fn own_names_and_addresses_are_answered_to_whatever_the_port() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:9460",
            "[::1]",
            "[::1]:9460",
            "web1.example.org.",
            "192.0.2.7:80",
            "status.example.net:443",
            "10.0.0.5:9460",
        ] {
            assert!(allowed(host), "{host}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for host in [
            "",
            "evil.example",
            "evil.example:9460",
            "localhost.evil.example",
            "web1",
            "web1.evil.example",
            "10.0.0.6",
            "0.0.0.0",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "localhost:9460@evil.example",
            "localhost@evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert!(!allowed(host), "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host_in_one_way() {
        let names = Names::new(&[]);
        let check = |version, uri: &'static str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            hosts.iter().for_each(|host| {
                headers.append(header::HOST, host.parse().unwrap());
            });
            names.check(None, version, &Uri::from_static(uri), &headers).is_ok()
        };
        assert!(check(Version::HTTP_11, "/", &["localhost"]));
        assert!(check(Version::HTTP_10, "/", &[]));
        assert!(!check(Version::HTTP_11, "/", &[]));
        assert!(!check(Version::HTTP_11, "/", &["localhost", "localhost"]));
        assert!(!check(Version::HTTP_11, "/", &["localhost", "evil.example"]));
        assert!(check(Version::HTTP_11, "http://localhost/", &["localhost"]));
        assert!(!check(Version::HTTP_11, "http://evil.example/", &["localhost"]));
        assert!(!check(Version::HTTP_10, "http://evil.example/", &[]));
    }
}
