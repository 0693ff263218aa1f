//! Topology files. What is accepted can be made, and what is made needs no more steps; what is refused has a line.

use cangw::topology::Topology;
use cangw::topology::plan::{Shape, Step, plan};

use super::{Target, outcome, refused};

const KEYS: &[&str] = &[
    "\n[bus.a]\n",
    "\n[bus.b]\n",
    "\n[ecu.a]\n",
    "\n[[route]]\n",
    "interfaces = { can0 = \"a\" }\n",
    "device = \"can0\"\n",
    "bitrate = 500000\n",
    "dbitrate = 2000000\n",
    "fd = ",
    "xl = ",
    "policy = \"deny\"\n",
    "\n[tunnel.a]\n",
    "bus = \"a\"\n",
    "listen = \"udp://0.0.0.0:20000\"\n",
    "connect = \"tcp://[::1]:1\"\n",
    "clients = [\"10.0.0.0/8\"]\n",
    "flush = \"1ms\"\n",
    "allow = [\"123\"]\n",
    "from = \"a\"\n",
    "to = \"b\"\n",
    "id = [\"123\"]\n",
    "kind = \"fd\"\n",
    "name = \"car\"\n",
    "true\n",
    "false\n",
];

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "topology",
        run: |input| {
            let text = String::from_utf8_lossy(input);
            let topology = match Topology::parse("f", &text) {
                Ok(topology) => topology,
                Err(e) => {
                    assert!(e.to_string().starts_with("f, line "), "{e}");
                    return refused(&e);
                }
            };
            let shape = topology.shape();
            for bus in shape.ecus.values().flat_map(|ecu| ecu.values()) {
                assert!(shape.buses.contains_key(bus), "an ECU on no bus: {bus}");
            }
            assert_eq!(plan(&shape, &shape), []);
            let steps = plan(&shape, &Shape::default());
            let ports = steps.iter().filter(|s| matches!(s, Step::AddPort(..)));
            let interfaces: usize = shape.ecus.values().map(|ecu| ecu.len()).sum();
            assert_eq!(ports.count(), interfaces);
            outcome(steps.iter().map(ToString::to_string).collect::<Vec<_>>())
        },
        seeds: || {
            let examples = [
                include_str!("../../../../../examples/two-buses.toml"),
                include_str!("../../../../../examples/test-bench.toml"),
                include_str!("../../../../../examples/diagnostics.toml"),
                include_str!("../../../../../examples/tunnels.toml"),
            ];
            examples.map(|text| text.as_bytes().to_vec()).to_vec()
        },
        words: KEYS,
    }]
}
