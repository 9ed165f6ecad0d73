//! How a host is written: `host`, `user@host`, `host:2222`, `user@host:2222`, `[::1]:22`.
//!
//! These words end up as arguments of ssh and as names in logs, so the letters are an allow-list:
//! nothing that a shell, ssh's own option parser or a terminal could take for something else.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

/// Longest host name, as in DNS.
pub const MAX_HOST_BYTES: usize = 255;

/// Longest user name; Linux itself stops at 32, directory services go further.
const MAX_USER_BYTES: usize = 64;

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// There is no host in it.
    #[error("the host is empty")]
    Empty,
    /// The host is longer than [`MAX_HOST_BYTES`].
    #[error("the host is longer than {MAX_HOST_BYTES} bytes")]
    TooLong,
    /// Host or user begin with `-`, which ssh would read as an option.
    #[error("a host or user must not begin with `-`")]
    Dash,
    /// The host holds something else than a host name does.
    #[error("a host holds only letters, digits, `.`, `_` and `-`")]
    Host,
    /// The user holds something else than a user name does.
    #[error("a user holds only letters, digits, `.`, `_`, `+` and `-`, at most {MAX_USER_BYTES} of them")]
    User,
    /// What stands in brackets, or has several colons, is not an IPv6 address.
    #[error("an IPv6 address is written in brackets: `[::1]` or `[::1]:22`")]
    Ipv6,
    /// The port is not a number from 1 to 65535.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

/// A host as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostAddress {
    /// The user to log in as, if named.
    pub user: Option<String>,
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// The SSH port, if named.
    pub port: Option<u16>,
}

impl FromStr for HostAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (user, place) = match text.split_once('@') {
            Some((user, place)) => (Some(check_user(user)?.to_owned()), place),
            None => (None, text),
        };
        let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']').ok_or(AddressError::Ipv6)?;
            let host = check_ipv6(host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(AddressError::Ipv6),
            }
        } else {
            match place.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(AddressError::Ipv6),
                Some((host, port)) => (check_name(host)?, Some(port)),
                None => (check_name(place)?, None),
            }
        };
        let port = port.map(parse_port).transpose()?;
        Ok(HostAddress { user, host: host.to_owned(), port })
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Checks a host alone: a name, an IPv4 address, or an IPv6 address without brackets.
///
/// # Errors
/// Any [`AddressError`] but `User` and `Port`.
pub fn check_host(host: &str) -> Result<&str, AddressError> {
    if host.contains(':') { check_ipv6(host) } else { check_name(host) }
}

/// Checks the name of a user to log in as.
///
/// # Errors
/// `Dash` or `User`.
pub fn check_user(user: &str) -> Result<&str, AddressError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    match user {
        _ if user.starts_with('-') => Err(AddressError::Dash),
        _ if user.is_empty() || user.len() > MAX_USER_BYTES || !user.bytes().all(good) => Err(AddressError::User),
        _ => Ok(user),
    }
}

fn check_name(host: &str) -> Result<&str, AddressError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match host {
        "" => Err(AddressError::Empty),
        _ if host.len() > MAX_HOST_BYTES => Err(AddressError::TooLong),
        _ if host.starts_with('-') => Err(AddressError::Dash),
        _ if !host.bytes().all(good) => Err(AddressError::Host),
        _ => Ok(host),
    }
}

/// An IPv6 address, with an interface after `%` where it is a link-local one.
fn check_ipv6(host: &str) -> Result<&str, AddressError> {
    let (address, zone) = host.split_once('%').map_or((host, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().map_err(|_| AddressError::Ipv6)?;
    match zone {
        Some(zone) => check_name(zone).map(|_| host),
        None => Ok(host),
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(AddressError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("web1", None, "web1", None)]
    #[case("web1.example.org", None, "web1.example.org", None)]
    #[case("10.0.0.1", None, "10.0.0.1", None)]
    #[case("deploy@web3", Some("deploy"), "web3", None)]
    #[case("deploy@web3:2222", Some("deploy"), "web3", Some(2222))]
    #[case("host:2222", None, "host", Some(2222))]
    #[case("[::1]", None, "::1", None)]
    #[case("[::1]:22", None, "::1", Some(22))]
    #[case("u@[fe80::1%eth0]:65535", Some("u"), "fe80::1%eth0", Some(65535))]
    fn hosts(#[case] text: &str, #[case] user: Option<&str>, #[case] host: &str, #[case] port: Option<u16>) {
        let parsed: HostAddress = text.parse().unwrap();
        assert_eq!((parsed.user.as_deref(), parsed.host.as_str(), parsed.port), (user, host, port));
        assert_eq!(parsed.to_string(), text);
    }

    #[rstest]
    #[case("", AddressError::Empty)]
    #[case("u@", AddressError::Empty)]
    #[case(":22", AddressError::Empty)]
    #[case("-oProxyCommand=x", AddressError::Dash)]
    #[case("u@-x", AddressError::Dash)]
    #[case("-l@web1", AddressError::Dash)]
    #[case("@web1", AddressError::User)]
    #[case("a b@web1", AddressError::User)]
    #[case("web 1", AddressError::Host)]
    #[case("web1\n", AddressError::Host)]
    #[case("web1\u{1b}[0m", AddressError::Host)]
    #[case("web;id", AddressError::Host)]
    #[case("a@b@c", AddressError::Host)]
    #[case("wéb", AddressError::Host)]
    #[case("::1", AddressError::Ipv6)]
    #[case("[::1", AddressError::Ipv6)]
    #[case("[web1]", AddressError::Ipv6)]
    #[case("[::1]22", AddressError::Ipv6)]
    #[case("[fe80::1%e;h]", AddressError::Host)]
    #[case("web1:", AddressError::Port)]
    #[case("web1:0", AddressError::Port)]
    #[case("web1:+22", AddressError::Port)]
    #[case("web1:65536", AddressError::Port)]
    #[case("web1:ssh", AddressError::Port)]
    fn refused(#[case] text: &str, #[case] expected: AddressError) {
        assert_eq!(text.parse::<HostAddress>(), Err(expected));
    }

    #[test]
    fn a_host_has_at_most_255_bytes() {
        assert!("a".repeat(255).parse::<HostAddress>().is_ok());
        assert_eq!("a".repeat(256).parse::<HostAddress>(), Err(AddressError::TooLong));
    }

    #[test]
    fn a_host_alone_may_be_an_ipv6_address() {
        assert_eq!(check_host("::1"), Ok("::1"));
        assert_eq!(check_host("web1:22"), Err(AddressError::Ipv6));
    }
}
