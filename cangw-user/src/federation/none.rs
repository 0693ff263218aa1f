//! In place of Zenoh, in builds without its feature: nothing can be opened, and that is said.

use std::sync::Arc;

use super::config::Federation;
use super::engine::{
    Announcement, Answer, Class, EngineError, Event, Line, Message, Registry, Transport,
};
use super::wire::Session;

/// There is none.
pub(super) enum Engine {}

pub(super) async fn open(_: Arc<Federation>) -> Result<(Engine, Session), EngineError> {
    Err(EngineError::Down("this cangwd was built without its feature `zenoh`; install a released one, or build it with default features".into()))
}

impl Registry for Engine {
    async fn announce(&self, _: &Announcement) -> Result<(), EngineError> {
        match *self {}
    }

    async fn query(&self, _: &str, _: Session) -> Result<Answer, EngineError> {
        match *self {}
    }

    async fn watch(&self, _: impl Fn(Event) + Send + Sync + 'static) -> Result<(), EngineError> {
        match *self {}
    }

    async fn close(&self) {
        match *self {}
    }
}

impl Transport for Engine {
    type Line = Self;

    async fn dial(&self, _: &str) -> Result<Self, EngineError> {
        match *self {}
    }

    async fn accept(
        &self,
        _: &str,
        _: impl Fn(Message<'_>) + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        match *self {}
    }

    async fn close(&self) {
        match *self {}
    }
}

impl Line for Engine {
    fn send(&self, _: Class, _: &[u8], _: Vec<u8>) -> Result<(), EngineError> {
        match *self {}
    }
}
