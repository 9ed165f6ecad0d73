//! What could not be set of the entries of a session, in numbers: a line each for the report, none where all could.

use crate::model::{AttributeClass, Fidelity, Kind, Meta};

/// Entries that did not get all of what they have at the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shortfalls {
    /// By their owner or their group.
    pub(super) owners: u64,
    /// By setuid or setgid of a file.
    set_ids: u64,
    /// By setgid of a directory.
    pub(super) setgid: u64,
    /// By their time, which the filesystem cannot hold.
    times: u64,
    /// By attributes of a class, in the order of [`CLASSES`].
    attributes: [u64; CLASSES.len()],
}

const CLASSES: [(AttributeClass, &str); 5] = [
    (AttributeClass::User, "`user.*` attributes"),
    (AttributeClass::Acl, "ACLs"),
    (AttributeClass::Trusted, "`trusted.*` attributes"),
    (AttributeClass::Capability, "capabilities"),
    (AttributeClass::Label, "labels"),
];

/// What the lines say of the receiver.
pub(super) struct Teller<'t> {
    /// Who it runs as.
    pub(super) user: &'t str,
    /// Capabilities that it would need to give files away.
    pub(super) missing: &'t [&'t str],
    /// Its policy allows setuid and the like.
    pub(super) setuid: bool,
    /// Its policy allows labels.
    pub(super) labels: bool,
}

impl Shortfalls {
    /// Counts an entry that was set as far as `fidelity` goes.
    pub(super) fn note(&mut self, kind: &Kind, meta: &Meta, fidelity: Fidelity, owner_denied: bool) {
        self.owners += u64::from(owner_denied);
        self.times += u64::from(!fidelity.times.reaches(meta.mtime));
        let is_symlink = matches!(kind, Kind::Symlink { .. });
        self.set_ids += u64::from(!is_symlink && meta.mode & 0o6000 & !fidelity.mode(kind, meta.mode) != 0);
        for ((class, _), count) in CLASSES.iter().zip(&mut self.attributes) {
            let is_left_out =
                |name: &[u8]| AttributeClass::of(name) == Some(*class) && !fidelity.attributes.holds(name);
            *count += u64::from(meta.attributes.iter().any(|one| is_left_out(&one.name)));
        }
    }

    /// A line for each kind of shortfall.
    pub(super) fn told(&self, teller: &Teller<'_>) -> Vec<String> {
        let Teller { user, missing, setuid, labels } = teller;
        let mut lines = Vec::new();
        if self.owners > 0 {
            let lacks = if missing.is_empty() { String::new() } else { format!(" (no {})", missing.join(", ")) };
            lines.push(format!(
                "the owner of {} entries could not be set: the receiver runs as {user}, which may not give files \
                 away{lacks}",
                self.owners
            ));
        }
        let why = |allowed: bool, setting: &str| match allowed {
            true => format!("the receiver runs as {user}, which may not set them"),
            false => format!("[receive] {setting} = false there"),
        };
        if self.set_ids > 0 {
            lines.push(format!("setuid or setgid of {} files was left out: {}", self.set_ids, why(*setuid, "setuid")));
        }
        if self.setgid > 0 {
            lines.push(format!(
                "setgid of {} directories could not be kept: the receiver runs as {user}, which is not in their group",
                self.setgid
            ));
        }
        for ((class, name), count) in CLASSES.iter().zip(self.attributes) {
            let why = match class {
                _ if count == 0 => continue,
                // Every file of a host with SELinux has one, and they are not meant for other hosts.
                AttributeClass::Label if !labels => continue,
                AttributeClass::User | AttributeClass::Acl => "the filesystem there has none".to_owned(),
                AttributeClass::Capability => why(*setuid, "setuid"),
                AttributeClass::Trusted | AttributeClass::Label => why(true, ""),
            };
            lines.push(format!("{name} of {count} entries were left out: {why}"));
        }
        if self.times > 0 {
            lines.push(format!(
                "{} entries have times that the filesystem here cannot hold: they got the nearest that it can",
                self.times
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Attribute, Attributes, TimeFidelity, Timestamp};

    fn meta(mode: u32, names: &[&str]) -> Meta {
        let one = |name: &&str| Attribute { name: name.as_bytes().into(), value: vec![1] };
        Meta { mode, attributes: Attributes::new(names.iter().map(one).collect()).unwrap(), ..Meta::default() }
    }

    const TELLER: Teller<'_> = Teller { user: "deploy", missing: &["cap_chown"], setuid: true, labels: true };

    #[test]
    fn what_is_held_is_not_told() {
        let mut short = Shortfalls::default();
        let all = ["security.capability", "security.selinux", "trusted.a", "user.a"];
        short.note(&Kind::file(1), &meta(0o6755, &all), Fidelity::FULL, false);
        short.note(&Kind::Directory, &meta(0o2755, &[]), Fidelity::LEAST, false);
        short.note(&Kind::Symlink { target: Box::default() }, &meta(0o7777, &[]), Fidelity::LEAST, false);
        assert_eq!(short, Shortfalls::default());
        assert!(short.told(&TELLER).is_empty());
    }

    #[test]
    fn each_kind_of_shortfall_is_one_line_with_its_reason() {
        let mut short = Shortfalls::default();
        let times = TimeFidelity { first: 0, last: 10, step_nanos: 1 };
        let least = Fidelity { times, ..Fidelity::LEAST };
        let all =
            ["security.capability", "security.selinux", "system.posix_acl_access", "trusted.a", "trusted.b", "user.a"];
        for _ in 0..3 {
            let late = Meta { mtime: Timestamp { secs: 11, nanos: 0 }, ..meta(0o4755, &all) };
            short.note(&Kind::file(1), &late, least, true);
        }
        let told = short.told(&TELLER);
        assert_eq!(told.len(), 8, "{told:#?}");
        assert!(told.iter().all(|line| line.contains('3') && !line.contains('6')), "{told:#?}");
        assert!(told[0].ends_with("the receiver runs as deploy, which may not give files away (no cap_chown)"));
        assert!(told[1].ends_with("left out: the receiver runs as deploy, which may not set them"), "{told:#?}");
        let policy = short.told(&Teller { setuid: false, labels: false, ..TELLER });
        assert_eq!(policy.len(), 7, "{policy:#?}");
        assert!(policy[1].ends_with("left out: [receive] setuid = false there"), "{policy:#?}");
        assert!(!policy.iter().any(|line| line.contains("labels")));
    }
}
