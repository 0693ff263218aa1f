//! A thread that runs beside the daemon until it is not wanted any more.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use tracing::warn;

/// Bytes of a thread's name that Linux keeps.
const NAME: usize = 15;

/// A thread. It is told to end, and waited for, when this goes.
pub(crate) struct Worker {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts it. It is to end when what it gets is ready.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        name: &str,
        work: impl FnOnce(oneshot::Receiver<()>) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name(name.chars().take(NAME).collect());
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread.spawn(move || work(stopped))?),
        })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            warn!("{name} ended with a panic");
        }
    }
}
