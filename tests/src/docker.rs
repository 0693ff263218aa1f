//! A dockerd of a test, with a `cangwd` as its network driver, in a network namespace.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::Daemon;
use crate::namespace::Namespace;
use crate::sys;
use crate::tool::{Answer, Cangw};

/// After this time, what has not happened never will.
const PATIENCE: Duration = Duration::from_secs(90);
/// Name of the image that all containers are made of.
pub const IMAGE: &str = "box";
/// The driver's control socket.
pub const CONTROL: &str = "/run/cangw/cangwd.sock";
/// The socket on which Docker calls it.
pub const DRIVER: &str = "/run/docker/plugins/cangw.sock";
/// Folders that dockerd and containerd write to and that are the host's: a layer in memory lies above each.
const LAYERS: [&str; 2] = ["/etc", "/opt"];

/// dockerd and its driver. Both end with this, and their containers.
pub struct Docker<'a> {
    namespace: &'a Namespace,
    home: PathBuf,
    dockerd: Option<Child>,
    /// Its driver.
    pub cangwd: Option<Daemon>,
}

impl<'a> Docker<'a> {
    /// Starts both, with topologies that the driver keeps.
    ///
    /// # Panics
    /// When one of them does not start.
    #[must_use]
    pub fn start(namespace: &'a Namespace, topologies: &[&str]) -> Self {
        let home = std::env::temp_dir().join(format!("cangw-docker-{}", std::process::id()));
        fs::create_dir(&home).expect("a folder can be made");
        for layer in LAYERS {
            let own = home.join(&layer[1..]);
            for folder in ["upper", "work"] {
                fs::create_dir_all(own.join(folder)).expect("a folder can be made");
            }
            let own = own.display();
            let options = format!("lowerdir={layer},upperdir={own}/upper,workdir={own}/work");
            must(Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay", layer]));
        }
        let mut docker = Self {
            namespace,
            home,
            dockerd: None,
            cangwd: None,
        };
        docker.start_cangwd(topologies);
        docker.start_dockerd();
        docker.import();
        docker
    }

    /// Starts the driver.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_cangwd(&mut self, topologies: &[&str]) {
        let arguments = [&["--docker", "--socket", CONTROL], topologies].concat();
        let (state, host) = (self.state(), self.host());
        let environment = [
            ("STATE_DIRECTORY", &*state),
            ("DOCKER_HOST", Path::new(&host)),
        ];
        let daemon = Daemon::start_with(self.namespace, &environment, &arguments);
        self.cangwd = Some(daemon);
    }

    /// Kills the driver, and starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn kill_cangwd(&mut self) {
        // Dropping it kills it.
        self.cangwd = None;
        self.start_cangwd(&[]);
    }

    /// Starts dockerd and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_dockerd(&mut self) {
        let home = self.home.display();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.join("log"));
        let log = log.expect("a file can be made");
        let mut command = self.command("usr/sbin/dockerd");
        sys::limit_time(&mut command, 900);
        let child = command
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
                "--storage-driver=vfs",
            ])
            .arg(format!("--data-root={home}/data"))
            .arg(format!("--exec-root={home}/exec"))
            .arg(format!("--pidfile={home}/pid"))
            .arg(format!("--host={}", self.host()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log)
            .spawn()
            .expect("dockerd runs: `cargo xtask setup` fetches it");
        self.dockerd = Some(child);
        let begin = Instant::now();
        while self.run("version").code != 0 {
            assert!(
                begin.elapsed() < PATIENCE,
                "dockerd does not answer:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Kills dockerd, as a crash does. Its containers go on for now.
    ///
    /// # Panics
    /// When it is not there.
    pub fn kill_dockerd(&mut self) {
        let mut dockerd = self.dockerd.take().expect("it runs");
        dockerd.kill().expect("it can be killed");
        let _ = dockerd.wait();
    }

    /// The image: busybox, from a tar.
    fn import(&self) {
        let root = self.home.join("image");
        fs::create_dir_all(root.join("bin")).expect("a folder can be made");
        fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("there is busybox");
        for name in ["sh", "sleep", "nc", "echo"] {
            symlink("busybox", root.join("bin").join(name)).expect("a link can be made");
        }
        let tar = self.home.join("image.tar");
        must(
            Command::new("tar")
                .arg("-C")
                .arg(&root)
                .arg("-cf")
                .arg(&tar)
                .arg("."),
        );
        self.must(&format!("import {} {IMAGE}", tar.display()));
    }

    /// Where it listens, for `DOCKER_HOST`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.home.display())
    }

    /// Where the driver remembers networks.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Runs `docker compose` with a file, and arguments divided at spaces.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn compose(&self, file: &Path, arguments: &str) {
        let mut command = self.command("usr/libexec/docker/cli-plugins/docker-compose");
        sys::limit_time(&mut command, 240);
        let command = command
            .arg("--file")
            .arg(file)
            .args(arguments.split_whitespace());
        let answer = Answer::from(command.output().expect("docker-compose runs"));
        assert_eq!(answer.code, 0, "{}\n{}", answer.stderr, self.log());
    }

    /// A client of its own, for another thread.
    #[must_use]
    pub fn client(&self) -> Client {
        Client(self.command("usr/bin/docker"))
    }

    fn command(&self, program: &str) -> Command {
        let folder = std::env::var_os("CANGW_TEST_DOCKER");
        let folder = PathBuf::from(
            folder
                .expect("CANGW_TEST_DOCKER: run this with `cargo xtask test` or `cargo xtask vm`"),
        );
        let mut command = self.namespace.command(folder.join(program));
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|path| folder.join(path).display().to_string());
        let programs = ["usr/sbin", "usr/bin"].map(|path| folder.join(path).display().to_string());
        let path = std::env::var("PATH").expect("a PATH");
        command
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .env("PATH", format!("{}:{path}", programs.join(":")))
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.home.join("config"));
        command
    }

    /// Runs `docker`, with arguments divided at spaces.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn run(&self, arguments: &str) -> Answer {
        self.client().run(arguments)
    }

    /// As [`Self::run`], of what succeeds: what it says.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn must(&self, arguments: &str) -> String {
        let answer = self.run(arguments);
        assert_eq!(
            answer.code,
            0,
            "docker {arguments}: {}\n{}",
            answer.stderr,
            self.log()
        );
        answer.stdout.trim().to_owned()
    }

    /// Runs `cangw` beside the driver.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn cangw(&self, arguments: &str) -> Answer {
        let mut command = Cangw::Ours.command(self.namespace);
        let command = command
            .args(arguments.split_whitespace())
            .env("STATE_DIRECTORY", self.state())
            .env("DOCKER_HOST", self.host());
        Answer::from(command.output().expect("cangw runs"))
    }

    /// Starts a container on a network; its network namespace.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn container(&self, name: &str, network: &str) -> Namespace {
        self.must(&format!(
            "run --detach --network {network} --name {name} {IMAGE} sleep 900"
        ));
        self.namespace_of(name)
    }

    /// The network namespace of a container.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn namespace_of(&self, name: &str) -> Namespace {
        let id = self.must(&format!("inspect --format {{{{.State.Pid}}}} {name}"));
        Namespace::of_process(id.parse().expect("a number"))
    }

    fn log(&self) -> String {
        let dockerd = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = dockerd
            .lines()
            .filter(|line| !line.contains("level=info"))
            .collect();
        let last = lines.len().saturating_sub(20);
        let driver = self.cangwd.as_ref().map(Daemon::log).unwrap_or_default();
        format!("{}\n{driver}", lines[last..].join("\n"))
    }
}

/// Calls a driver at a socket as dockerd does.
///
/// # Panics
/// When it does not answer.
#[must_use]
pub fn call(socket: &Path, name: &str, body: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).expect("a socket");
    let body = body.to_string();
    let request = format!(
        "POST /NetworkDriver.{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
    serde_json::from_str(body).expect("the body is JSON")
}

/// A call of `docker` that is to be made.
pub struct Client(Command);

impl Client {
    /// Runs it, with arguments divided at spaces.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn run(mut self, arguments: &str) -> Answer {
        sys::limit_time(&mut self.0, 120);
        let output = self.0.args(arguments.split_whitespace()).output();
        Answer::from(output.expect("docker runs: `cargo xtask setup` fetches it"))
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            for (list, remove) in [
                ("ps --all --quiet", "rm --force"),
                ("network ls --quiet --filter driver=cangw", "network rm"),
            ] {
                let all = self.run(list).stdout.replace('\n', " ");
                if !all.trim().is_empty() {
                    let _ = self.run(&format!("{remove} {all}"));
                }
            }
            let _ = sys::signal(dockerd.id(), libc::SIGTERM);
            let _ = dockerd.wait();
        }
        self.cangwd = None;
        for layer in LAYERS {
            let _ = Command::new("umount").arg("--lazy").arg(layer).output();
        }
        // Files of network namespaces are mounts.
        for mount in mounts(&self.home) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).output();
        }
        let _ = fs::remove_dir_all(&self.home);
        for folder in ["/run/docker", "/run/cangw"] {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Mounts below a folder, the last first.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = table.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<PathBuf> = places
        .map(PathBuf::from)
        .filter(|place| place.starts_with(folder))
        .collect();
    below.reverse();
    below
}

fn must(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
