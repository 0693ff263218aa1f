//! Docker's remote network driver: the calls that dockerd makes (libnetwork, drivers/remote/api).
//!
//! Calls come again when an answer was lost, and in any order after a restart, so each leaves what it asks for in whichever state it finds things.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::dockerd;
use super::fabric::Fabric;
use super::networks::{Joined, Networks, refused};
use super::options::Given;
use super::store::Engine;
use crate::error::{Error, Result};

/// Where the options of `docker network create -o` are.
const GENERIC: &str = "com.docker.network.generic";
/// What Docker's own options begin with.
const DOCKERS: &str = "com.docker.";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(default)]
    options: Option<Map<String, Value>>,
    #[serde(default, rename = "IPv4Data")]
    ipv4: Option<Vec<Pool>>,
    #[serde(default, rename = "IPv6Data")]
    ipv6: Option<Vec<Pool>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pool {
    #[serde(default)]
    pool: Option<String>,
}

#[derive(Deserialize)]
struct OfNetwork {
    #[serde(rename = "NetworkID")]
    network: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
    #[serde(default)]
    interface: Option<Interface>,
    #[serde(default)]
    options: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    #[serde(default)]
    address: String,
    #[serde(default, rename = "AddressIPv6")]
    address_ipv6: String,
    #[serde(default)]
    mac_address: String,
}

#[derive(Deserialize)]
struct OfEndpoint {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

#[derive(Deserialize)]
struct Join {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
    #[serde(rename = "SandboxKey")]
    sandbox: PathBuf,
}

/// Answers a call: always with an object, which has `Err` when the call failed.
pub fn answer<F: Fabric>(networks: &Networks<F>, path: &str, body: &[u8]) -> Value {
    match respond(networks, path, body) {
        Ok(answer) => answer,
        Err(e) => json!({ "Err": format!("cangw: {e}") }),
    }
}

fn respond<F: Fabric>(networks: &Networks<F>, path: &str, body: &[u8]) -> Result<Value> {
    match path {
        "/Plugin.Activate" => Ok(json!({ "Implements": ["NetworkDriver"] })),
        "/NetworkDriver.GetCapabilities" => {
            Ok(json!({ "Scope": "local", "ConnectivityScope": "local" }))
        }
        "/NetworkDriver.CreateNetwork" => {
            let call: CreateNetwork = read(body)?;
            let pools = [call.ipv4, call.ipv6].into_iter().flatten().flatten();
            for pool in pools.filter_map(|pool| pool.pool) {
                // The driver `null` has these.
                if !matches!(pool.as_str(), "" | "0.0.0.0/0" | "::/0") {
                    return Err(refused(format!(
                        "CAN interfaces have no addresses, but the network would have {pool}; make it with `docker network create -d cangw --ipam-driver null`"
                    )));
                }
            }
            let options = call.options.unwrap_or_default();
            let given = options.get(GENERIC).and_then(Value::as_object);
            let given = given.map(texts).transpose()?.unwrap_or_default();
            let create = || networks.create_network(&call.network, Engine::Docker, &given);
            match create() {
                Err(Error::InterfaceExists { name })
                    if networks
                        .forget_given_up(&name, || dockerd::networks().ok().flatten())? =>
                {
                    create()?;
                }
                made => made?,
            }
            Ok(json!({}))
        }
        "/NetworkDriver.DeleteNetwork" => {
            networks.delete_network(&read::<OfNetwork>(body)?.network)?;
            Ok(json!({}))
        }
        "/NetworkDriver.CreateEndpoint" => {
            let call: CreateEndpoint = read(body)?;
            let interface = call.interface.unwrap_or_default();
            if !interface.address.is_empty() || !interface.address_ipv6.is_empty() {
                return Err(refused(format!(
                    "CAN interfaces have no addresses, but this one would have {}{}; leave --ip out, and make the network with --ipam-driver null",
                    interface.address, interface.address_ipv6
                )));
            }
            if !interface.mac_address.is_empty() {
                return Err(refused(format!(
                    "CAN interfaces have no MAC address, but this one would have {}; leave --mac-address out, or give it to another network of the container",
                    interface.mac_address
                )));
            }
            let mut options = call.options.unwrap_or_default();
            options.retain(|key, _| !key.starts_with(DOCKERS));
            networks.create_endpoint(&call.endpoint, &call.network, &texts(&options)?)?;
            Ok(json!({}))
        }
        "/NetworkDriver.EndpointOperInfo" => {
            let OfEndpoint { network, endpoint } = read(body)?;
            if !networks.has_endpoint(&endpoint, &network)? {
                return Err(refused(format!(
                    "there is no endpoint {endpoint} on network {network}"
                )));
            }
            Ok(json!({ "Value": {} }))
        }
        "/NetworkDriver.Join" => {
            let call: Join = read(body)?;
            let Joined { source, prefix } =
                networks.join(&call.endpoint, &call.network, &call.sandbox)?;
            Ok(json!({
                "InterfaceName": { "SrcName": source, "DstPrefix": prefix },
                // No other network is needed to reach the world.
                "DisableGatewayService": true,
            }))
        }
        "/NetworkDriver.Leave" => {
            networks.leave(&read::<OfEndpoint>(body)?.endpoint)?;
            Ok(json!({}))
        }
        "/NetworkDriver.DeleteEndpoint" => {
            networks.delete_endpoint(&read::<OfEndpoint>(body)?.endpoint)?;
            Ok(json!({}))
        }
        // A bus leads nowhere and knows nobody by name.
        "/NetworkDriver.ProgramExternalConnectivity"
        | "/NetworkDriver.RevokeExternalConnectivity"
        | "/NetworkDriver.DiscoverNew"
        | "/NetworkDriver.DiscoverDelete" => Ok(json!({})),
        "/NetworkDriver.AllocateNetwork" | "/NetworkDriver.FreeNetwork" => Err(refused(
            "CAN networks are of one host; leave `--scope swarm` out".into(),
        )),
        _ => Err(refused(format!("there is no call {path}"))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::Container {
        message: format!("the request cannot be understood: {e}"),
    })
}

/// Options whose values are text, or have one that cannot be mistaken.
fn texts(options: &Map<String, Value>) -> Result<Given> {
    let text = |(key, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            _ => return Err(refused(format!("option {key} has a value that is no text"))),
        };
        Ok((key.clone(), text))
    };
    options.iter().map(text).collect()
}
