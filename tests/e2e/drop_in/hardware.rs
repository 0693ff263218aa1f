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
