//! A `cangwd` of a test.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::sys;
use crate::tool::{Cangw, in_memory, path_of};

/// After this time, what has not happened never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `cangwd` that runs, as its service manager sees it. It is killed with this.
pub struct Daemon {
    child: Child,
    /// What it tells its service manager. It is read at once, because the socket holds a few messages only, and the daemon would wait.
    told: Receiver<String>,
    /// Its files: the manager's socket, and its log.
    folder: PathBuf,
}

impl Daemon {
    /// Starts it in a namespace and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead, with what it logged.
    #[must_use]
    pub fn start(namespace: &Namespace, arguments: &[&str]) -> Self {
        let mut daemon = Self::spawn(namespace, arguments);
        daemon.wait_for("READY=1");
        daemon
    }

    /// As [`Self::start`], with a folder in which it remembers containers' networks.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(
        namespace: &Namespace,
        environment: &[(&str, &Path)],
        arguments: &[&str],
    ) -> Self {
        let mut daemon = Self::spawn_with(namespace, environment, arguments);
        daemon.wait_for("READY=1");
        daemon
    }

    /// Starts it.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn spawn(namespace: &Namespace, arguments: &[&str]) -> Self {
        Self::spawn_with(namespace, &[], arguments)
    }

    fn spawn_with(
        namespace: &Namespace,
        environment: &[(&str, &Path)],
        arguments: &[&str],
    ) -> Self {
        static COPY: LazyLock<File> =
            LazyLock::new(|| in_memory(&Cangw::Ours.path().with_file_name("cangwd")));
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("cangwd-test-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("a folder can be made");
        let socket = folder.join("notify");
        let manager = UnixDatagram::bind(&socket).expect("a socket can be made");
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = manager.recv(&mut buffer) {
                // Until nobody listens any more, which an empty message tells.
                if tell
                    .send(String::from_utf8_lossy(&buffer[..len]).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        let log = File::create(folder.join("log")).expect("a file can be made");
        let mut command = namespace.command(path_of(&COPY));
        // Should this process be killed.
        sys::limit_time(&mut command, 900);
        let child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .env("NOTIFY_SOCKET", &socket)
            // That it is alive, it says twice in this time.
            .env("WATCHDOG_USEC", "1000000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("cangwd runs");
        Self {
            child,
            told,
            folder,
        }
    }

    /// Waits for a line that it tells its service manager.
    ///
    /// # Panics
    /// When it ends before, or says nothing of the kind for a long time.
    pub fn wait_for(&mut self, line: &str) {
        let begin = std::time::Instant::now();
        loop {
            let told = self.told.recv_timeout(Duration::from_millis(100));
            if told.is_ok_and(|text| text.lines().any(|found| found == line)) {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("cangwd ended with {status}:\n{}", self.log());
            }
            assert!(begin.elapsed() < PATIENCE, "no {line}:\n{}", self.log());
        }
    }

    /// Whether it says within a time from now on that it is alive.
    pub fn is_alive_within(&mut self, time: Duration) -> bool {
        while self.told.try_recv().is_ok() {}
        let begin = std::time::Instant::now();
        while let Some(rest) = time.checked_sub(begin.elapsed()) {
            let told = self.told.recv_timeout(rest);
            if told.is_ok_and(|text| text.lines().any(|line| line == "WATCHDOG=1")) {
                return true;
            }
        }
        false
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: i32) {
        sys::signal(self.child.id(), signal).expect("cangwd can be told");
    }

    /// Lets it end by SIGTERM.
    ///
    /// # Panics
    /// When it fails, or does not end.
    pub fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.log()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let begin = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "it does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Lets the reader of its messages end.
        self.told = channel().1;
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to(&[], self.folder.join("notify"));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
