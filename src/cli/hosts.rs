//! `rfleet hosts`: what discovery finds now.

use clap::Args;
use serde_json::json;

use super::{Exit, Global, fleet};

/// Arguments of `rfleet hosts`.
#[derive(Args)]
pub(super) struct HostsArgs {
    /// A JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &HostsArgs) -> Exit {
    let config = match global.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let own = fleet::own_name();
    let primary = config.role.as_ref().and_then(|role| role.primary.clone());
    let role = |name: &str| match &primary {
        Some(primary) if fleet::is_own(name, primary) => "primary",
        Some(_) => "secondary",
        None if fleet::is_own(name, &own) => "primary",
        None => "secondary",
    };
    let hosts = config.static_hosts();
    if args.json {
        let array = hosts.iter().map(|host| {
            let mut object = json!({
                "name": host.name, "address": host.address, "role": role(&host.name), "source": "static",
            });
            if let Some(port) = host.port {
                object["port"] = port.into();
            }
            if let Some(user) = &host.user {
                object["user"] = user.as_str().into();
            }
            object
        });
        super::say::out(format_args!("{:#}\n", serde_json::Value::Array(array.collect())));
    } else {
        let width = hosts.iter().map(|host| host.name.len()).max().unwrap_or(0);
        for host in &hosts {
            super::say::out(format_args!("{:width$}  {:9}  {}\n", host.name, role(&host.name), host.address));
        }
    }
    Exit::Done
}
