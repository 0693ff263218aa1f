//! Ports of a bus: for each peer one, with a raw CAN socket at its far end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use cangw_common::abi::HubPort;
use cangw_common::frame::FrameType;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;
use socketcan::{CanFdSocket, Socket as _, SocketOptions as _};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_blocking;

use crate::containers::fabric::{self, Bus, Fabric, Far, Kernel};
use crate::containers::options::PortOptions;
use crate::error::{Error, Result};
use crate::kernel::netns::NetNs;
use crate::kernel::sockets::{self, BATCH, Inbox, READ};
use crate::topology::host::buses_path;

/// Bytes of frames and what the kernel keeps beside them that wait to be read: some thousand frames.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Of `linux/can/raw.h`: the socket takes and gives CAN XL frames.
const CAN_RAW_XL_FRAMES: (i32, i32) = (libc::SOL_CAN_RAW, 7);
/// Between the name of a tunnel and the number of a port: in the interface on the bus, and in the one at the far end. No name has the first, so that what a
/// tunnel that was killed left behind is known by it.
const ON_BUS: char = '.';
const FAR: char = '-';

/// Makes ports for a tunnel, and takes them away.
pub trait Ports: Send + Sync {
    /// A port of the bus, from which frames are read and to which they are written as with a raw CAN socket.
    ///
    /// # Errors
    /// When the bus is not up or has no room, or the kernel refuses.
    fn open(&self, number: u32) -> Result<OwnedFd>;

    /// Takes a port off the bus, whether it is there or not.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn close(&self, number: u32) -> Result<()>;

    /// What the bus keeps back at the ports, by their numbers; those that keep nothing back need not be there.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn kept_back(&self) -> Result<BTreeMap<u32, HubPort>>;

    /// Takes all ports of the tunnel off the bus.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn sweep(&self) -> Result<()>;
}

/// Those of a bus of a topology.
pub struct KernelPorts {
    tunnel: String,
    topology: String,
    bus: String,
    limits: PortOptions,
}

impl KernelPorts {
    /// Those of a tunnel, on a bus of a topology.
    #[must_use]
    pub fn new(tunnel: &str, (topology, bus): (&str, &str), limits: PortOptions) -> Self {
        Self {
            tunnel: tunnel.to_owned(),
            topology: topology.to_owned(),
            bus: bus.to_owned(),
            limits,
        }
    }

    fn bus(&self) -> Bus {
        Bus::OfTopology(format!("{}.{}", self.topology, self.bus))
    }

    /// The name of a port on the bus.
    fn name(&self, number: u32) -> String {
        format!("{}{ON_BUS}{number}", self.tunnel)
    }

    /// A raw socket on the far end of a port.
    fn socket(&self, interface: &str, mtu: u32) -> Result<OwnedFd> {
        let failed = |e| Error::io(format!("open {interface} on the bus"), e);
        let socket = NetNs::open(&self.namespace())?
            .enter(|| CanFdSocket::open(interface).map_err(failed))?;
        let fd = socket.as_fd();
        socket.set_nonblocking(true).map_err(failed)?;
        // Nobody else is to see here what it sends.
        socket.set_loopback(false).map_err(failed)?;
        if mtu == FrameType::Xl.mtu() {
            sockets::set_option(fd, CAN_RAW_XL_FRAMES, [1]).map_err(failed)?;
        }
        setsockopt(&fd, sockopt::RxqOvfl, &1).map_err(|e| failed(e.into()))?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).map_err(|e| failed(e.into()))?;
        fd.try_clone_to_owned().map_err(failed)
    }

    fn namespace(&self) -> PathBuf {
        buses_path(&self.topology)
    }
}

impl Ports for KernelPorts {
    fn open(&self, number: u32) -> Result<OwnedFd> {
        let bus = Kernel.mtu(&self.bus())?;
        let mtu = bus.min(self.limits.mtu());
        let interface = format!("{}{FAR}{number}", self.tunnel);
        let port = fabric::Port {
            name: self.name(number),
            mtu,
            interface: interface.clone(),
            far: Far::In(self.namespace()),
        };
        // One that is there already may have other limits.
        Kernel.remove_port(&self.bus(), &port.name)?;
        Kernel.make_port(&self.bus(), &port, self.limits.limits(bus).as_ref())?;
        let opened = self.socket(&interface, mtu);
        if opened.is_err() {
            let _ = Kernel.remove_port(&self.bus(), &port.name);
        }
        opened
    }

    fn close(&self, number: u32) -> Result<()> {
        Kernel.remove_port(&self.bus(), &self.name(number))
    }

    fn kept_back(&self) -> Result<BTreeMap<u32, HubPort>> {
        let states = Kernel.ports(&self.bus())?.into_iter();
        let own = states.filter_map(|state| {
            let (tunnel, number) = state.name.rsplit_once(ON_BUS)?;
            let is_own = tunnel == self.tunnel;
            is_own.then_some((number.parse().ok()?, state.limits?))
        });
        Ok(own.collect())
    }

    fn sweep(&self) -> Result<()> {
        sweep_others((&self.topology, &self.bus), |name| name == self.tunnel)
    }
}

/// Takes ports of tunnels off a bus of a topology: of those whose name is to go.
///
/// # Errors
/// When the kernel refuses.
pub fn sweep_others((topology, bus): (&str, &str), goes: impl Fn(&str) -> bool) -> Result<()> {
    let bus = Bus::OfTopology(format!("{topology}.{bus}"));
    for port in Kernel.ports(&bus)? {
        let tunnel = port.name.rsplit_once(ON_BUS).map(|(tunnel, _)| tunnel);
        if tunnel.is_some_and(&goes) {
            Kernel.remove_port(&bus, &port.name)?;
        }
    }
    Ok(())
}

/// Does what takes a while with the ports.
///
/// # Errors
/// Those of the work.
pub(crate) async fn on_ports<T: Send + 'static>(
    ports: &Arc<dyn Ports>,
    work: impl FnOnce(&dyn Ports) -> Result<T> + Send + 'static,
) -> Result<T> {
    let ports = Arc::clone(ports);
    let done = spawn_blocking(move || work(&*ports)).await;
    done.map_err(|e| Error::io("use the ports of a bus", io::Error::other(e)))?
}

/// Takes a port off the bus. What it kept back.
pub(crate) async fn close(ports: &Arc<dyn Ports>, number: u32) -> Option<HubPort> {
    let closed = on_ports(ports, move |ports| {
        // A port is closed in any case.
        let kept = ports.kept_back().unwrap_or_default();
        let kept = kept.get(&number).copied();
        ports.close(number).map(|()| kept)
    });
    closed.await.unwrap_or_else(|e| {
        tracing::warn!("{e}");
        None
    })
}

/// An open port.
pub(crate) struct Port {
    socket: AsyncFd<Socket>,
}

/// What the bus did with frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub taken: u64,
    pub refused: u64,
}

impl Port {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: sockets::watched(socket.into())?,
        })
    }

    /// Waits for frames of the bus.
    pub async fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        let receive = |socket: &Socket| match inbox.receive(socket.as_fd()) {
            // Only of sockets in tests, whose other end can be closed.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        self.socket.async_io(READ, receive).await
    }

    /// Gives frames to the bus, and counts those that it took or refused.
    pub async fn write<'a>(
        &self,
        mut frames: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        written: &mut Written,
    ) -> io::Result<()> {
        while frames.len() != 0 {
            let send =
                |socket: &Socket| sockets::send(socket.as_fd(), frames.clone().take(BATCH), None);
            match self.socket.async_io(Interest::WRITABLE, send).await {
                Ok(sent) => {
                    written.taken += sent as u64;
                    frames.nth(sent.saturating_sub(1));
                }
                // A CAN FD frame where there are none.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE)) => {
                    written.refused += 1;
                    frames.next();
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
