//! Who is in the fleet, and who of them is the primary.
//!
//! A [`Source`] is asked, and answers with everything that it knows now, or with one error. What is wrong with single
//! hosts is no error: they are [`Discovered::refused`], each with its name and the reason, and the others are served.
//! A source keeps nothing, connects to no host and decides nothing: what to do when it fails, and what to make of its
//! answer, is its caller's.
//!
//! | file          | source |
//! |---------------|--------|
//! | `fixed`       | a list, as of the configuration |
//! | `command`     | a program that prints an inventory |
//! | `inventory`   | that inventory: the JSON of `rfleet hosts --json` |
//! | `bucket`      | a TOML file in a bucket |
//! | `ec2`         | tags of EC2 instances |
//! | `identity`    | which EC2 instance this host is |

use thiserror::Error;

/// What a source knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The hosts, in order of their names, each name once. The asking host may be among them.
    pub hosts: Vec<Found>,
    /// The primary, where the source says it in another way than by the role of a host: a host name, short or full, or an
    /// instance id.
    pub primary: Option<String>,
    /// Hosts that were found and cannot be used.
    pub refused: Vec<Refused>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is called in options, logs and results; unique in the fleet.
    pub name: String,
    /// Where SSH connects to: a name, an IPv4 address, or an IPv6 address without brackets.
    pub address: String,
    /// What the source says that it is.
    pub role: FoundRole,
    /// What stays the same when the name or the address changes, such as an instance id.
    pub id: Option<String>,
    /// The SSH port; `None` leaves it to the configuration, or ssh.
    pub port: Option<u16>,
    /// The user to log in as; `None` leaves it to the configuration, or ssh.
    pub user: Option<String>,
    /// Its SSH host key as in a `.pub` file, without comment: `ssh-ed25519 AAAA...`.
    pub host_key: Option<String>,
}

/// What a host is, by its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FoundRole {
    /// The source does not say.
    #[default]
    Unknown,
    /// It pushes.
    Primary,
    /// It is pushed to.
    Secondary,
}

/// A host that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it is called, or its id; fit for a terminal.
    pub name: String,
    /// Why, in one line fit for a terminal.
    pub why: String,
}

/// Why a source gave no answer. Each is one line with a way out, fit for a terminal.
#[derive(Clone, Debug, Error)]
pub enum DiscoveryError {
    /// There are no credentials, or they have expired.
    #[error("{0}")]
    Credentials(String),
    /// The credentials do not allow it; the line names the permission that is missing.
    #[error("{0}")]
    Denied(String),
    /// Asked too often.
    #[error("{0}")]
    Throttled(String),
    /// No answer, or none in time.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that makes no sense, in whole: nothing of it is used.
    #[error("{0}")]
    Invalid(String),
}

/// A way to find the fleet.
pub trait Source: Send + Sync {
    /// Asks. Bounded in time, in memory and in the number of hosts.
    ///
    /// # Errors
    /// [`DiscoveryError`]; what was known before is still the best there is.
    fn find(&self) -> impl Future<Output = Result<Discovered, DiscoveryError>> + Send;
}
