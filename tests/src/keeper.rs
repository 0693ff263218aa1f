//! What the kernel switches in its own code is switched once.
//!
//! With the first user of a kind of queueing discipline, probe or XDP program of the whole machine, and with the last, the kernel changes
//! its code in place (static keys, ftrace, the dispatcher). An emulated processor that executes that code meanwhile can stop, at a
//! breakpoint of which nobody knows any more.

use crate::namespace::Namespace;
use crate::tool::Cangw;

/// A gateway that has one of each, in a namespace without traffic.
pub struct Keeper(#[expect(dead_code, reason = "it is there as long as this lives")] Namespace);

impl Keeper {
    /// Makes it.
    ///
    /// # Panics
    /// When the kernel or cangw refuses.
    #[must_use]
    pub fn begin() -> Self {
        let namespace = Namespace::new("keeper");
        namespace.ip(
            "link add x0 type vxcan peer name x0p\nlink add x1 type vxcan peer name x1p\nlink add v0 type vcan\n\
             link set x0 up\nlink set x1 up\nlink set v0 up",
        );
        // An `ingress` qdisc, a `clsact` one for the echo, XDP, and the probes on listeners.
        for rule in ["-s x0 -d v0 -e", "-s v0 -d x0"] {
            Cangw::Ours.must(&namespace, &format!("-A {rule}"));
        }
        Cangw::Ours.must(&namespace, "rule add -s x1 -d x0 --exclusive --engine xdp");
        Self(namespace)
    }
}
