//! A gateway with its daemon, for tests in which there are several.
#![expect(
    clippy::missing_panics_doc,
    reason = "what cannot be done fails a test"
)]

use std::fs;
use std::path::PathBuf;

use crate::daemon::Daemon;
use crate::namespace::Namespace;
use crate::socket::CanSocket;
use crate::tool::{Answer, Cangw};

/// A gateway with a daemon and a topology.
pub struct Site {
    /// That of its topology.
    pub name: String,
    /// Where its daemon runs.
    pub gateway: Namespace,
    /// With its topology's file.
    pub folder: PathBuf,
    /// Its daemon, when it runs.
    pub daemon: Option<Daemon>,
}

impl Site {
    /// One whose topology is called so, with the bus `body`, the ECU `engine` on it, and more.
    #[must_use]
    pub fn new(name: &str, more: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("cangw-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder can be made");
        let topology = format!(
            "version = 1\nname = \"{name}\"\n[bus.body]\n[ecu.engine]\ninterfaces = {{ can0 = \"body\" }}\n{more}"
        );
        fs::write(folder.join("topology.toml"), topology).expect("a file can be written");
        Self {
            name: name.to_owned(),
            gateway: Namespace::new(name),
            folder,
            daemon: None,
        }
    }

    /// Starts its daemon.
    pub fn start(&mut self) {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (socket, topology) = (path("socket"), path("topology.toml"));
        let environment = [("STATE_DIRECTORY", &*self.folder)];
        let arguments = ["--socket", &socket, &topology];
        self.daemon = Some(Daemon::start_with(&self.gateway, &environment, &arguments));
    }

    /// The ECU's socket.
    #[must_use]
    pub fn engine(&self) -> CanSocket {
        CanSocket::open(
            &Namespace::of_others(&format!("{}.engine", self.name)),
            "can0",
        )
    }

    /// What cangw answers there.
    #[must_use]
    pub fn cangw(&self, arguments: &str) -> Answer {
        let mut command = Cangw::Ours.command(&self.gateway);
        command
            .args(arguments.split_whitespace())
            .env("CANGW_SOCKET", self.folder.join("socket"));
        command.output().expect("cangw runs").into()
    }

    /// What its daemon has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Ports of tunnels and federations in the namespace of the buses.
    #[must_use]
    pub fn ports(&self) -> Vec<String> {
        let links = Namespace::of_others(&self.name).output("ip", &["-brief", "link"]);
        let names = links
            .lines()
            .filter_map(|line| line.split(['@', ' ']).next());
        names
            .filter(|name| name.contains('.'))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.daemon = None;
        let _ = Cangw::Ours.run(&self.gateway, &format!("down {}", self.name));
        let _ = fs::remove_dir_all(&self.folder);
    }
}
