//! Recorded identifiers in the terms of a DBC file.

use cangw_common::frame::{ERR_FLAG, FrameType, RTR_FLAG};
use serde::Serialize;

use crate::dbc::{Dbc, Message};
use crate::gateway::WatchedId;

/// A recorded identifier, with the message that it is.
#[derive(Serialize)]
pub(super) struct Decoded<'a> {
    #[serde(flatten)]
    pub(super) watched: &'a WatchedId,
    /// Name of the message, if the file has one.
    pub(super) message: Option<&'a str>,
    /// The signals in the last frame.
    pub(super) signals: Vec<Value<'a>>,
}

/// A signal in a frame.
#[derive(Serialize)]
pub(in crate::cli) struct Value<'a> {
    /// Which signal of the message it is: two can have the same name.
    #[serde(skip)]
    pub(super) index: usize,
    pub(super) name: &'a str,
    /// Physical value.
    pub(super) value: f64,
    pub(super) unit: &'a str,
    /// Name of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
}

impl<'a> Decoded<'a> {
    /// All identifiers, in the same order. Without a file, none has a message.
    pub(super) fn all(ids: &'a [WatchedId], dbc: Option<&'a Dbc>) -> Vec<Self> {
        let decoded = |watched: &'a WatchedId| {
            let message = dbc.and_then(|dbc| message(watched.kind, watched.can_id(), dbc));
            Self {
                watched,
                message: message.map(|message| message.name.as_str()),
                signals: message.map_or_else(Vec::new, |m| values(m, &watched.data)),
            }
        };
        ids.iter().map(decoded).collect()
    }
}

/// The message of a frame, and the one that a remote request asks for. The classes of an error frame and the priority of a CAN XL
/// frame are no identifiers, even where they are the same number.
pub(in crate::cli) fn message(kind: FrameType, can_id: u32, dbc: &Dbc) -> Option<&Message> {
    if can_id & ERR_FLAG != 0 || kind == FrameType::Xl {
        return None;
    }
    dbc.by_id(can_id & !RTR_FLAG)
}

/// The signals of a message in its data.
pub(in crate::cli) fn values<'a>(message: &'a Message, data: &[u8]) -> Vec<Value<'a>> {
    let decoded = message.decode(data).into_iter();
    decoded
        .map(|(signal, value)| Value {
            index: message
                .signals
                .iter()
                .position(|other| std::ptr::eq(other, signal))
                .unwrap_or_default(),
            name: &signal.name,
            value,
            unit: &signal.unit,
            text: signal.text(value),
        })
        .collect()
}
