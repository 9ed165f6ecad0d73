//! Raw tables to the built configuration: defaults, ranges, and what must hold between sections.

mod fields;
mod members;
mod roots;
mod sections;

use std::path::Path;

use self::fields::name;
use super::Config;
use super::error::{Fault, Span};
use super::raw::{RawFailover, RawFile, RawMirror};
use super::unavailable;
use toml::Spanned;

/// The only version of the file's format.
const VERSION: i64 = 1;

/// Builds the configuration that `raw`, read from `path`, describes.
pub(super) fn build(raw: RawFile, path: &Path) -> Result<Config, Fault> {
    // The top-level table is the whole text, and a missing key of it is reported at its start.
    let top: Span = 0..0;
    let version = raw.version.ok_or_else(|| Fault::missing(top.clone(), "version", "write `version = 1`"))?;
    if version.get_ref().0 != VERSION {
        return Err(Fault::value(&version, "this rfleet knows only version 1 of the configuration"));
    }
    let fleet = raw.fleet.ok_or_else(|| Fault::missing(top.clone(), "fleet", "the name of the fleet"))?;
    let fleet = name(&fleet)?;
    let raw_roots = raw.root.ok_or_else(|| Fault::missing(top, "[[root]]", "name at least one directory tree"))?;
    let roots = roots::roots(raw_roots)?;
    let role = raw.role.map(sections::role).transpose()?;
    let discovery = members::discovery(raw.discovery)?;
    let hosts = members::hosts(raw.host, &roots, &discovery)?;
    check_failover(raw.failover.as_ref(), raw.mirror.as_ref())?;
    let mut config = Config {
        fleet,
        roots,
        role,
        discovery,
        hosts,
        push: sections::push(or_default(raw.push))?,
        ssh: sections::ssh(or_default(raw.ssh))?,
        receive: sections::receive(or_default(raw.receive))?,
        mirror: raw.mirror.map(sections::mirror).transpose()?,
        failover: raw.failover.map(Spanned::into_inner).map(sections::failover).transpose()?,
        serve: sections::serve(or_default(raw.serve))?,
        path: path.to_owned(),
        warnings: Vec::new(),
    };
    config.warnings = unavailable::warnings(&config);
    Ok(config)
}

fn or_default<T: Default>(section: Option<Spanned<T>>) -> T {
    section.map(Spanned::into_inner).unwrap_or_default()
}

/// A lease lies in the mirror's bucket, and only a lease can lapse.
fn check_failover(failover: Option<&Spanned<RawFailover>>, mirror: Option<&Spanned<RawMirror>>) -> Result<(), Fault> {
    let Some(section) = failover else { return Ok(()) };
    let failover = section.get_ref();
    let lease = failover.lease.as_ref().is_none_or(|lease| *lease.get_ref());
    if lease && mirror.is_none() {
        let problem = "a lease needs a [mirror]; add one or set `lease = false`";
        return Err(match &failover.lease {
            Some(lease) => Fault::value(lease, problem),
            None => Fault::value(section, problem),
        });
    }
    match &failover.automatic {
        Some(automatic) if *automatic.get_ref() && !lease => {
            Err(Fault::value(automatic, "a host can promote itself only with `lease = true`"))
        }
        _ => Ok(()),
    }
}
