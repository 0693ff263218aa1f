//! The Debian package, in a system of its own: a systemd whose root is the guest's with a layer in memory above it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::sys;
use serde_json::json;

/// Mounts what a system needs, and becomes its first process. `$1` is its root.
const BOOT: &str = r#"set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mount -t bpf -o mode=700 bpf "$1/sys/fs/bpf"
mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
mount -t tracefs tracefs "$1/sys/kernel/tracing"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=755 run "$1/run"
exec chroot "$1" /usr/bin/env -i container=guest PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --show-status=no"#;
/// Much longer than an emulated machine takes to boot.
const PATIENCE: Duration = Duration::from_secs(120);
const NAME: &str = "cangw.deb";
/// Before the first process has taken its place, systemctl does nothing, with success.
const IS_ACTIVE: &str = "test \"$(systemctl is-active cangwd.service)\" = active";

/// A disk, and the system that runs from it.
struct System {
    home: PathBuf,
    cgroup: PathBuf,
    running: Option<Child>,
}

impl System {
    fn new() -> Self {
        let home = std::env::temp_dir().join(format!("cangw-system-{}", std::process::id()));
        fs::create_dir(&home).expect("a folder can be made");
        let system = Self {
            cgroup: Path::new("/sys/fs/cgroup").join(home.file_name().expect("a name")),
            home,
            running: None,
        };
        must(Command::new("modprobe").arg("overlay"));
        let home = system.home.display();
        must(&mut shell(&format!(
            "mount -t tmpfs system {home} && cd {home} && mkdir upper work root &&
             mount -t overlay -o lowerdir=/,upperdir={home}/upper,workdir={home}/work overlay root"
        )));
        // What else the machine starts is not asked for here, and systemd-tmpfiles waits forever for the guest's root on Linux 6.1.
        must(&mut shell(&format!(
            "cd {home}/root/etc/systemd/system && rm -rf *.wants && ln -s /dev/null systemd-tmpfiles-setup.service"
        )));
        fs::create_dir(&system.cgroup).expect("a control group can be made");
        system
    }

    fn root(&self) -> PathBuf {
        self.home.join("root")
    }

    /// Installs a package while the system does not run, as the installer of a system does.
    fn install(&self, package: &Path) {
        let root = self.root();
        fs::copy(package, root.join(NAME)).expect("a file can be copied");
        let (root, proc) = (root.display(), root.join("proc"));
        let proc = proc.display();
        must(&mut shell(&format!(
            "mount --bind /proc {proc} && chroot {root} dpkg --no-triggers -i /{NAME}; status=$?
             umount {proc}; exit $status"
        )));
    }

    fn boot(&mut self) {
        let log = fs::File::create(self.home.join("log")).expect("a file can be made");
        let group = self.cgroup.join("cgroup.procs");
        let enter = format!("echo 0 >{} && exec \"$@\"", group.display());
        let mut command = Command::new("sh");
        command
            .args(["-c", &enter, "enter", "unshare", "--pid", "--fork"])
            .args(["--kill-child", "--mount", "--cgroup", "--net", "sh", "-c"])
            .args([BOOT, "boot"])
            .arg(self.root())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log);
        sys::limit_time(&mut command, 900);
        self.running = Some(command.spawn().expect("unshare runs"));
        self.until(IS_ACTIVE);
    }

    /// Takes its power away.
    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
            let _ = child.kill();
            let _ = child.wait();
            // The last of its processes may still be about to end.
            for _ in 0..100 {
                let processes = fs::read_to_string(self.cgroup.join("cgroup.events"));
                if processes.is_ok_and(|events| events.contains("populated 0")) {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// The number of its first process, once there is one.
    fn first(&self) -> Option<String> {
        let unshare = self.running.as_ref()?.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let first = fs::read_to_string(children).ok()?;
        first.split_whitespace().next().map(str::to_owned)
    }

    /// A command in it.
    fn command(&self, line: &str) -> Option<Command> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.first()?, "--all"])
            .arg("chroot")
            .arg(self.root())
            .args(["env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c"])
            .arg(line);
        Some(command)
    }

    fn must(&self, line: &str) -> String {
        must(&mut self.command(line).expect("the system runs"))
    }

    fn until(&self, line: &str) {
        let begin = Instant::now();
        loop {
            let run = |mut command: Command| command.output().expect("nsenter runs");
            let output = self.command(line).map(run);
            if output.as_ref().is_some_and(|o| o.status.success()) {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{line}: {output:?}\n{}",
                fs::read_to_string(self.home.join("log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop();
        let home = self.home.display();
        let _ = shell(&format!("umount {home}/root; umount {home}")).output();
        let _ = fs::remove_dir(&self.home);
        // Those that systemd made are beneath it.
        let groups = format!("find {} -depth -type d -delete", self.cgroup.display());
        let _ = shell(&groups).output();
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn must(command: &mut Command) -> String {
    let output: Output = command.output().expect("a program of every system runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The package that `cargo xtask dist` has made.
fn package() -> PathBuf {
    let this = std::env::current_exe().expect("a process knows its executable");
    let folders = this.ancestors().map(|folder| folder.join("dist"));
    let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let mut packages = files.map(|file| file.path());
    packages
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .expect("there is a package: `cargo xtask dist` makes it")
}

/// The files of a layer, by their paths.
fn files(layer: &Path) -> Vec<String> {
    let list = must(Command::new("find").arg(layer).args(["-printf", "%P\n"]));
    let mut files: Vec<String> = list.lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[test]
fn it_is_installed_boots_and_goes_without_a_trace() {
    let mut system = System::new();
    let cangw = must(Command::new("sha256sum").arg("/usr/bin/cangw"));
    system.install(&package());
    fs::write(
        system.root().join("etc/cangw/car.toml"),
        crate::topologies::TWO_BUSES,
    )
    .expect("a file can be written");

    for boot in 1..=2 {
        system.boot();
        assert_eq!(system.must("cangw diff /etc/cangw/car.toml"), "");
        system.must(
            "cangw exec dashboard -- timeout 20 candump -n 1 can0 >/run/dump & dump=$!
             for _ in $(seq 50); do
                 cangw exec engine -- cansend can0 0C8#1122
                 sleep 0.2
                 test -s /run/dump && break
             done
             wait $dump && grep -q '0C8' /run/dump",
        );
        let status = system.must("systemctl show --property=StatusText cangwd.service");
        assert_eq!(
            status, "StatusText=topologies: 1, rules: 3\n",
            "boot {boot}"
        );
        let journal = system.must("journalctl --boot --unit cangwd.service");
        assert!(journal.contains("car: + ECU engine"), "{journal}");
        if boot == 1 {
            privileges(&system);
            containers(&system);
            tunnels(&system);
            killed(&system);
            // An upgrade beside the running daemon.
            system.must(&format!("dpkg --no-triggers -i /{NAME}"));
            system.until(IS_ACTIVE);
            assert_eq!(system.must("cangw diff /etc/cangw/car.toml"), "");
            system.stop();
        }
    }

    // Who removes it and installs it again wants it to run.
    system.must("dpkg --no-triggers -r cangw");
    system.must(&format!("dpkg --no-triggers -i /{NAME}"));
    system.until(IS_ACTIVE);
    system.must("systemctl is-enabled cangwd.service cangwd.socket cangwd-docker.socket");
    system.must(&format!("dpkg --no-triggers -r cangw && rm /{NAME}"));
    assert_eq!(
        system.must("ip netns list; ip -br link | grep -v '^lo '; true"),
        ""
    );
    system.must("! ls /sys/fs/bpf/cangw && ! ls /run/cangw && ! getent group cangw cangw-read");
    system.must("rm /etc/cangw/car.toml && dpkg --no-triggers -P cangw");
    let now = system.must("sha256sum /usr/bin/cangw");
    assert_eq!(now, cangw, "can-utils has its program again");
    system.stop();
    // What can-utils has back came through this layer.
    const OTHERS: [&str; 2] = ["usr/bin/cangw", "usr/share/man/man1/cangw.1.gz"];
    let left: Vec<String> = files(&system.home.join("upper"))
        .into_iter()
        .filter(|file| file.contains("cangw") && !OTHERS.contains(&file.as_str()))
        .collect();
    assert_eq!(left, [] as [&str; 0]);
}

/// It has the capabilities that its unit names and no others, and it serves the members of its groups.
fn privileges(system: &System) {
    let main = system.must("systemctl show --property=MainPID --value cangwd.service");
    let status = system.must(&format!("grep CapEff /proc/{}/status", main.trim()));
    let capabilities = status.split_whitespace().nth(1).expect("a number");
    let capabilities = u64::from_str_radix(capabilities, 16).expect("a number");
    // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF (linux/capability.h).
    let expected = 1 << 10 | 1 << 12 | 1 << 21 | 1 << 38 | 1 << 39;
    assert_eq!(capabilities, expected, "{status}");
    let socket = system.must("stat -c '%a %U %G' /run/cangw/cangwd.sock");
    assert_eq!(socket, "666 root root\n");
    let nobody = |group: &str, words: &str| {
        let id = format!("$(getent group {group} | cut -d: -f3)");
        format!("setpriv --reuid 65534 --regid 65534 --groups {id} cangw {words}")
    };
    let refuse = |group, words| system.must(&format!("! {}", nobody(group, words)));
    assert!(
        system
            .must(&nobody("cangw-read", "status"))
            .contains("topology car")
    );
    refuse("cangw-read", "sync");
    system.must(&nobody("cangw", "sync"));
    refuse("nogroup", "status");
}

/// Docker and Podman find their drivers, which may do all that they have to.
fn containers(system: &System) {
    let mode = system.must("stat -c '%a %U %G' /run/docker/plugins/cangw.sock /var/lib/cangw");
    assert_eq!(mode, "600 root root\n700 root root\n");
    let socket = format!(
        "/proc/{}/root/run/docker/plugins/cangw.sock",
        system.first().expect("it runs")
    );
    let call = |name: &str, body| {
        let answer = cangw_tests::docker::call(Path::new(&socket), name, &body);
        assert_eq!(answer.get("Err"), None, "{name}");
    };
    let (network, endpoint) = ("ab".repeat(32), "cd".repeat(32));
    let options = json!({ "com.docker.network.generic": { "bus": "body", "host_if": "tool0" } });
    call(
        "CreateNetwork",
        json!({ "NetworkID": network, "Options": options }),
    );
    call(
        "CreateEndpoint",
        json!({ "NetworkID": network, "EndpointID": endpoint }),
    );
    let links = system.must("ip -br link");
    assert!(
        links.contains("tool0") && links.contains("cgcdcdcdcdcdcd"),
        "{links}"
    );
    let networks = system.must("cangw networks");
    assert!(
        networks.contains("network abababababab of docker"),
        "{networks}"
    );
    call("DeleteNetwork", json!({ "NetworkID": network }));
    assert_eq!(
        system.must("cangw networks; cangw doctor"),
        "nothing was left behind\n"
    );
    let info = system.must("/usr/libexec/netavark/cangw info");
    assert!(info.contains("\"api_version\":\"1.0.0\""), "{info}");
}

/// Tunnels may listen.
fn tunnels(system: &System) {
    system.must("cangw tunnel add lab --bus body --listen udp://127.0.0.1:909 --client 127.0.0.1");
    let datagram = r"\x02\x00\x00\x00\x01\x00\x00\x01\x23\x01\x07";
    system.until(&format!(
        "bash -c \"printf '{datagram}' > /dev/udp/127.0.0.1/909\"; cangw tunnel list | grep -q 'connected, sent 0, received [1-9]'"
    ));
    system.must("cangw tunnel remove lab");
}

/// When it is killed, systemd starts it again, and nothing happens to the topology.
fn killed(system: &System) {
    let counts = || system.must("cangw status");
    let before = counts();
    system.must("systemctl kill --signal=KILL cangwd.service");
    system.until("test $(systemctl show --property=NRestarts --value cangwd.service) = 1");
    system.until(IS_ACTIVE);
    assert_eq!(counts(), before);
    system.must("systemctl reload cangwd.service");
    assert_eq!(counts(), before);
}
