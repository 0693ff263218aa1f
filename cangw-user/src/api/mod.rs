//! What `cangwd` does for other programs: methods, each with a name, what it takes and what it answers (docs/api.md).
//!
//! A request is one JSON object on a line, `{"id": METHOD, "data": {…}}`; so is the answer, `{"success": …, "error": …, "data": {…}}`. Descriptors
//! come with the answer as `SCM_RIGHTS`.

pub mod client;
pub mod methods;
pub mod service;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Where `cangwd` listens when systemd starts it.
pub const SOCKET: &str = "/run/cangw/cangwd.sock";
/// Raised when a method takes or answers something else than before. What is only more leaves it as it is.
pub const VERSION: u32 = 1;
/// Bytes of a request, at most.
pub const LONGEST: usize = 4 << 20;

/// Something that `cangwd` does.
pub trait Call: Serialize + DeserializeOwned {
    /// Its name.
    const ID: &'static str;
    /// Whether it changes something, so that the group `cangw` may use it; what only looks is for `cangw-read`, too.
    const CHANGES: bool;
    /// What it answers.
    type Reply: Serialize + DeserializeOwned;
}

/// What needs nothing but the kernel, so that every process with the privileges can do it.
pub trait Method: Call {
    /// Does it in this process and this network namespace.
    ///
    /// # Errors
    /// What the gateway says.
    fn perform(self) -> Result<Self::Reply>;
}

/// A request, before its data are looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The method's name.
    pub id: String,
    /// What it is told.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// The version of the API that the client knows; without it, the one that there is.
    pub api: Option<u32>,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self> {
        let request: Self =
            serde_json::from_slice(line).map_err(|e| refused(format!("not a request: {e}")))?;
        match request.api {
            Some(api) if api != VERSION => Err(refused(format!(
                "the client knows version {api} of the API, but this cangwd has version {VERSION}; install the same version of both"
            ))),
            _ => Ok(request),
        }
    }

    /// The method with what it is told.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn call<M: Call>(self) -> Result<M> {
        serde_json::from_value(Value::Object(self.data))
            .map_err(|e| refused(format!("{}: {e}", M::ID)))
    }
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub success: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What came of it. Of an error: `errno`, if can-gw has one for it.
    #[serde(default)]
    pub data: Value,
}

impl From<Result<Value>> for Answer {
    fn from(result: Result<Value>) -> Self {
        match result {
            Ok(data) => Self {
                success: true,
                error: None,
                data,
            },
            Err(error) => Self {
                success: false,
                data: error
                    .errno()
                    .map_or(json!({}), |errno| json!({"errno": errno})),
                error: Some(error.to_string()),
            },
        }
    }
}

/// A reply as JSON.
///
/// # Errors
/// Never for what the methods answer.
pub fn value<T: Serialize>(reply: &T) -> Result<Value> {
    serde_json::to_value(reply).map_err(|e| Error::io("write JSON", e.into()))
}

/// An error of a request.
#[must_use]
pub fn refused(message: impl Into<String>) -> Error {
    Error::Remote {
        message: message.into(),
        errno: None,
    }
}
