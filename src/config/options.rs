//! The built configuration: plain typed values, checked, with defaults filled in.

pub use crate::receive::{CommitHook, Durability, OwnerPolicy, Quota};
pub use crate::transport::HostKeys;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::values::DeleteLimit;
use crate::model::{HostAddress, Patterns};

/// `[[root]]`: one directory tree to keep the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootConfig {
    /// Its name on every host.
    pub name: String,
    /// Where it lies, absolute and normalised; a host can have its own place for it.
    pub path: PathBuf,
    /// What is left out, in gitignore syntax.
    pub exclude: Patterns,
    /// Whether other filesystems that are mounted below are left out.
    pub one_filesystem: bool,
    /// Larger files are left out; in bytes.
    pub max_size: Option<u64>,
    /// Whether what vanished here is deleted on the secondaries.
    pub delete: bool,
    /// Whether extended attributes and ACLs are synced.
    pub xattrs: bool,
    /// Whether what patterns leave out is deleted there, too; only with `delete`.
    pub delete_excluded: bool,
    /// How many deletions a cycle may do; `None`: the file does not say.
    pub max_delete: Option<DeleteLimit>,
    /// A file that must exist in the source; a relative name.
    pub require: Option<String>,
    /// Prefix under the mirror's own: empty, or ends with `/`.
    pub key: String,
}

/// `[role]`: how a host knows whether it is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleConfig {
    /// Where the role is read.
    pub source: RoleSource,
    /// The primary's host name or instance id; always there with [`RoleSource::Static`].
    pub primary: Option<String>,
}

/// Where a host's role is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleSource {
    /// A tag of the EC2 instance.
    Ec2Tag,
    /// The file in a bucket that discovery reads.
    Bucket,
    /// The holder of the lease.
    Lease,
    /// This configuration.
    Static,
}

/// `[discovery]`: who is in the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// Where the members are found.
    pub source: DiscoverySource,
    /// EC2: the tag whose value is the fleet's name.
    pub tag: String,
    /// EC2: the tags on the primary that list the secondaries instead.
    pub hosts_tag: Option<String>,
    /// EC2: which address of an instance is used.
    pub address: AddressSource,
    /// How long a result is used before discovery runs again.
    pub refresh: Duration,
    /// Static: the members; `None` if the key is absent (then every `[[host]]` is one).
    pub hosts: Option<Vec<HostAddress>>,
    /// Command: what prints the members; never empty.
    pub command: Option<Vec<String>>,
    /// Bucket: URL of the file that lists the members.
    pub file: Option<String>,
}

/// Where the members of the fleet are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoverySource {
    /// Tags of EC2 instances.
    Ec2,
    /// A file in a bucket.
    Bucket,
    /// This configuration.
    Static,
    /// A command's output.
    Command,
}

/// Which address of an EC2 instance is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// The private IPv4 address.
    PrivateIp,
    /// The private DNS name.
    PrivateDns,
    /// The public IPv4 address.
    PublicIp,
    /// The public DNS name.
    PublicDns,
    /// The value of this tag.
    Tag(String),
}

/// `[[host]]`: what discovery cannot know of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// The host it is about.
    pub name: String,
    /// Its SSH port.
    pub port: Option<u16>,
    /// Places of roots that differ on this host, by root name; absolute and normalised.
    pub paths: BTreeMap<String, PathBuf>,
    /// What gives stdin and stdout of its receiver instead of SSH; never empty.
    pub command: Option<Vec<String>>,
    /// What may be sent to it; `None`: as `[push] host_bandwidth` says.
    pub bandwidth: Option<Bandwidth>,
}

/// A bound on what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bandwidth {
    /// None.
    Unlimited,
    /// Bytes per second, at least 1.
    Limited(u64),
}

/// `[push]`: how the primary pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// Whether the agent watches for file events.
    pub events: bool,
    /// Time between full scans of the agent.
    pub interval: Duration,
    /// Longest time between them, where they take long and file events leave nothing for them to find; `interval`
    /// itself where that is given.
    pub longest_interval: Duration,
    /// Quiet time before a changed file is sent.
    pub settle: Duration,
    /// Longest time that `settle` may hold a file back; not below `settle`.
    pub settle_max: Duration,
    /// Time between verifications of a host.
    pub verify_interval: Duration,
    /// Hosts at a time, at least 1.
    pub parallel: u32,
    /// Bytes per second to all hosts together, `None` without a limit.
    pub bandwidth: Option<u64>,
    /// Bytes per second to each host, `None` without a limit.
    pub host_bandwidth: Option<u64>,
    /// Failed cycles in a row after which the agent exits; 0 is never.
    pub max_failures: u32,
    /// Silence after which a host is given up.
    pub timeout: Duration,
}

/// `[ssh]`: how hosts are reached. What is `None` is left to ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshConfig {
    /// User to log in as, unless the host names one.
    pub user: Option<String>,
    /// Private key; absolute.
    pub identity_file: Option<PathBuf>,
    /// Known host keys; absolute.
    pub known_hosts: Option<PathBuf>,
    /// What to do with a host key that is not known.
    pub host_keys: HostKeys,
    /// An ssh_config file; absolute.
    pub config: Option<PathBuf>,
    /// What runs on the far side, split into words; never empty.
    pub receiver: Vec<String>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// How long a connection of a push outlives its last use; `None` ends it with the push.
    pub persist: Option<Duration>,
}

/// `[receive]`: this host's own policy as a secondary. Nothing on the wire can widen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveConfig {
    /// Whether deletions are done.
    pub allow_delete: bool,
    /// Whom files belong to.
    pub owner: OwnerPolicy,
    /// Whether setuid and setgid bits are kept.
    pub setuid: bool,
    /// Whether named pipes and devices are made.
    pub devices: bool,
    /// Whether attributes of security modules, other than capabilities, are set.
    pub labels: bool,
    /// What is on disk before a commit is acknowledged.
    pub durability: Durability,
    /// How long replaced and deleted files are kept; `None` if they are not.
    pub attic: Option<Duration>,
    /// Largest size of what is kept, in bytes.
    pub attic_max: u64,
    /// How much each root may hold.
    pub quota: Quota,
    /// Whether the receiver confines itself to its roots.
    pub sandbox: bool,
    /// What no primary changes in any root, in gitignore syntax.
    pub protect: Patterns,
    /// Silence after which a primary is given up.
    pub timeout: Duration,
    /// What runs after a commit.
    pub on_commit: Vec<CommitHook>,
}

/// `[mirror]`: the copy in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorConfig {
    /// `s3://`, `gs://`, `az://` or `file:///` URL.
    pub url: String,
    /// Endpoint of an S3-compatible store, an `http://` or `https://` URL.
    pub endpoint: Option<String>,
    /// Whether changes that others make in the bucket are taken in.
    pub pull: bool,
    /// Whether a secondary takes changes from the bucket.
    pub follow: bool,
    /// Requests at a time, at least 1.
    pub concurrency: u32,
    /// The CDN in front of it.
    pub cloudfront: Option<CloudfrontConfig>,
}

/// `[mirror] cloudfront`: what is invalidated after a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudfrontConfig {
    /// Id of the distribution.
    pub distribution: String,
    /// Path prefixes, each with a leading `/`.
    pub paths: Vec<String>,
}

/// `[failover]`: the right to be primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverConfig {
    /// Whether the primary holds a lease in the mirror's bucket.
    pub lease: bool,
    /// How long a lease holds without renewal.
    pub ttl: Duration,
    /// Whether this host may promote itself when the lease lapses.
    pub automatic: bool,
    /// What runs on promotion; none of them empty.
    pub on_promote: Vec<Vec<String>>,
}

/// Where something listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// At [`DEFAULT_LISTEN`], if that is free.
    #[default]
    Default,
    /// There, as the file says.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// Where the status is served unless the file says otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9460);

/// `[serve]`: HTTP for status, metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Where it listens.
    pub listen: Listen,
    /// Names under which it may be asked for, besides this host's own.
    pub hosts: Vec<String>,
    /// How old the last complete state of a ready secondary may be; `None` is no bound.
    pub ready_max_age: Option<Duration>,
}
