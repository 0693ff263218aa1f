//! Frames that are forwarded more than once.

use cangw_tests::lab::Link;

use super::script::compare;

const CHAIN: [Link; 8] = [
    Link::Vcan("v0"),
    Link::Vcan("v1"),
    Link::Vcan("v2"),
    Link::Vcan("v3"),
    Link::Vcan("v4"),
    Link::Vcan("v5"),
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
];

macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident: $script:literal;)*) => {
        $($(#[$doc])* #[test] fn $name() { compare($script, &CHAIN); })*
    };
}

cases! {
    a_chain_within_the_limit: "
        hops 3
        cangw -A -s v0 -d v1 -e
        cangw -A -s v1 -d v2 -e
        cangw -A -s v2 -d v3 -e
        send v0 one
        total 3 0 0";
    a_chain_that_is_too_long: "
        hops 3
        cangw -A -s v0 -d v1 -e
        cangw -A -s v1 -d v2 -e
        cangw -A -s v2 -d v3 -e
        cangw -A -s v3 -d v4 -e
        cangw -A -s v4 -d v5 -e
        send v0 classic
        send v2 one
        total 87 0 28";
    the_longest_chain: "
        hops 6
        cangw -A -s v0 -d v1 -e
        cangw -A -s v1 -d v2 -e -X
        cangw -A -s v1 -d v2 -e
        cangw -A -s v2 -d v3 -e
        cangw -A -s v3 -d v4 -e
        cangw -A -s v4 -d v5 -e
        cangw -A -s v0 -d v1 -e -X
        send v0 one
        send v0 one-fd
        total 7 0 0";
    a_limit_of_the_first_rule: "
        hops 4
        cangw -A -s v0 -d v1 -e -l 2
        cangw -A -s v1 -d v2 -e
        cangw -A -s v2 -d v3 -e
        cangw -A -s v3 -d v4 -e
        send v0 one
        total 2 0 1
        send v1 one
        total 5 0 1";
    // It acts at a frame's first hop only.
    a_limit_of_a_later_rule: "
        hops 4
        cangw -A -s v0 -d v1 -e
        cangw -A -s v1 -d v2 -e -l 1
        cangw -A -s v2 -d v3 -e
        send v0 one
        total 3 0 0
        send v1 one
        total 4 0 1";
    limits_of_several_rules: "
        hops 4
        cangw -A -s v0 -d v1 -e -l 1
        cangw -A -s v0 -d v2 -e -l 3
        cangw -A -s v0 -d v5 -e
        cangw -A -s v1 -d v3 -e
        cangw -A -s v2 -d v3 -e
        cangw -A -s v3 -d v4 -e
        cangw -A -s v4 -d v5 -e
        send v0 one
        total 5 0 2";
    limits_up_to_max_hops: "
        hops 3
        cangw -A -s v0 -d v1 -l 3
        cangw -A -s v0 -d v1 -l 4
        cangw -A -s v0 -d v1 -l 1
        send v0 one
        total 2 0 0";
    // Back to the first interface nothing goes, and nothing counts.
    two_ways_with_hops_to_spare: "
        hops 3
        cangw -A -s v0 -d v1 -e
        cangw -A -s v1 -d v0 -e
        send v0 classic
        send v1 one
        total 29 0 0";
    two_ways_back_to_the_first: "
        hops 3
        cangw -A -s v0 -d v1 -e -i
        cangw -A -s v1 -d v0 -e -i
        send v0 one
        total 3 0 1";
    a_ring_of_three: "
        hops 6
        cangw -A -s v0 -d v1 -e
        cangw -A -s v1 -d v2 -e
        cangw -A -s v2 -d v0 -e
        send v0 one
        total 2 0 0";
    a_hub_of_three: "
        hops 2
        cangw -A -s v0 -d v1 -e
        cangw -A -s v0 -d v2 -e
        cangw -A -s v1 -d v0 -e
        cangw -A -s v1 -d v2 -e
        cangw -A -s v2 -d v0 -e
        cangw -A -s v2 -d v1 -e
        send v0 one
        total 4 0 4";
    // The frame is a new one on the other side.
    a_pair_counts_anew: "
        cangw -A -s v0 -d v1 -e
        cangw -A -s v0 -d x0
        cangw -A -s x0p -d v2 -e
        cangw -A -s v2 -d v3 -e
        send v0 one
        total 3 0 1";
    back_to_the_same_interface_with_hops: "
        hops 3
        cangw -A -s v0 -d v0 -e -i
        send v0 one
        total 3 0 1";
}
