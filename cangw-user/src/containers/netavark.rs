//! Podman's plugin: a program that netavark calls, with JSON on standard input and output (netavark, plugin-API.md).
//!
//! It needs no daemon: what it changes is in the kernel and on disk, as what the daemon changes, and both wait for each other.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cangw_common::guard::mix;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fabric::{Fabric, Kernel};
use super::networks::{Networks, refused};
use super::options::{Given, NetworkOptions};
use super::store::{Endpoint, Engine};
use crate::capability;
use crate::error::{Error, Result};
use crate::rule::is_interface_name;

/// The largest request that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What is said of a network (`types::Network`).
#[derive(Deserialize)]
struct Network {
    id: String,
    #[serde(default)]
    options: Option<Given>,
    #[serde(default)]
    subnets: Option<Vec<Value>>,
    #[serde(default)]
    ipam_options: Option<Given>,
}

/// What is said of a container's interface (`types::PerNetworkOptions`).
#[derive(Deserialize)]
struct OfContainer {
    interface_name: String,
    #[serde(default)]
    static_ips: Option<Vec<String>>,
    #[serde(default)]
    static_mac: Option<String>,
    #[serde(default)]
    options: Option<Given>,
}

#[derive(Deserialize)]
struct Call {
    container_id: String,
    #[serde(default)]
    container_name: String,
    network: Network,
    network_options: OfContainer,
}

/// Runs the plugin: `create`, `setup FILE`, `teardown FILE` or `info`, with the file of the container's network namespace.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let networks = Networks::new(&super::folder(), Kernel);
    let mut input = Vec::new();
    let result = match arguments.first() {
        Some(&"info") | None => Ok(()),
        Some(_) => io::stdin()
            .take(LARGEST)
            .read_to_end(&mut input)
            .map(drop)
            .map_err(|e| Error::io("read standard input", e)),
    };
    let may = match arguments.first() {
        Some(&("setup" | "teardown")) => capability::require("giving a container its network"),
        _ => Ok(()),
    };
    let answer = result
        .and(may)
        .and_then(|()| respond(&networks, &arguments, &input));
    let (text, code) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(e) => (json!({ "error": format!("cangw: {e}") }), ExitCode::FAILURE),
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Answers a call, when it wants an answer.
///
/// # Errors
/// What cannot be done, and why.
pub fn respond<F: Fabric>(
    networks: &Networks<F>,
    arguments: &[&str],
    input: &[u8],
) -> Result<Option<Value>> {
    match arguments {
        ["info"] => Ok(Some(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "api_version": "1.0.0",
        }))),
        ["create"] => create(input).map(Some),
        ["setup", sandbox] => setup(networks, Path::new(sandbox), &read(input)?).map(Some),
        ["teardown", _] => teardown(networks, &read(input)?).map(|()| None),
        _ => Err(refused(
            "netavark calls this program with create, setup FILE, teardown FILE or info; `podman network create -d cangw` makes it do so".into(),
        )),
    }
}

fn read<T: serde::de::DeserializeOwned>(input: &[u8]) -> Result<T> {
    serde_json::from_slice(input)
        .map_err(|e| refused(format!("the request cannot be understood: {e}")))
}

/// Checks a network, and says that its containers get no addresses.
fn create(input: &[u8]) -> Result<Value> {
    let network: Network = read(input)?;
    check(&network)?;
    let mut answer: Map<String, Value> = read(input)?;
    let ipam = answer.entry("ipam_options").or_insert(Value::Null);
    if ipam.is_null() {
        *ipam = json!({});
    }
    if let Some(ipam) = ipam.as_object_mut() {
        ipam.insert("driver".into(), "none".into());
    }
    Ok(Value::Object(answer))
}

fn check(network: &Network) -> Result<()> {
    let driver = network.ipam_options.as_ref();
    let driver = driver.and_then(|ipam| ipam.get("driver"));
    let has_driver = driver.is_some_and(|driver| driver != "none");
    if has_driver
        || network
            .subnets
            .as_ref()
            .is_some_and(|nets| !nets.is_empty())
    {
        return Err(refused(
            "CAN interfaces have no addresses; make the network with `podman network create -d cangw --ipam-driver none`".into(),
        ));
    }
    NetworkOptions::parse(&network.options.clone().unwrap_or_default()).map(drop)
}

fn setup<F: Fabric>(networks: &Networks<F>, sandbox: &Path, call: &Call) -> Result<Value> {
    check(&call.network)?;
    let of_container = &call.network_options;
    let interface = &of_container.interface_name;
    if of_container
        .static_ips
        .as_ref()
        .is_some_and(|ips| !ips.is_empty())
    {
        return Err(refused(
            "CAN interfaces have no addresses; leave --ip out".into(),
        ));
    }
    if of_container
        .static_mac
        .as_ref()
        .is_some_and(|mac| !mac.is_empty())
    {
        return Err(refused(
            "CAN interfaces have no MAC address; leave --mac-address out".into(),
        ));
    }
    if !is_interface_name(interface) {
        return Err(refused(format!(
            "{interface:?} cannot be an interface's name; give one by `--network NAME:interface_name=can0`"
        )));
    }
    let options = call.network.options.clone().unwrap_or_default();
    networks.create_network(&call.network.id, Engine::Podman, &options)?;
    let endpoint = Endpoint {
        network: call.network.id.clone(),
        options: of_container.options.clone().unwrap_or_default(),
        container: Some(call.container_name.clone()),
        sandbox: Some(PathBuf::from(sandbox)),
        interface: Some(interface.clone()),
    };
    let id = endpoint_id(call);
    // One of a container that was not taken down, because the machine went down instead.
    networks.delete_endpoint(&id)?;
    if let Err(e) = networks.attach(&id, endpoint) {
        let _ = networks.delete_unused(&call.network.id);
        return Err(e);
    }
    let mut interfaces = Map::new();
    interfaces.insert(
        interface.clone(),
        json!({ "mac_address": "", "subnets": null }),
    );
    Ok(json!({ "interfaces": interfaces }))
}

fn teardown<F: Fabric>(networks: &Networks<F>, call: &Call) -> Result<()> {
    networks.delete_endpoint(&endpoint_id(call))?;
    // Podman does not tell when a network goes.
    networks.delete_unused(&call.network.id)
}

/// A number for a container's interface, which netavark gives none. It is the same for all versions of this program.
fn endpoint_id(call: &Call) -> String {
    let interface = &call.network_options.interface_name;
    let names = [&call.container_id, "/", &call.network.id, "/", interface];
    let bytes = names.iter().flat_map(|name| name.bytes());
    let number = bytes.fold(0, |number, byte| mix(number ^ u64::from(byte)));
    format!("{number:016x}")
}
