//! The kernel's notifications about interfaces, from several network namespaces, and about the namespaces' names.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkLayerType;
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::kernel::netlink;
use crate::kernel::netns::NetNs;
use crate::topology::host::NAMED;

/// Device and inode of a namespace's file.
type Identity = (u64, u64);

/// Namespaces whose interfaces are watched.
pub struct Watches {
    changed: Arc<Notify>,
    tasks: HashMap<Identity, JoinHandle<()>>,
    names: Option<thread::JoinHandle<()>>,
}

impl Watches {
    /// None yet. `changed` is told when an interface changes.
    pub fn new(changed: Arc<Notify>) -> Self {
        Self {
            changed,
            tasks: HashMap::new(),
            names: None,
        }
    }

    /// Watches the folder of namespaces' names, once it is there: a namespace that has lost its name is to go, and its interfaces with it.
    fn follow_names(&mut self) {
        if self.names.as_ref().is_some_and(|task| !task.is_finished()) || !Path::new(NAMED).exists()
        {
            return;
        }
        match watch_folder(NAMED, Arc::clone(&self.changed)) {
            Ok(thread) => {
                // Until now, nobody looked.
                self.changed.notify_one();
                self.names = Some(thread);
            }
            Err(e) => warn!("cannot watch {NAMED}: {e}"),
        }
    }

    /// Watches these namespaces and no others: a socket would keep one alive that is to go.
    pub fn follow(&mut self, namespaces: Vec<NetNs>) {
        self.follow_names();
        let mut tasks = HashMap::new();
        for namespace in namespaces {
            let Ok(file) = namespace.file().metadata() else {
                continue;
            };
            let identity = (file.dev(), file.ino());
            let known = self.tasks.remove(&identity);
            let task = known.filter(|task| !task.is_finished()).or_else(|| {
                let subscribed = namespace.enter(netlink::subscribe);
                match subscribed.and_then(netlink::register) {
                    Ok(socket) => {
                        // Until now, nobody looked.
                        self.changed.notify_one();
                        Some(tokio::spawn(watch(socket, Arc::clone(&self.changed))))
                    }
                    Err(e) => {
                        warn!("{e}");
                        None
                    }
                }
            });
            tasks.extend(task.map(|task| (identity, task)));
        }
        for (_, task) in std::mem::replace(&mut self.tasks, tasks) {
            task.abort();
        }
    }
}

/// Tells when a name comes or goes, until the folder is gone. It waits on a thread of its own, for as long as the process lives.
fn watch_folder(folder: &str, changed: Arc<Notify>) -> nix::Result<thread::JoinHandle<()>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let names = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(folder, names)?;
    Ok(thread::spawn(move || {
        loop {
            match inotify.read_events() {
                Err(Errno::EINTR) => {}
                Err(_) => return,
                Ok(events) => {
                    changed.notify_one();
                    let is_last = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_IGNORED);
                    if events.iter().any(|event| is_last(event.mask)) {
                        return;
                    }
                }
            }
        }
    }))
}

/// Reads until the socket fails for good.
async fn watch(socket: AsyncFd<Socket>, changed: Arc<Notify>) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        match ready.try_io(|socket| socket.get_ref().recv_from_full()) {
            // More came than the socket's buffer holds: something may have changed.
            Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => changed.notify_one(),
            Ok(Err(e)) => {
                warn!("no longer watches interfaces: {e}");
                // The next pass opens another.
                changed.notify_one();
                return;
            }
            Ok(Ok((bytes, _))) => {
                if matters(&bytes) {
                    changed.notify_one();
                }
            }
            Err(_would_block) => {}
        }
    }
}

/// Whether messages tell of a CAN interface, or of a qdisc or filter that is gone. What cannot be read may.
fn matters(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            return true;
        };
        match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
            ) if link.header.link_layer_type == LinkLayerType::Can => return true,
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::DelQueueDiscipline(_)
                | RouteNetlinkMessage::DelTrafficFilter(_),
            ) => return true,
            _ => {}
        }
        // Messages are aligned to four bytes; a length of 0 would never end.
        let len = (message.header.length as usize).next_multiple_of(4).max(4);
        bytes = bytes.get(len..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn only_can_interfaces_matter() {
        let mut link = LinkMessage::default();
        link.header.link_layer_type = LinkLayerType::Ether;
        let ethernet = bytes(RouteNetlinkMessage::NewLink(link.clone()));
        link.header.link_layer_type = LinkLayerType::Can;
        let can = bytes(RouteNetlinkMessage::DelLink(link));
        assert!(!matters(&[]));
        assert!(!matters(&ethernet));
        assert!(matters(&can));
        assert!(matters(&[ethernet, can].concat()));
        assert!(matters(&[1, 2, 3]));
    }
}
