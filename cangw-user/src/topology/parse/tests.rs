use super::*;

const GOOD: &str = r#"version = 1
name = "car"

[bus.body]
[bus.chassis]
fd = false
[bus.obd]
device = "can0"
bitrate = 500000
policy = "deny"

[ecu.engine]
interfaces = { can0 = "body", can1 = "chassis" }
[ecu.dash]
interfaces = { can0 = "body" }

[[route]]
from = "body"
to = "obd"
id = ["100-1FF"]
rate = "100/s"

[[route]]
from = "obd"
to = "chassis"
id = ["7DF"]
"#;

#[test]
fn a_topology_is_read() {
    let topology = Topology::parse("f", GOOD).unwrap();
    assert_eq!(topology.name, "car");
    let ports: Vec<_> = topology.ports("body").collect();
    assert_eq!(ports, [("dash", "can0"), ("engine", "can0")]);
    assert!(topology.buses["body"].fd && !topology.buses["obd"].fd);
    assert_eq!(topology.buses["obd"].policy, Policy::Deny);
    let routes: Vec<_> = topology.routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        routes,
        [
            "-s body -d obd --id 100-1FF --rate 100/s",
            "-s obd -d chassis --id 7DF"
        ]
    );
}

/// Each change of the good file is refused, with the line, the key and what would be right.
#[test]
fn what_is_wrong_is_named() {
    for (good, bad, expected) in [
        (
            "name = \"car\"",
            "name = \"my car\"",
            "2: name: \"my car\" is no name for a topology: at most 15 letters",
        ),
        (
            "[bus.body]",
            "[bus.body]\nfast = true",
            "5: bus.body.fast: unknown field `fast`, expected one of `device`",
        ),
        (
            "[bus.body]",
            "[bus.\"the body\"]",
            "4: bus.the body: \"the body\" is no name for a bus",
        ),
        (
            "[bus.body]",
            "[bus.body]\nbitrate = 5",
            "5: bus.body.bitrate: a virtual bus has none; give the bus its `device`",
        ),
        (
            "[bus.body]",
            "[bus.can0]",
            "8: bus.obd.device: bus can0 has the interface can0 already",
        ),
        (
            "fd = false",
            "fd = false\nxl = true",
            "7: bus.chassis.xl: a bus that carries CAN XL frames carries CAN FD frames; remove",
        ),
        (
            "bitrate = 500000",
            "bitrate = 0",
            "9: bus.obd.bitrate: 0 is not from 1 to 1000000 bits a second",
        ),
        (
            "bitrate = 500000",
            "bitrate = \"fast\"",
            "9: bus.obd.bitrate: invalid type: string \"fast\", expected u32",
        ),
        (
            "bitrate = 500000",
            "bitrate = 500000\ndbitrate = 250000",
            "10: bus.obd.dbitrate: 250000 is below the bitrate, 500000",
        ),
        (
            "bitrate = 500000",
            "fd = false\ndbitrate = 250000",
            "10: bus.obd.dbitrate: is for CAN FD; give the bus `fd = true`",
        ),
        (
            "bitrate = 500000",
            "txqueuelen = 0",
            "9: bus.obd.txqueuelen: 0 lets no frame wait",
        ),
        (
            "policy = \"deny\"",
            "policy = \"block\"",
            "10: bus.obd.policy: unknown variant `block`, expected `allow` or `deny`",
        ),
        (
            "can0 = \"body\", ",
            "can0 = \"bdy\", ",
            "13: ecu.engine.interfaces.can0: there is no bus \"bdy\"; did you mean \"body\"?",
        ),
        (
            "can0 = \"body\", ",
            "can0 = \"x\", ",
            "13: ecu.engine.interfaces.can0: there is no bus \"x\"; the buses are body, chassis, obd",
        ),
        (
            "can0 = \"body\", ",
            "can0 = \"obd\", ",
            "10: bus.obd.policy: obd has a device and ECUs, tunnels, a federation or containers, between which all frames pass",
        ),
        (
            "can0 = \"body\", ",
            "\"a b\" = \"body\", ",
            "13: ecu.engine.interfaces.a b: \"a b\" is no name for a CAN interface",
        ),
        (
            "[ecu.dash]\ninterfaces = { can0 = \"body\" }",
            "[ecu.dash]\ninterfaces = {}",
            "15: ecu.dash.interfaces: an ECU needs an interface",
        ),
        (
            "[ecu.dash]\ninterfaces = { can0 = \"body\" }",
            "[ecu.dash]",
            "14: ecu.dash: missing field `interfaces`",
        ),
        (
            "from = \"body\"",
            "from = \"body1\"",
            "18: route.from: there is no bus \"body1\"; did you mean \"body\"?",
        ),
        (
            "to = \"chassis\"",
            "to = \"obd\"",
            "25: route.to: a frame reaches everybody on obd without a route",
        ),
        (
            "to = \"chassis\"",
            "to = \"chassis\"\nkind = \"fd\"",
            "26: route.kind: bus obd does not carry such frames; give it `fd = true`",
        ),
        ("rate = \"100/s\"", "rate = \"fast\"", "21: route.rate: "),
        ("id = [\"7DF\"]", "id = [\"7DG\"]", "26: route.id: "),
        (
            "version = 1",
            "version = 2",
            "1: version: version 2 of the file format, but this cangw reads version 1",
        ),
        (
            "[[route]]",
            "[[rout]]",
            "17: rout: unknown field `rout`, expected one of",
        ),
    ] {
        assert!(GOOD.contains(good), "{good}");
        let text = GOOD.replacen(good, bad, 1);
        let error = Topology::parse("f", &text).expect_err(bad).to_string();
        let expected = format!("f, line {expected}");
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
}

/// Every line of the good file, spoilt in many ways: what is wrong is refused with its line, and what is understood has the key as well.
#[test]
fn hundreds_of_malformed_files_are_refused() {
    let lines: Vec<&str> = GOOD.lines().collect();
    let mut refused = 0;
    for (number, line) in lines.iter().enumerate() {
        let mut spoilt = Vec::new();
        if let Some((key, value)) = line.split_once(" = ") {
            spoilt.extend([
                format!("{key}_ = {value}"),
                format!("{key} {value}"),
                format!("{key} = "),
                format!("{key} = [[1]]"),
                format!("{key} = -1"),
                format!("{key} = 1979-05-27"),
                format!("{key} = {{ {key} = {value} }}"),
                format!("{key} = \"\\u0000\""),
                format!("{key} = \"{}\"", "x".repeat(300)),
                format!("{key} = 99999999999"),
                format!("{line}\n{line}"),
                format!("{line} {value}"),
            ]);
        } else if line.starts_with('[') {
            spoilt.extend([
                format!("[{line}"),
                format!("{line}]"),
                line.replace(']', ""),
                line.replace("bus.", "bus..")
                    .replace("ecu.", "ecu..")
                    .replace("[[route]]", "[[route]"),
                line.replace("bus.", "bus.1-")
                    .replace("ecu.", "ecu.1-")
                    .replace("[[route]]", "[[Route]]"),
                format!("{line}\nsize = 3"),
            ]);
        }
        for text in spoilt {
            let mut file = lines.clone();
            file[number] = &text;
            let error = match Topology::parse("f", &file.join("\n")) {
                Ok(_) => panic!("{text} is taken"),
                Err(e) => e.to_string(),
            };
            let (place, message) = error.split_once(": ").expect("a place");
            let at: usize = place
                .strip_prefix("f, line ")
                .and_then(|at| at.parse().ok())
                .unwrap_or_else(|| panic!("{error}"));
            assert!((1..=lines.len() + 1).contains(&at), "{error}");
            assert!(!message.is_empty(), "{error}");
            refused += 1;
        }
    }
    assert!(refused >= 200, "{refused}");
}

/// Messages and signals by name, from the DBC file of the bus or of the route, which lies beside the topology.
#[test]
fn names_of_a_dbc_file_are_looked_up() {
    const DBC: &str = "VERSION \"\"\nNS_ :\nBS_:\nBU_: X\nBO_ 344 ENGINE_DATA: 8 X\n \
        SG_ RPM : 23|16@0+ (1,0) [0|15000] \"rpm\" X\nBO_ 380 BRAKES: 4 X\n";
    let folder = std::env::temp_dir().join(format!("cangw-names-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("car.dbc"), DBC).unwrap();
    let file = folder.join("car.toml");
    let file = file.to_str().unwrap();
    let text = |route: &str| {
        GOOD.replace("[bus.body]", "[bus.body]\ndbc = \"car.dbc\"")
            + "[[route]]\nfrom = \"body\"\nto = \"obd\"\n"
            + route
    };
    for (route, expected) in [
        (
            "message = [\"ENGINE_DATA\", \"BRAKES\"]",
            Ok("-s body -d obd --id 158,17C"),
        ),
        (
            "set = [\"ENGINE_DATA.RPM=256\"]\nxor = \"0:6:7:00\"\nuid = \"2A\"",
            Ok(
                "-s body -d obd -m AND:D:000.0.FFFF0000FFFFFFFF -m OR:D:000.0.0000010000000000 -u 2A -x 0:6:7:00 --id 158",
            ),
        ),
        ("message = [\"BRAKE\"]", Err("route.message: ")),
        ("set = [\"ENGINE_DATA.RPM=70000\"]", Err("route.set: ")),
        (
            "message = [\"BRAKES\"]\ndbc = \"none.dbc\"",
            Err("route.dbc: "),
        ),
        (
            "message = [\"BRAKES\"]\ndbc = \"/dev/zero\"",
            Err("no regular file"),
        ),
    ] {
        let result = Topology::parse(file, &text(route));
        match expected {
            Ok(rule) => {
                let routes = result.unwrap().routes;
                assert_eq!(routes.last().unwrap().to_string(), rule);
            }
            Err(part) => {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(part), "{error}");
                assert!(error.contains("car.toml, line 3"), "{error}");
            }
        }
    }
    let without = "[[route]]\nfrom = \"chassis\"\nto = \"obd\"\nmessage = [\"BRAKES\"]\n";
    let error = Topology::parse(file, &(GOOD.to_owned() + without)).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("say which with `dbc = \"FILE\"`"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// ECUs on a real bus are on a virtual one beside it, and all frames pass between both.
#[test]
fn a_real_bus_with_ecus_is_two() {
    let text = GOOD
        .replace("can0 = \"body\", ", "can0 = \"obd\", ")
        .replace("policy = \"deny\"\n", "");
    let shape = Topology::parse("f", &text).unwrap().shape();
    assert!(shape.buses.contains_key("obd") && shape.devices.contains_key("can0"));
    let routes: Vec<_> = shape.routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        routes,
        [
            "-s can0 -d obd --priority 32767",
            "-s obd -d can0 --priority 32767",
            "-s body -d can0 --id 100-1FF --rate 100/s",
            "-s body -d obd --id 100-1FF --rate 100/s",
            "-s can0 -d chassis --id 7DF",
            "-s obd -d chassis --id 7DF",
        ]
    );
    let clash = text.replace("device = \"can0\"", "device = \"obd\"");
    let error = Topology::parse("f", &clash).unwrap_err().to_string();
    assert!(
        error.contains("line 8: bus.obd.device: obd has ECUs"),
        "{error}"
    );
}

#[test]
fn federations_share_buses_that_there_are() {
    let text = "version = 1\nname = 'car'\n[bus.body]\n[bus.obd]\ndevice = 'can0'\n[federation]\nscout = true\n";
    let topology = Topology::parse("f", &format!("{text}[federation.bus.obd]")).unwrap();
    let federation = topology.federation.as_ref().expect("a federation");
    assert_eq!(federation.realm, "car");
    assert!(topology.is_hub("obd"), "a device gets a bus beside it");
    for (more, message) in [
        ("[federation.bus.none]", "federation.bus.none: "),
        ("lease = '5'\n[federation.bus.body]", "federation.lease"),
        ("", "federation: a federation shares buses"),
        (
            "[federation.bus.body]\n[tunnel.federation]\nbus = 'body'\nconnect = 'udp://h'",
            "give the tunnel another name",
        ),
    ] {
        let error = Topology::parse("f", &format!("{text}{more}")).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// The schema for editors names the keys that there are, and no others.
#[test]
fn the_schema_has_all_keys() {
    let text = include_str!("../../../../docs/topology.schema.json");
    let schema: serde_json::Value = serde_json::from_str(text).unwrap();
    let bus = "/properties/bus/additionalProperties";
    let ecu = "/properties/ecu/additionalProperties";
    let tunnel = "/properties/tunnel/additionalProperties";
    for (place, file) in [
        ("", "zzz = 1\nversion = 1".to_owned()),
        (bus, "version = 1\nname = 'a'\n[bus.a]\nzzz = 1".to_owned()),
        (ecu, "version = 1\nname = 'a'\n[ecu.a]\nzzz = 1".to_owned()),
        (
            tunnel,
            "version = 1\nname = 'a'\n[tunnel.a]\nzzz = 1".to_owned(),
        ),
        (
            "/properties/federation",
            "version = 1\nname = 'a'\n[federation]\nzzz = 1".to_owned(),
        ),
        (
            "/properties/federation/properties/bus/additionalProperties",
            "version = 1\nname = 'a'\n[federation.bus.a]\nzzz = 1".to_owned(),
        ),
        (
            "/properties/route/items",
            "version = 1\nname = 'a'\n[[route]]\nzzz = 1".to_owned(),
        ),
    ] {
        let error = Topology::parse("f", &file).unwrap_err().to_string();
        let (_, keys) = error.split_once("`, expected ").expect("the keys");
        let mut keys: Vec<&str> = keys.split('`').skip(1).step_by(2).collect();
        keys.sort_unstable();
        let found = schema.pointer(&format!("{place}/properties")).unwrap();
        let mut found: Vec<&str> = found
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        found.sort_unstable();
        assert_eq!(found, keys, "{place}");
    }
}

/// Containers need a virtual bus: one beside a device, between which all frames pass.
#[test]
fn containers_share_a_device() {
    let text = "version = 1\nname = 'a'\n[bus.obd]\ndevice = 'can0'\n";
    let alone = Topology::parse("f", text).unwrap().shape();
    assert!(alone.buses.is_empty() && alone.routes.is_empty());
    let shared = format!("{text}containers = true\n");
    let shape = Topology::parse("f", &shared).unwrap().shape();
    assert!(shape.buses["obd"].has_gateway);
    let bridges: Vec<_> = shape.routes.iter().map(ToString::to_string).collect();
    assert!(
        bridges
            .iter()
            .any(|rule| rule.starts_with("-s can0 -d obd")),
        "{bridges:?}"
    );
    let denied = format!("{shared}policy = 'deny'\n");
    let error = Topology::parse("f", &denied).unwrap_err().to_string();
    assert!(error.contains("bus.obd.policy"), "{error}");
    let named = shared.replace("can0", "obd2") + "[bus.obd2]\n";
    let error = Topology::parse("f", &named).unwrap_err().to_string();
    assert!(error.contains("obd2"), "{error}");
}

/// A tunnel gives a device a virtual bus, as an ECU does; what is wrong with it has its line.
#[test]
fn tunnels_are_on_buses() {
    let text = "version = 1\nname = \"car\"\n[bus.obd]\ndevice = \"can0\"\n";
    let tunnel = "[tunnel.lab]\nbus = \"obd\"\nconnect = \"udp://h\"\n";
    let alone = Topology::parse("f", text).unwrap();
    assert!(alone.shape().buses.is_empty());
    let topology = Topology::parse("f", &format!("{text}{tunnel}")).unwrap();
    assert!(topology.shape().buses.contains_key("obd"));
    assert_eq!(topology.tunnels["lab"].endpoint(), "udp://h:20000");
    for (change, with, error) in [
        (
            "\"obd\"\nc",
            "\"odb\"\nc",
            "line 6: tunnel.lab.bus: there is no bus \"odb\"; did you mean \"obd\"?",
        ),
        ("udp://h", "udp:/h", "line 7: tunnel.lab.connect: "),
        (
            "connect = \"udp://h\"",
            "sort = true",
            "line 5: tunnel.lab: a tunnel needs `listen = ",
        ),
        (
            "[tunnel.lab]",
            "[tunnel.laboratories]",
            "line 5: tunnel.laboratories: ",
        ),
        (
            "udp://h\"",
            "udp://h\"\nflush = \"1\"",
            "line 8: tunnel.lab.flush: ",
        ),
    ] {
        let wrong = format!("{text}{tunnel}").replace(change, with);
        let found = Topology::parse("f", &wrong).unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
}
