//! Whole files: what a good one means, and the one line that each bad one gives.

use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;

use super::raw::{Key, Keyed, RawFile};
use super::*;
use crate::model::Patterns;

const FULL: &str = include_str!("testdata/full.toml");
const EXAMPLE: &str = include_str!("../../examples/rfleet.toml");
const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// The least that a file must say, in five lines.
const LEAST: &str = "version = 1\nfleet = \"cms\"\n[[root]]\nname = \"a\"\npath = \"/srv/a\"\n";

fn env(name: &str) -> Option<String> {
    match name {
        "BUCKET" => Some("media".to_owned()),
        "LEVEL" => Some("..".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("F"), env)
}

fn parse_more(more: &str) -> Result<Config, ConfigError> {
    parse(&format!("{LEAST}{more}"))
}

fn names(hosts: &[StaticHost]) -> Vec<&str> {
    hosts.iter().map(|host| host.name.as_str()).collect()
}

#[test]
fn the_least_file_gets_every_default() {
    let config = parse(LEAST).unwrap();
    let root = RootConfig {
        name: "a".to_owned(),
        path: "/srv/a".into(),
        exclude: Patterns::default(),
        one_filesystem: false,
        max_size: None,
        delete: true,
        xattrs: true,
        delete_excluded: false,
        max_delete: None,
        require: None,
        key: "a/".to_owned(),
    };
    let expected = Config {
        fleet: "cms".to_owned(),
        roots: vec![root],
        role: None,
        discovery: DiscoveryConfig {
            source: DiscoverySource::Static,
            tag: "rfleet:fleet".to_owned(),
            hosts_tag: None,
            address: AddressSource::PrivateIp,
            refresh: Duration::from_secs(30),
            hosts: None,
            command: None,
            file: None,
        },
        hosts: Vec::new(),
        push: PushConfig {
            events: true,
            interval: Duration::from_secs(60),
            longest_interval: Duration::from_secs(900),
            settle: Duration::from_millis(50),
            settle_max: Duration::from_secs(2),
            verify_interval: Duration::from_secs(3600),
            parallel: 16,
            bandwidth: None,
            host_bandwidth: None,
            max_failures: 0,
            timeout: Duration::from_secs(30),
        },
        ssh: SshConfig {
            user: None,
            identity_file: None,
            known_hosts: None,
            host_keys: HostKeys::Strict,
            config: None,
            receiver: vec!["rfleet".to_owned(), "receive".to_owned()],
            connect_timeout: Duration::from_secs(10),
            persist: Some(Duration::from_secs(600)),
        },
        receive: ReceiveConfig {
            allow_delete: true,
            owner: OwnerPolicy::Preserve,
            setuid: false,
            devices: false,
            labels: false,
            durability: Durability::Commit,
            attic: Some(Duration::from_secs(7 * 24 * 3600)),
            attic_max: 10 << 30,
            quota: Quota::default(),
            sandbox: true,
            protect: Patterns::default(),
            timeout: Duration::from_secs(60),
            on_commit: Vec::new(),
        },
        mirror: None,
        failover: None,
        serve: ServeConfig { listen: Listen::Default, hosts: vec![], ready_max_age: None },
        path: "F".into(),
        warnings: Vec::new(),
    };
    assert_eq!(config, expected);
    assert_eq!(config.unavailable(), Vec::<String>::new());
}

#[test]
fn the_full_file_parses_whole() {
    let config = parse(FULL).unwrap();
    let root = &config.roots[0];
    assert_eq!((root.name.as_str(), root.key.as_str()), ("uploads", "uploads/"));
    assert_eq!(root.path, Path::new("/var/www/html/wp-content/uploads"));
    assert_eq!(root.exclude.lines().collect::<Vec<_>>(), ["cache/", "*.tmp"]);
    assert_eq!(root.require.as_deref(), Some(".rfleet-root"));
    let role = config.role.as_ref().unwrap();
    assert_eq!((role.source, role.primary.as_deref()), (RoleSource::Ec2Tag, Some("web1")));
    let discovery = &config.discovery;
    assert_eq!(discovery.source, DiscoverySource::Ec2);
    assert_eq!(discovery.hosts_tag.as_deref(), Some("rfleet:hosts"));
    let listed: Vec<String> = discovery.hosts.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(listed, ["web2", "deploy@web3:2222"]);
    assert_eq!(discovery.command.as_deref(), Some(&["./inventory".to_owned()][..]));
    assert_eq!(discovery.file.as_deref(), Some("s3://bucket/fleet.toml"));
    let host = config.host("web2").unwrap();
    assert_eq!(host.port, Some(22));
    assert_eq!(host.command.as_ref().unwrap().join(" "), "docker exec -i web rfleet receive");
    assert_eq!(config.root_path(root, "web2"), Path::new("/srv/uploads"));
    assert_eq!(config.root_path(root, "web3"), root.path);
    let interval = Duration::from_secs(60);
    let push = PushConfig { longest_interval: interval, ..parse(LEAST).unwrap().push };
    assert_eq!(config.push, push, "an interval that is given is kept");
    assert_eq!(config.ssh.user.as_deref(), Some("rfleet"));
    assert_eq!(config.ssh.identity_file.as_deref(), Some(Path::new("/etc/rfleet/id_ed25519")));
    assert_eq!(config.ssh.known_hosts.as_deref(), Some(Path::new("/etc/rfleet/known_hosts")));
    assert_eq!((config.ssh.config.as_deref(), config.ssh.receiver.join(" ")), (None, "rfleet receive".to_owned()));
    let hook = &config.receive.on_commit[0];
    assert_eq!(hook.patterns.lines().collect::<Vec<_>>(), ["*.php"]);
    assert_eq!((hook.run.join(" "), hook.timeout), ("systemctl reload php-fpm".to_owned(), Duration::from_secs(60)));
    let mirror = config.mirror.as_ref().unwrap();
    assert_eq!((mirror.url.as_str(), mirror.endpoint.as_deref(), mirror.concurrency), ("s3://bucket/prefix", None, 32));
    assert_eq!(mirror.cloudfront.as_ref().unwrap().paths, ["/wp-content/uploads/"]);
    let failover = config.failover.as_ref().unwrap();
    assert_eq!((failover.lease, failover.automatic, failover.ttl), (true, false, Duration::from_secs(15)));
    assert_eq!(failover.on_promote, [["/etc/rfleet/move-dns"]]);
}

#[test]
fn what_this_version_cannot_do_is_listed() {
    let config = parse(FULL).unwrap();
    assert_eq!(
        config.unavailable(),
        [
            "[role] source: this version knows only `static`",
            "[discovery] source: this version knows only `static`",
            "[mirror]: this version keeps no mirror",
            "[failover]: this version has no failover",
        ]
    );
    assert_eq!(config.warnings(), [""; 0]);
}

#[test]
fn what_of_a_root_is_synced() {
    let text = "version = 1\nfleet = \"c\"\n[[root]]\nname = \"o\"\npath = \"/srv/o\"\nexclude = [\"/in/\", \"/other/\"]\n\
                one_filesystem = true\nmax_size = \"100MiB\"\ndelete_excluded = true\n\
                [[root]]\nname = \"i\"\npath = \"/srv/o/in\"\n[[host]]\nname = \"h\"\npaths = { i = \"/srv/o/other\" }\n";
    let config = parse(text).unwrap();
    let root = &config.roots[0];
    assert_eq!((root.one_filesystem, root.max_size, root.delete_excluded), (true, Some(100 << 20), true));
    // Wherever the inner root lies on some host: no pattern in the tree may take that in.
    let inside: Vec<String> = config.roots_inside(root).iter().map(ToString::to_string).collect();
    assert_eq!(inside, ["in", "other"]);
    assert!(config.roots_inside(&config.roots[1]).is_empty());
}

#[test]
fn the_example_can_be_used_as_it_is() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.unavailable(), Vec::<String>::new());
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert_eq!(names(&config.static_hosts()), ["web2", "web3", "preview"]);
}

#[test]
fn every_key_is_in_the_reference() {
    fn missing(keys: &[Key], found: &mut Vec<&'static str>) {
        for key in keys {
            if !REFERENCE.contains(&format!("`{}`", key.name)) && !REFERENCE.contains(&format!("[{}]", key.name)) {
                found.push(key.name);
            }
            missing(key.keys.unwrap_or_default(), found);
        }
    }
    let mut found = Vec::new();
    missing(RawFile::KEYS.unwrap(), &mut found);
    assert_eq!(found, Vec::<&str>::new());
}

#[test]
fn a_host_s_own_bandwidth_goes_before_that_of_every_host() {
    let text = "[push]\nhost_bandwidth = \"1MB\"\n[[host]]\nname = \"slow\"\nbandwidth = \"5KB\"\n\
                [[host]]\nname = \"free\"\nbandwidth = 0\n[[host]]\nname = \"plain\"\n";
    let config = parse_more(text).unwrap();
    let rates = ["slow", "free", "plain", "unknown"].map(|host| config.host_bandwidth(host));
    assert_eq!(rates, [Some(5_000), None, Some(1_000_000), Some(1_000_000)]);
    assert_eq!(parse_more("").unwrap().host_bandwidth("x"), None);
}

/// A setting that every key accepts is worthless; this one shows that each value arrives.
#[test]
fn values_other_than_the_defaults_arrive() {
    let config = parse_more(
        r#"
        [push]
        events = false
        interval = "5m"
        settle = 0
        settle_max = "0"
        verify_interval = "1d"
        parallel = 3
        bandwidth = 1048576
        host_bandwidth = "10KB/s"
        max_failures = 5
        timeout = "500ms"
        [ssh]
        host_keys = "accept-new"
        config = "/etc/rfleet/ssh_config"
        receiver = "sudo '/opt/my rfleet/rfleet' receive"
        connect_timeout = "3s"
        persist = "0s"
        [receive]
        allow_delete = false
        owner = "fixed:www-data:33"
        setuid = true
        durability = "none"
        attic = 0
        attic_max = 1000
        quota = "20GiB"
        quota_entries = 1000000
        protect = ["wp-config.php", "/cache/"]
        timeout = "90s"
        [failover]
        lease = false
        [serve]
        listen = "[::]:80"
        hosts = ["status.example.org"]
        ready_max_age = "1h"
        "#,
    )
    .unwrap();
    let push = PushConfig {
        events: false,
        interval: Duration::from_secs(300),
        longest_interval: Duration::from_secs(300),
        settle: Duration::ZERO,
        settle_max: Duration::ZERO,
        verify_interval: Duration::from_secs(86_400),
        parallel: 3,
        bandwidth: Some(1 << 20),
        host_bandwidth: Some(10_000),
        max_failures: 5,
        timeout: Duration::from_millis(500),
    };
    assert_eq!(config.push, push);
    assert_eq!(config.ssh.host_keys, HostKeys::AcceptNew);
    assert_eq!(config.ssh.config.as_deref(), Some(Path::new("/etc/rfleet/ssh_config")));
    assert_eq!(config.ssh.receiver, ["sudo", "/opt/my rfleet/rfleet", "receive"]);
    assert_eq!((config.ssh.connect_timeout, config.ssh.persist), (Duration::from_secs(3), None));
    let fixed = OwnerPolicy::Fixed { user: "www-data".to_owned(), group: "33".to_owned() };
    assert_eq!((config.receive.owner, config.receive.durability), (fixed, Durability::None));
    assert_eq!((config.receive.attic, config.receive.attic_max), (None, 1000));
    assert_eq!((config.receive.allow_delete, config.receive.setuid), (false, true));
    assert_eq!(config.receive.quota, Quota { bytes: Some(20 << 30), entries: Some(1_000_000) });
    assert_eq!(config.receive.protect.lines().collect::<Vec<_>>(), ["wp-config.php", "/cache/"]);
    assert_eq!(config.receive.timeout, Duration::from_secs(90));
    assert_eq!(config.serve.listen, Listen::At("[::]:80".parse().unwrap()));
    assert_eq!(parse_more("[serve]\nlisten = \"off\"").unwrap().serve.listen, Listen::Off);
    assert_eq!(config.serve.hosts, ["status.example.org"]);
    assert_eq!(config.serve.ready_max_age, Some(Duration::from_secs(3600)));
}

#[rstest]
#[case("", &[])]
#[case("[[host]]\nname = \"x\"\n[[host]]\nname = \"y\"\nport = 2222\n", &["x", "y"])]
#[case("[discovery]\nrefresh = \"1m\"\n[[host]]\nname = \"x\"\n", &["x"])]
#[case("[discovery]\nhosts = [\"z\", \"x\"]\n[[host]]\nname = \"x\"\nport = 22\n", &["z", "x"])]
#[case("[discovery]\nhosts = [\"z\"]\n[[host]]\nname = \"x\"\ncommand = [\"sh\"]\n", &["z", "x"])]
#[case("[discovery]\nhosts = [\"z\"]\n[[host]]\nname = \"x\"\n", &["z"])]
#[case("[discovery]\nhosts = []\n[[host]]\nname = \"x\"\n", &[])]
#[case("[discovery]\nsource = \"ec2\"\nhosts = [\"z\"]\n[[host]]\nname = \"x\"\n", &[])]
fn members(#[case] more: &str, #[case] expected: &[&str]) {
    assert_eq!(names(&parse_more(more).unwrap().static_hosts()), expected);
}

#[test]
fn a_member_takes_what_its_table_adds() {
    let config =
        parse_more("[discovery]\nhosts = [\"u@Web2\", \"[::1]:23\"]\n[[host]]\nname = \"web2\"\nport = 2222\n");
    let hosts = config.unwrap().static_hosts();
    let member = |name: &str, user: Option<&str>, port| StaticHost {
        name: name.to_owned(),
        address: name.to_owned(),
        user: user.map(str::to_owned),
        port: Some(port),
    };
    assert_eq!(hosts, [member("Web2", Some("u"), 2222), member("::1", None, 23)]);
}

#[test]
fn a_host_that_is_no_member_is_a_warning() {
    let config = parse_more("[discovery]\nhosts = [\"z\"]\n[[host]]\nname = \"x\"\n").unwrap();
    assert_eq!(config.warnings(), ["[[host]] x: not in [discovery] hosts, so not a member of the fleet"]);
}

#[test]
fn variables_are_expanded_in_values_of_every_depth() {
    let config = parse_more("[mirror]\nurl = \"s3://${BUCKET}/$${x}\"\n[[host]]\nname = \"x\"\npaths = { a = \"/srv/${BUCKET}\" }\ncommand = [\"${BUCKET}\"]\n").unwrap();
    assert_eq!(config.mirror.as_ref().unwrap().url, "s3://media/${x}");
    assert_eq!(config.root_path(&config.roots[0], "x"), Path::new("/srv/media"));
    assert_eq!(config.host("x").unwrap().command.as_ref().unwrap(), &["media"]);
}

#[test]
fn a_root_inside_another_is_allowed_where_that_one_leaves_it_out() {
    let outer = "version = 1\nfleet = \"c\"\n[[root]]\nname = \"o\"\npath = \"/srv/o/\"\nexclude = [\"/in/\"]\n";
    let inner = |path: &str| parse(&format!("{outer}[[root]]\nname = \"i\"\npath = \"{path}\"\n"));
    assert!(inner("/srv/o/in").is_ok());
    assert!(inner("/srv/o/in/deeper").is_ok());
    assert!(inner("/srv/other").is_ok());
    assert!(inner("/srv/o/else").is_err());
    assert!(inner("/srv").is_err());
}

/// Files that are wrong at the top.
#[rstest]
#[case("", "F:1: `version` is missing: write `version = 1`")]
#[case("version = 1", "F:1: `fleet` is missing: the name of the fleet")]
#[case("version = 1\nfleet = \"c\"", "F:1: `[[root]]` is missing: name at least one directory tree")]
#[case("version = 2", "F:1: version = `2`: this rfleet knows only version 1 of the configuration")]
#[case("\nversion = \"1\"", "F:2: version = `1`: expected a whole number")]
#[case("version = true", "F:1: version = `true`: expected a whole number")]
#[case(
    "version = 1\nfleet = \"a b\"",
    "F:2: fleet = `a b`: expected a letter or digit, then letters, digits, `.`, `_` or `-`, at most 64 in all"
)]
#[case(
    "version = 1\nfleet = \"\"",
    "F:2: fleet = ``: expected a letter or digit, then letters, digits, `.`, `_` or `-`, at most 64 in all"
)]
#[case("version = 1\nfleet = \"c\"\nroot = []", "F:3: root: name at least one directory tree")]
#[case("version = 1\nroot = 3", "F:2: root = `3`: expected a list")]
#[case("version = 1\npush = 3", "F:2: push = `3`: expected a table")]
#[case("version = 1\nverson = 1", "F:2: unknown key `verson` at the top level; did you mean `version`?")]
#[case("[pushh]\n", "F:1: unknown key `pushh` at the top level; did you mean `push`?")]
#[case("parallel = 3", "F:1: unknown key `parallel` at the top level; `parallel` belongs in the table `push`")]
#[case("version = 1\nversion = 1", "F:2: not valid TOML: duplicate key")]
#[case("version = \n", "F:1: not valid TOML: string values must be quoted, expected literal string")]
fn a_bad_file(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(parse(text).unwrap_err().to_string(), expected);
}

/// What is wrong in lines 3 and following, which here are the root's.
#[rstest]
#[case("path = \"/srv/a\"", "F:3: [[root]] `name` is missing: what the root is called on every host")]
#[case("name = \"a\"", "F:3: [[root]] `path` is missing: the directory to keep the same")]
#[case(
    "name = \".a\"\npath = \"/a\"",
    "F:4: [[root]] name = `.a`: expected a letter or digit, then letters, digits, `.`, `_` or `-`, at most 64 in all"
)]
#[case("name = \"a\"\npath = \"srv/a\"", "F:5: [[root]] path = `srv/a`: expected an absolute path")]
#[case("name = \"a\"\npath = \"\"", "F:5: [[root]] path = ``: must not be empty")]
#[case("name = \"a\"\npath = \"/\"", "F:5: [[root]] path = `/`: `/` cannot be a root; name a directory in it")]
#[case(
    "name = \"a\"\npath = \"/srv/../a\"",
    "F:5: [[root]] path = `/srv/../a`: not a usable path: it has a `.` or `..` component"
)]
#[case(
    "name = \"a\"\npath = \"/srv/${LEVEL}/a\"",
    "F:5: [[root]] path = `/srv/../a`: not a usable path: it has a `.` or `..` component"
)]
#[case(
    "name = \"a\"\npath = \"/srv//a\"",
    "F:5: [[root]] path = `/srv//a`: not a usable path: it has an empty component"
)]
#[case(
    "name = \"a\"\npath = \"/a/.rfleet\"",
    "F:5: [[root]] path = `/a/.rfleet`: not a usable path: the name `.rfleet` is reserved"
)]
#[case("name = \"a\"\npath = \"/a\\nb\"", "F:5: [[root]] path = `/a\\nb`: must not hold control characters")]
#[case(
    "name = \"a\"\npath = \"/${HOME2}\"",
    "F:5: [[root]] path = `/${HOME2}`: the environment variable `HOME2` is not set"
)]
#[case(
    "name = \"a\"\npath = \"/${HOME\"",
    "F:5: [[root]] path = `/${HOME`: `${` has no closing `}`; write `$${` for a literal `${`"
)]
#[case("name = \"a\"\npath = \"/a\"\nexlude = []", "F:6: unknown key `exlude` in [[root]]; did you mean `exclude`?")]
#[case("nmae = \"a\"\npath = \"/a\"", "F:4: unknown key `nmae` in [[root]]; did you mean `name`?")]
#[case(
    "zzz = 1",
    "F:4: unknown key `zzz` in [[root]]; known here: name, path, exclude, one_filesystem, max_size, delete, xattrs, delete_excluded, max_delete, require, key"
)]
#[case("name = \"a\"\npath = \"/a\"\nexclude = \"x\"", "F:6: [[root]] exclude = `x`: expected a list")]
#[case("name = \"a\"\npath = \"/a\"\nexclude = [\n\"x\",\n3]", "F:8: [[root]] exclude = `3`: expected a string")]
#[case(
    "name = \"a\"\npath = \"/a\"\nexclude = [\"[z-a]\"]",
    "F:6: [[root]] exclude = `[z-a]`: not a pattern in gitignore syntax: the range `z-a` is empty"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nexclude = [\"#x\"]",
    "F:6: [[root]] exclude = `#x`: a pattern that begins with `#` is a comment; write `\\\\#`"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nexclude = [\"a[b\"]",
    "F:6: [[root]] exclude = `a[b`: not a pattern in gitignore syntax: a `[` is not closed"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\none_filesytem = true",
    "F:6: unknown key `one_filesytem` in [[root]]; did you mean `one_filesystem`?"
)]
#[case("name = \"a\"\npath = \"/a\"\nmaxsize = 1", "F:6: unknown key `maxsize` in [[root]]; did you mean `max_size`?")]
#[case(
    "name = \"a\"\npath = \"/a\"\ndelete_exclude = true",
    "F:6: unknown key `delete_exclude` in [[root]]; did you mean `delete_excluded`?"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nmax_size = \"big\"",
    "F:6: [[root]] max_size = `big`: expected a size such as `64MiB`, `10GB` or a number of bytes"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\ndelete = false\ndelete_excluded = true",
    "F:7: [[root]] delete_excluded = `true`: nothing is deleted with `delete = false`"
)]
#[case("name = \"a\"\npath = \"/a\"\nexclude = [\"\"]", "F:6: [[root]] exclude = ``: must not be empty")]
#[case("name = \"a\"\npath = \"/a\"\ndelete = \"yes\"", "F:6: [[root]] delete = `yes`: expected `true` or `false`")]
#[case(
    "name = \"a\"\npath = \"/a\"\nmax_delete = \"101%\"",
    "F:6: [[root]] max_delete = `101%`: expected a count such as `100` or a share from `0%` to `100%`"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nmax_delete = -1",
    "F:6: [[root]] max_delete = `-1`: expected a count such as `100` or a share from `0%` to `100%`"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nmax_delete = 0.25",
    "F:6: [[root]] max_delete = `0.25`: expected a string or a whole number"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nrequire = \"/x\"",
    "F:6: [[root]] require = `/x`: expected a name relative to the root: it has an empty component"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nrequire = \"../x\"",
    "F:6: [[root]] require = `../x`: expected a name relative to the root: it has a `.` or `..` component"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\nkey = \"../x\"",
    "F:6: [[root]] key = `../x`: expected a prefix such as `uploads/`: it has a `.` or `..` component"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\n[[root]]\nname = \"a\"\npath = \"/b\"",
    "F:7: [[root]] name = `a`: another root has this name; names are unique"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\n[[root]]\nname = \"b\"\npath = \"/a/\"",
    "F:8: [[root]] path = `/a/`: root `a` has the same path"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\n[[root]]\nname = \"b\"\npath = \"/a/b\"",
    "F:8: [[root]] path = `/a/b`: root `b` lies inside root `a`; add \"/b/\" to the exclude of `a`"
)]
#[case(
    "name = \"a\"\npath = \"/a/b\"\n[[root]]\nname = \"b\"\npath = \"/a\"",
    "F:5: [[root]] path = `/a/b`: root `a` lies inside root `b`; add \"/b/\" to the exclude of `b`"
)]
#[case(
    "name = \"a\"\npath = \"/a\"\n[[root]]\nname = \"b\"\npath = \"/b\"\nkey = \"a\"",
    "F:9: [[root]] key = `a`: root `a` has the same place in the mirror"
)]
fn a_bad_root(#[case] root: &str, #[case] expected: &str) {
    let text = format!("version = 1\nfleet = \"c\"\n[[root]]\n{root}\n");
    assert_eq!(parse(&text).unwrap_err().to_string(), expected);
}

/// What is wrong from line 6 on, after a root `a` at `/srv/a`.
#[rstest]
#[case("[role]\nprimary = \"x\"", "F:6: [role] `source` is missing: `static`, `ec2-tag`, `bucket` or `lease`")]
#[case(
    "[role]\nsource = \"static\"",
    "F:6: [role] `primary` is missing: `source = \"static\"` needs the primary's host name or instance id"
)]
#[case(
    "[role]\nsource = \"ec2\"",
    "F:7: [role] source = `ec2`: expected one of `static`, `ec2-tag`, `bucket`, `lease`; did you mean `ec2-tag`?"
)]
#[case(
    "[role]\nsource = \"static\"\nprimary = \"-x\"",
    "F:8: [role] primary = `-x`: a host or user must not begin with `-`"
)]
#[case(
    "[discovery]\nsource = \"file\"",
    "F:7: [discovery] source = `file`: expected one of `static`, `ec2`, `bucket`, `command`"
)]
#[case(
    "[discovery]\nsource = \"command\"",
    "F:6: [discovery] `command` is missing: `source = \"command\"` needs the program to run"
)]
#[case(
    "[discovery]\nsource = \"bucket\"",
    "F:6: [discovery] `file` is missing: `source = \"bucket\"` needs the URL of the file"
)]
#[case(
    "[discovery]\nfile = \"https://x/y\"",
    "F:7: [discovery] file = `https://x/y`: expected a URL that begins with `s3://`, `gs://`, `az://`, `file:///`"
)]
#[case(
    "[discovery]\naddress = \"private_ip\"",
    "F:7: [discovery] address = `private_ip`: expected one of `private-ip`, `private-dns`, `public-ip`, `public-dns`, `tag:NAME`; did you mean `private-ip`?"
)]
#[case("[discovery]\ntag = \"\"", "F:7: [discovery] tag = ``: must not be empty")]
#[case("[discovery]\nrefresh = 0", "F:7: [discovery] refresh = `0`: must be longer than 0")]
#[case(
    "[discovery]\nrefresh = 30",
    "F:7: [discovery] refresh = `30`: expected a duration such as `500ms`, `15s`, `1h30m` or `7d`"
)]
#[case(
    "[discovery]\nhosts = [\"ok\", \"-oProxyCommand=x\"]",
    "F:7: [discovery] hosts = `-oProxyCommand=x`: a host or user must not begin with `-`"
)]
#[case(
    "[discovery]\nhosts = [\"a b\"]",
    "F:7: [discovery] hosts = `a b`: a host holds only letters, digits, `.`, `_` and `-`"
)]
#[case("[discovery]\nhosts = [\"w\", \"u@W:22\"]", "F:7: [discovery] hosts = `u@W:22`: host `W` is listed twice")]
#[case("[discovery]\nhosts = [\"w:0\"]", "F:7: [discovery] hosts = `w:0`: a port is a number from 1 to 65535")]
#[case(
    "[discovery]\nhosts = [\"w\\u0007\"]",
    "F:7: [discovery] hosts = `w\\u{7}`: a host holds only letters, digits, `.`, `_` and `-`"
)]
#[case(
    "[discovery]\ncommand = []",
    "F:7: [discovery] command: expected a program and its arguments, such as `[\"docker\", \"exec\"]`"
)]
#[case("[[host]]\nport = 22", "F:6: [[host]] `name` is missing: which host this is about")]
#[case("[[host]]\nname = \"a/b\"", "F:7: [[host]] name = `a/b`: a host holds only letters, digits, `.`, `_` and `-`")]
#[case(
    "[[host]]\nname = \"x\"\n[[host]]\nname = \"x\"",
    "F:9: [[host]] name = `x`: another [[host]] has this name; names are unique"
)]
#[case("[[host]]\nname = \"x\"\nport = 0", "F:8: [[host]] port = `0`: expected a port from 1 to 65535")]
#[case("[[host]]\nname = \"x\"\nport = 65536", "F:8: [[host]] port = `65536`: expected a port from 1 to 65535")]
#[case(
    "[discovery]\nhosts = [\"x:23\"]\n[[host]]\nname = \"x\"\nport = 22",
    "F:10: [[host]] port = `22`: [discovery] hosts gives `x` port 23"
)]
#[case(
    "[[host]]\nname = \"x\"\ncommand = []",
    "F:8: [[host]] command: expected a program and its arguments, such as `[\"docker\", \"exec\"]`"
)]
#[case(
    "[[host]]\nname = \"x\"\ncommand = [\"\"]",
    "F:8: [[host]] command: expected a program and its arguments, such as `[\"docker\", \"exec\"]`"
)]
#[case(
    "[[host]]\nname = \"x\"\ncommand = [\"a\", \"b\\u0000\"]",
    "F:8: [[host]] command = `b\\u{0}`: an argument cannot hold a NUL"
)]
#[case("[[host]]\nname = \"x\"\npaths = { b = \"/b\" }", "F:8: [[host]] paths.b = `/b`: there is no root of this name")]
#[case("[[host]]\nname = \"x\"\npaths = { a = \"b\" }", "F:8: [[host]] paths.a = `b`: expected an absolute path")]
#[case(
    "[[host]]\nname = \"x\"\n[host.paths]\na = \"/\"",
    "F:9: [[host]] paths.a = `/`: `/` cannot be a root; name a directory in it"
)]
#[case(
    "[[root]]\nname = \"b\"\npath = \"/srv/b\"\n[[host]]\nname = \"x\"\npaths = { b = \"/srv/a/b\" }",
    "F:11: [[host]] paths.b = `/srv/a/b`: root `b` lies inside root `a`; add \"/b/\" to the exclude of `a`"
)]
#[case(
    "[[root]]\nname = \"b\"\npath = \"/srv/b\"\n[[host]]\nname = \"x\"\npaths = { a = \"/srv/b\" }",
    "F:11: [[host]] paths.a = `/srv/b`: root `b` has the same path"
)]
#[case(
    "[[root]]\nname = \"b\"\npath = \"/srv/b\"\n[[host]]\nname = \"x\"\npaths = { a = \"/srv\" }",
    "F:11: [[host]] paths: root `b` lies inside root `a`; add \"/b/\" to the exclude of `a`"
)]
#[case("[[host]]\nname = \"x\"\npaths = [\"/srv\"]", "F:8: [[host]] paths: expected a table")]
#[case("[push]\nparallel = 0", "F:7: [push] parallel = `0`: expected a number from 1 to 10000")]
#[case(
    "[push]\nparallel = 99999999999999999999",
    "F:7: [push] parallel = `99999999999999999999`: expected a whole number"
)]
#[case("[push]\nmax_failures = -1", "F:7: [push] max_failures = `-1`: expected a number from 0 to 4294967295")]
#[case(
    "[push]\nbandwidth = \"fast\"",
    "F:7: [push] bandwidth = `fast`: expected bytes per second such as `10MiB`, or `0` for no limit"
)]
#[case("[push]\ninterval = \"0s\"", "F:7: [push] interval = `0s`: must be longer than 0")]
#[case("[push]\nverify_interval = \"0s\"", "F:7: [push] verify_interval = `0s`: must be longer than 0")]
#[case("[receive]\ntimeout = \"0s\"", "F:7: [receive] timeout = `0s`: must be longer than 0")]
#[case("[push]\ntimeout = \"0s\"", "F:7: [push] timeout = `0s`: must be longer than 0")]
#[case(
    "[push]\nsettle = \"3s\"",
    "F:7: [push] settle = `3s`: settle_max (2000ms) must not be shorter than settle (3000ms)"
)]
#[case(
    "[push]\nsettle_max = \"1ms\"",
    "F:7: [push] settle_max = `1ms`: settle_max (1ms) must not be shorter than settle (50ms)"
)]
#[case("[push]\nevents = 1", "F:7: [push] events = `1`: expected `true` or `false`")]
#[case("[ssh]\nuser = \"-x\"", "F:7: [ssh] user = `-x`: a host or user must not begin with `-`")]
#[case(
    "[ssh]\nuser = \"\"",
    "F:7: [ssh] user = ``: a user holds only letters, digits, `.`, `_`, `+` and `-`, at most 64 of them"
)]
#[case("[ssh]\nidentity_file = \"id\"", "F:7: [ssh] identity_file = `id`: expected an absolute path without `..`")]
#[case(
    "[ssh]\nknown_hosts = \"~/.ssh/known_hosts\"",
    "F:7: [ssh] known_hosts = `~/.ssh/known_hosts`: `~` is not expanded; write `${HOME}`"
)]
#[case("[ssh]\nconfig = \"/a/../b\"", "F:7: [ssh] config = `/a/../b`: expected an absolute path without `..`")]
#[case("[ssh]\nhost_keys = \"no\"", "F:7: [ssh] host_keys = `no`: expected one of `strict`, `accept-new`")]
#[case("[ssh]\nreceiver = \"\"", "F:7: [ssh] receiver = ``: must not be empty")]
#[case("[ssh]\nreceiver = \" \"", "F:7: [ssh] receiver = ` `: expected a program and its arguments")]
#[case("[ssh]\nreceiver = \"a 'b\"", "F:7: [ssh] receiver = `a 'b`: a quote is not closed")]
#[case("[ssh]\nconnect_timeout = \"0\"", "F:7: [ssh] connect_timeout = `0`: must be longer than 0")]
#[case(
    "[receive]\nowner = \"root\"",
    "F:7: [receive] owner = `root`: expected one of `preserve`, `numeric`, `fixed:USER:GROUP`, `receiver`"
)]
#[case(
    "[receive]\nowner = \"fixed:www\"",
    "F:7: [receive] owner = `fixed:www`: expected `fixed:USER:GROUP`, names or numbers"
)]
#[case(
    "[receive]\nowner = \"fixed::g\"",
    "F:7: [receive] owner = `fixed::g`: expected `fixed:USER:GROUP`, names or numbers"
)]
#[case("[receive]\ndurability = \"full\"", "F:7: [receive] durability = `full`: expected one of `none`, `commit`")]
#[case(
    "[receive]\nattic = \"1\"",
    "F:7: [receive] attic = `1`: expected a duration such as `500ms`, `15s`, `1h30m` or `7d`"
)]
#[case(
    "[receive]\nattic_max = \"big\"",
    "F:7: [receive] attic_max = `big`: expected a size such as `64MiB`, `10GB` or a number of bytes"
)]
#[case(
    "[receive]\nquota = \"much\"",
    "F:7: [receive] quota = `much`: expected a size such as `64MiB`, `10GB` or a number of bytes"
)]
#[case(
    "[receive]\nquota_entries = -1",
    "F:7: [receive] quota_entries = `-1`: expected a number of entries, or 0 for no limit"
)]
#[case("[receive]\nattic_max = \"99999999TiB\"", "F:7: [receive] attic_max = `99999999TiB`: the number is too large")]
#[case(
    "[receive]\non_commit = [{ run = [\"x\"] }]",
    "F:7: [receive] on_commit `match` is missing: which paths the hook is for"
)]
#[case("[receive]\non_commit = [{ match = \"x\" }]", "F:7: [receive] on_commit `run` is missing: the program to run")]
#[case(
    "[receive]\non_commit = [{ mach = \"x\" }]",
    "F:7: unknown key `mach` in [receive] on_commit; did you mean `match`?"
)]
#[case(
    "[receive]\non_commit = [{ match = \"x\", run = [] }]",
    "F:7: [receive] on_commit.run: expected a program and its arguments, such as `[\"docker\", \"exec\"]`"
)]
#[case(
    "[receive]\non_commit = [{ match = \"!x\", run = [\"x\"] }]",
    "F:7: [receive] on_commit.match = `!x`: it matches nothing; `*` matches everything"
)]
#[case(
    "[receive]\non_commit = [{ match = \"/\", run = [\"x\"] }]",
    "F:7: [receive] on_commit.match = `/`: it matches nothing; `*` matches everything"
)]
#[case(
    "[receive]\non_commit = [{ match = \"x\", run = [\"x\"], timeout = 0 }]",
    "F:7: [receive] on_commit.timeout = `0`: must be longer than 0"
)]
#[case("[mirror]\npull = true", "F:6: [mirror] `url` is missing: the bucket and prefix")]
#[case(
    "[mirror]\nurl = \"bucket\"",
    "F:7: [mirror] url = `bucket`: expected a URL that begins with `s3://`, `gs://`, `az://`, `file:///`"
)]
#[case(
    "[mirror]\nurl = \"s3://\"",
    "F:7: [mirror] url = `s3://`: expected a URL that begins with `s3://`, `gs://`, `az://`, `file:///`"
)]
#[case(
    "[mirror]\nurl = \"s3://b\"\nendpoint = \"x\"",
    "F:8: [mirror] endpoint = `x`: expected a URL that begins with `http://`, `https://`"
)]
#[case(
    "[mirror]\nurl = \"s3://b\"\nconcurrency = 0",
    "F:8: [mirror] concurrency = `0`: expected a number from 1 to 10000"
)]
#[case("[mirror]\nurl = \"s3://b\"\ncloudfront = {}", "F:8: [mirror] cloudfront `distribution` is missing: its id")]
#[case(
    "[mirror]\nurl = \"s3://b\"\ncloudfront = { distribution = \"a/b\" }",
    "F:8: [mirror] cloudfront.distribution = `a/b`: expected an id such as `E1ABC2DEF3`"
)]
#[case(
    "[mirror]\nurl = \"s3://b\"\ncloudfront = { distribution = \"E1\", paths = [\"x\"] }",
    "F:8: [mirror] cloudfront.paths = `x`: expected a path that begins with `/`"
)]
#[case("[failover]\nttl = \"15s\"", "F:6: [failover]: a lease needs a [mirror]; add one or set `lease = false`")]
#[case(
    "[failover]\nlease = true",
    "F:7: [failover] lease = `true`: a lease needs a [mirror]; add one or set `lease = false`"
)]
#[case(
    "[failover]\nlease = false\nautomatic = true",
    "F:8: [failover] automatic = `true`: a host can promote itself only with `lease = true`"
)]
#[case("[failover]\nlease = false\nttl = 0", "F:8: [failover] ttl = `0`: must be longer than 0")]
#[case(
    "[failover]\nlease = false\non_promote = [[]]",
    "F:8: [failover] on_promote: expected a program and its arguments, such as `[\"docker\", \"exec\"]`"
)]
#[case(
    "[serve]\nlisten = \"localhost:80\"",
    "F:7: [serve] listen = `localhost:80`: expected an address and port such as `127.0.0.1:9460`, or `off`"
)]
#[case("[serve]\nhosts = [\"a b\"]", "F:7: [serve] hosts = `a b`: a host holds only letters, digits, `.`, `_` and `-`")]
fn a_bad_section(#[case] more: &str, #[case] expected: &str) {
    assert_eq!(parse_more(more).unwrap_err().to_string(), expected);
}

#[test]
fn a_long_value_is_not_repeated() {
    let message = parse(&format!("version = 1\nfleet = \"{}\"", "x".repeat(65))).unwrap_err().to_string();
    assert!(message.starts_with("F:2: fleet: expected"), "{message}");
}

#[test]
fn load_reads_the_file_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rfleet.toml");
    std::fs::write(&path, LEAST).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).unwrap();
    assert_eq!(Config::load(&path).unwrap().path, path);
}

/// No text makes the parser panic, and every error is one line.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(text) {
        let message = error.to_string();
        prop_assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        check_any(&text)?;
    }

    #[test]
    fn a_spoilt_file_never_panics(at in 0..FULL.len(), len in 0..40_usize, with in "[\\x00-\\x7f\u{80}-\u{ff}]{0,12}") {
        let end = (at + len).min(FULL.len());
        prop_assume!(FULL.is_char_boundary(at) && FULL.is_char_boundary(end));
        check_any(&format!("{}{with}{}", &FULL[..at], &FULL[end..]))?;
    }

    #[test]
    fn any_value_of_any_key_never_panics(line in 0..90_usize, value in "(\"[^\"\\\\]{0,20}\"|-?[0-9]{1,25}|\\[\\]|\\{\\}|true|1\\.5|1979-05-27)") {
        let lines: Vec<String> = FULL.lines().enumerate().map(|(nth, text)| match text.split_once(" = ") {
            Some((key, _)) if nth == line => format!("{key} = {value}"),
            _ => text.to_owned(),
        }).collect();
        check_any(&lines.join("\n"))?;
    }
}
