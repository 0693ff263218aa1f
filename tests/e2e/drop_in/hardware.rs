//! Rules from and to real controllers: can0 and can1 are on one bus, can2 and can3 on another.

use cangw_tests::lab::Link;

use super::script::compare;

const HARDWARE: [Link; 7] = [
    Link::Hardware("can0"),
    Link::Hardware("can1"),
    Link::Hardware("can2"),
    Link::Hardware("can3"),
    Link::Vcan("v0"),
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
];

macro_rules! cases {
    ($($name:ident: $script:literal;)*) => {
        $(#[test] fn $name() { compare($script, &HARDWARE); })*
    };
}

cases! {
    from_vcan_to_a_bus: "
        cangw -A -s v0 -d can0
        relay v0 can1 bus
        total 28 0 0";
    from_vcan_to_a_bus_with_echo: "
        cangw -A -s v0 -d can0 -e
        relay v0 can1 bus
        total 28 0 0";
    from_vxcan_to_a_bus: "
        cangw -A -s x0 -d can0
        relay x0p can1 bus
        total 28 0 0";
    from_a_bus_to_vcan: "
        cangw -A -s can0 -d v0 -e
        relay can1 v0 bus
        total 28 0 0";
    from_a_bus_to_vxcan: "
        cangw -A -s can0 -d x0
        cangw -A -s can0 -d x1 -e
        relay can1 x0p bus
        total 56 0 0";
    from_bus_to_bus: "
        cangw -A -s can0 -d can2
        relay can1 can3 bus
        total 28 0 0";
    from_bus_to_bus_with_echo: "
        cangw -A -s can0 -d can2 -e
        relay can1 can3 bus
        total 28 0 0";
    between_buses_both_ways: "
        cangw -A -s can0 -d can2
        cangw -A -s can2 -d can0
        relay can1 can3 bus
        relay can3 can1 bus
        total 56 0 0";
    filters_on_a_controller: "
        cangw -A -s can0 -d x0
        cangw -A -s can0 -d x1 -f 123:C00007FF
        cangw -A -s can0 -d x1 -f 92345678:DFFFFFFF
        cangw -A -s can0 -d v0 -e -f 123~7FF
        cangw -A -s can0 -d v0 -e -f 0~0
        relay can1 x0p bus
        total 52 0 0";
    modifications_from_a_controller: "
        cangw -A -s can0 -d x0 -m OR:I:400.0.0000000000000000 -m SET:D:0.0.0102030405060708 -x 0:-2:-1:5A
        cangw -A -s can0 -d x0
        cangw -A -s can0 -d can2 -m XOR:D:0.0.FFFFFFFFFFFFFFFF
        cangw -A -s can0 -d v0 -e -m SET:L:0.C.0000000000000000
        cangw -A -s can0 -d x1 -m SET:L:0.10.0000000000000000
        cangw -A -s can0 -d x1 -f 123:7FF
        relay can1 x0p+can3 bus
        total 118 0 28";
    // The oldest rule is the last that sends: its frame shows that the others have come.
    modifications_to_a_controller: "
        cangw -A -s v0 -d can0
        cangw -A -s v0 -d x0
        cangw -A -s v0 -d can0 -e -m XOR:D:0.0.FFFFFFFFFFFFFFFF -m AND:I:C00000F0.0.0000000000000000
        relay v0 can1 bus
        total 84 0 0";
    an_echo_of_a_modified_frame_from_a_controller: "
        cangw -A -s can0 -d x1
        cangw -A -s can0 -d v0 -e -m SET:I:124.0.0000000000000000
        cangw -A -s v0 -d can0 -e -f 124:7FF
        cangw -A -s v0 -d x0 -m SET:I:125.0.0000000000000000
        relay can1 x1p bus
        total 56 0 56";
    a_chain_of_modified_frames_from_a_controller: "
        hops 2
        cangw -A -s can0 -d x1
        cangw -A -s can0 -d v0 -e -m SET:I:124.0.0000000000000000
        cangw -A -s v0 -d can2 -f 124:7FF
        cangw -A -s v0 -d x0 -m SET:D:125.0.0102030405060708
        relay can1 x1p+can3 bus
        total 112 0 0";
    local_sockets_of_a_controller: "
        cangw -A -s can0 -d x0
        relay can0 x0p bus
        total 28 0 0";
    target_controller_down: "
        cangw -A -s x0 -d can0
        cangw -A -s x0 -d x1
        ip link set can0 down
        send x0p bus
        total 28 28 0";
    source_to_a_target_that_is_down: "
        cangw -A -s can0 -d x0
        cangw -A -s can0 -d x1
        ip link set x1 down
        relay can1 x0p bus
        total 28 28 0";
}
