//! `[discovery]` and `[[host]]`: who is in the fleet and what is special about each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::super::error::{Fault, Span};
use super::super::options::{AddressSource, Bandwidth, DiscoveryConfig, DiscoverySource, HostConfig, RootConfig};
use super::super::raw::{RawDiscovery, RawHost, Scalar, Tables, Texts};
use super::super::same_host;
use super::super::suggest::nearest;
use super::fields::{argv, choice, directory, expected_one_of, port, printable, rate, some_time, url};
use super::roots::{Place, check_nesting};
use crate::model::{HostAddress, check_host};

const SOURCES: &[(&str, DiscoverySource)] = &[
    ("static", DiscoverySource::Static),
    ("ec2", DiscoverySource::Ec2),
    ("bucket", DiscoverySource::Bucket),
    ("command", DiscoverySource::Command),
];

/// Schemes of object stores, and of a directory that stands for one.
pub(super) const STORE_SCHEMES: &[&str] = &["s3://", "gs://", "az://", "file:///"];

pub(super) fn discovery(raw: Option<Spanned<RawDiscovery>>) -> Result<DiscoveryConfig, Fault> {
    let raw = raw.unwrap_or_else(|| Spanned::new(0..0, RawDiscovery::default()));
    let table = raw.span();
    let raw = raw.into_inner();
    let source = raw.source.as_ref().map_or(Ok(DiscoverySource::Static), |source| choice(source, SOURCES))?;
    if source == DiscoverySource::Command && raw.command.is_none() {
        return Err(Fault::missing(table, "command", "`source = \"command\"` needs the program to run"));
    }
    if source == DiscoverySource::Bucket && raw.file.is_none() {
        return Err(Fault::missing(table, "file", "`source = \"bucket\"` needs the URL of the file"));
    }
    Ok(DiscoveryConfig {
        source,
        tag: match &raw.tag {
            Some(tag) => printable(tag)?.to_owned(),
            None => "rfleet:fleet".to_owned(),
        },
        hosts_tag: raw.hosts_tag.as_ref().map(printable).transpose()?.map(str::to_owned),
        address: raw.address.as_ref().map_or(Ok(AddressSource::PrivateIp), address_source)?,
        refresh: some_time(raw.refresh, Duration::from_secs(30))?,
        hosts: raw.hosts.as_ref().map(members).transpose()?,
        command: raw.command.as_ref().map(argv).transpose()?,
        file: raw.file.as_ref().map(|file| url(file, STORE_SCHEMES)).transpose()?,
    })
}

fn address_source(field: &Spanned<String>) -> Result<AddressSource, Fault> {
    match field.get_ref().as_str() {
        "private-ip" => Ok(AddressSource::PrivateIp),
        "private-dns" => Ok(AddressSource::PrivateDns),
        "public-ip" => Ok(AddressSource::PublicIp),
        "public-dns" => Ok(AddressSource::PublicDns),
        text => match printable(field)?.strip_prefix("tag:") {
            Some(tag) if !tag.is_empty() => Ok(AddressSource::Tag(tag.to_owned())),
            _ => {
                let words = ["private-ip", "private-dns", "public-ip", "public-dns", "tag:NAME"];
                Err(Fault::value(field, expected_one_of(text, words.into_iter())))
            }
        },
    }
}

fn members(raw: &Spanned<Texts>) -> Result<Vec<HostAddress>, Fault> {
    let mut members: Vec<HostAddress> = Vec::new();
    for text in raw.get_ref() {
        let member: HostAddress = text.get_ref().parse().map_err(|error| Fault::value(text, error))?;
        if members.iter().any(|other| same_host(&other.host, &member.host)) {
            return Err(Fault::value(text, format!("host `{}` is listed twice", member.host)));
        }
        members.push(member);
    }
    Ok(members)
}

pub(super) fn hosts(
    raw: Option<Spanned<Tables<RawHost>>>,
    roots: &[RootConfig],
    discovery: &DiscoveryConfig,
) -> Result<Vec<HostConfig>, Fault> {
    let mut hosts: Vec<HostConfig> = Vec::new();
    for table in raw.map(Spanned::into_inner).unwrap_or_default() {
        let host = host(table, roots, discovery, &hosts)?;
        hosts.push(host);
    }
    Ok(hosts)
}

fn host(
    table: Spanned<RawHost>,
    roots: &[RootConfig],
    discovery: &DiscoveryConfig,
    others: &[HostConfig],
) -> Result<HostConfig, Fault> {
    let span = table.span();
    let raw = table.into_inner();
    let name = raw.name.ok_or_else(|| Fault::missing(span, "name", "which host this is about"))?;
    check_host(name.get_ref()).map_err(|error| Fault::value(&name, error))?;
    if others.iter().any(|other| same_host(&other.name, name.get_ref())) {
        return Err(Fault::value(&name, "another [[host]] has this name; names are unique"));
    }
    let port_span = raw.port.as_ref().map(Spanned::span);
    let port = port(raw.port)?;
    check_ports_agree(name.get_ref(), port.zip(port_span), discovery)?;
    Ok(HostConfig {
        port,
        paths: raw.paths.map(|paths| places(paths, roots)).transpose()?.unwrap_or_default(),
        command: raw.command.as_ref().map(argv).transpose()?,
        bandwidth: raw.bandwidth.map(bandwidth).transpose()?,
        name: name.into_inner(),
    })
}

fn bandwidth(field: Spanned<Scalar>) -> Result<Bandwidth, Fault> {
    Ok(rate(Some(field))?.map_or(Bandwidth::Unlimited, Bandwidth::Limited))
}

/// A port in `hosts` and another one in `[[host]]` leave it open which is meant.
fn check_ports_agree(name: &str, port: Option<(u16, Span)>, discovery: &DiscoveryConfig) -> Result<(), Fault> {
    let Some((port, span)) = port else { return Ok(()) };
    let mut members = discovery.hosts.iter().flatten();
    match members.find(|member| same_host(&member.host, name)).and_then(|member| member.port) {
        Some(other) if other != port => {
            Err(Fault::value(&Spanned::new(span, ()), format!("[discovery] hosts gives `{name}` port {other}")))
        }
        _ => Ok(()),
    }
}

/// Places of roots on one host; together with the places of the other roots they must not nest.
fn places(
    raw: Spanned<BTreeMap<String, Spanned<String>>>,
    roots: &[RootConfig],
) -> Result<BTreeMap<String, PathBuf>, Fault> {
    let mut paths = BTreeMap::new();
    let mut spans: BTreeMap<String, Span> = BTreeMap::new();
    let all = raw.span();
    for (root, path) in raw.into_inner() {
        if !roots.iter().any(|known| known.name == root) {
            let names = || roots.iter().map(|root| root.name.as_str());
            let hint = nearest(&root, names()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(Fault::value(&path, format!("there is no root of this name{hint}")));
        }
        paths.insert(root.clone(), directory(&path)?);
        spans.insert(root, path.span());
    }
    let here: Vec<Place> = roots
        .iter()
        .map(|root| Place {
            root,
            path: paths.get(&root.name).unwrap_or(&root.path),
            span: spans.get(&root.name).unwrap_or(&all).clone(),
        })
        .collect();
    check_nesting(&here)?;
    Ok(paths)
}
