//! Rules on virtual interfaces. 28 classic frames are sent (14 identifiers, as data and as remote frames), 12 error
//! frames, 40 FD frames: see `frames`.

use super::script::{VIRTUAL, compare};

macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident: $script:literal;)*) => {
        $($(#[$doc])* #[test] fn $name() { compare($script, &VIRTUAL); })*
    };
}

cases! {
    no_filter: "
        cangw -A -s x0 -d x1
        send x0p all
        total 28 0 0";
    filter_0_0_is_none: "
        cangw -A -s x0 -d x1 -f 0:0
        send x0p all
        total 28 0 0";
    // Also remote frames and extended identifiers that end in these 11 bits.
    standard_id: "
        cangw -A -s x0 -d x1 -f 123:7FF
        send x0p all
        total 6 0 0";
    standard_data_frames_only: "
        cangw -A -s x0 -d x1 -f 123:C00007FF
        send x0p all
        total 1 0 0";
    standard_id_by_lower_case: "
        cangw -A -s x0 -d x1 -f 7ff:c00007ff
        send x0p all
        total 1 0 0";
    extended_id: "
        cangw -A -s x0 -d x1 -f 92345678:DFFFFFFF
        send x0p all
        total 1 0 0";
    extended_id_with_remote_frames: "
        cangw -A -s x0 -d x1 -f 92345678:9FFFFFFF
        send x0p all
        total 2 0 0";
    // With the error bit in the mask it is a rule for error frames.
    a_mask_of_all_ones: "
        cangw -A -s x0 -d x1 -f 92345678:FFFFFFFF
        send x0p all
        total 12 0 0";
    remote_frames_only: "
        cangw -A -s x0 -d x1 -f 40000000:40000000
        send x0p all
        total 14 0 0";
    // The mask is reduced to 11 bits because the identifier is a standard one.
    extended_flag_in_the_mask_of_a_standard_id: "
        cangw -A -s x0 -d x1 -f 123:9FFFFFFF
        send x0p all
        total 2 0 0";
    mask_of_some_bits: "
        cangw -A -s x0 -d x1 -f 120:7F0
        send x0p all
        total 12 0 0";
    inverted_id: "
        cangw -A -s x0 -d x1 -f 123~C00007FF
        send x0p all
        total 27 0 0";
    inverted_mask: "
        cangw -A -s x0 -d x1 -f 120~7F0
        send x0p all
        total 16 0 0";
    inverted_nothing: "
        cangw -A -s x0 -d x1 -f 0~0
        send x0p all
        total 0 0 0";
    inverted_by_the_bit_in_the_id: "
        cangw -A -s x0 -d x1 -f 20000123:7FF
        send x0p all
        total 22 0 0";
    error_frames_all: "
        cangw -A -s x0 -d x1 -f 0:2000FFFF
        send x0p all
        total 12 0 0";
    error_frames_of_some_classes: "
        cangw -A -s x0 -d x1 -f 0:2000000C
        send x0p all
        total 4 0 0";
    error_mask_is_stronger_than_inversion: "
        cangw -A -s x0 -d x1 -f 0~20000004
        send x0p all
        total 3 0 0";
    fd_frames: "
        cangw -A -s x0 -d x1 -X
        send x0p all
        total 40 0 0";
    fd_frames_by_id: "
        cangw -A -s x0 -d x1 -X -f 123:C00007FF
        cangw -A -s x0 -d x2 -X -f 92345678:DFFFFFFF
        cangw -A -s x0 -d x2 -X -e -f 123~7FF
        send x0p all
        total 40 0 0";
    fd_and_classic_rules_together: "
        cangw -A -s x0 -d x1 -X -f 123:7FF
        cangw -A -s x0 -d x1 -f 123:7FF
        cangw -A -s x0 -d v0 -e -X
        send x0p all
        total 66 0 0";
    several_rules: "
        cangw -A -s x0 -d x1 -f 123:7FF
        cangw -A -s x0 -d x2 -f 120:7F0
        cangw -A -s x0 -d v1 -e -f 124~7FF
        cangw -A -s x0 -d v0 -e -f 0:2000FFFF
        cangw -A -s x0 -d x2 -f 92345678:DFFFFFFF
        cangw -A -s x0 -d x1
        send x0p all
        total 83 0 0";
    duplicates: "
        cangw -A -s x0 -d x1 -f 123:7FF
        cangw -A -s x0 -d x1 -f 123:7FF
        cangw -A -s x0 -d x1 -f 123:7FF -e
        send x0p classic
        total 18 0 0";
    duplicates_with_echo: "
        cangw -A -s x0 -d v0 -e
        cangw -A -s x0 -d v1 -e
        cangw -A -s x0 -d v0 -e
        cangw -A -s v2 -d v0 -e
        cangw -A -s v2 -d v0 -e
        send x0p one
        send v2 one
        total 5 0 0";
    several_targets: "
        cangw -A -s x0 -d x1
        cangw -A -s x0 -d x2
        cangw -A -s x0 -d v0 -e
        cangw -A -s x0 -d v1 -e -X
        send x0p all
        total 124 0 0";
    all_lengths: "
        cangw -A -s x0 -d x1
        cangw -A -s v0 -d v1 -e
        send x0p lengths
        send v0 lengths
        total 50 0 0";
    vcan_without_echo_shows_nothing: "
        cangw -A -s v0 -d v1
        send v0 classic
        total 28 0 0";
    vcan_with_echo: "
        cangw -A -s v0 -d v1 -e
        send v0 all
        total 28 0 0";
    vxcan_with_echo: "
        cangw -A -s x0 -d x1 -e
        cangw -A -s x0 -d x1 -X -e
        send x0p all
        total 68 0 0";
    // Frames of local sockets of the source are forwarded, too.
    local_sockets_of_a_vxcan_source: "
        cangw -A -s x0 -d x1
        cangw -A -s x0 -d v0 -e
        send x0 classic
        send x0p one
        total 58 0 0";
    two_ways_with_echo: "
        cangw -A -s v0 -d v1 -e
        cangw -A -s v1 -d v0 -e
        send v0 classic
        send v1 one
        total 29 0 29";
    two_ways_with_echo_on_vxcan: "
        cangw -A -s x0 -d x1 -e
        cangw -A -s x1 -d x0 -e
        send x0p classic
        send x1p one
        total 29 0 29";
    two_ways_without_echo: "
        cangw -A -s x0 -d x1
        cangw -A -s x1 -d x0
        send x0p classic
        send x1p one
        total 29 0 0";
    two_ways_fd_with_echo: "
        cangw -A -s v0 -d v1 -e -X
        cangw -A -s v1 -d v0 -e -X
        send v0 all
        total 40 0 40";
    a_hub_of_three_with_echo: "
        cangw -A -s v0 -d v1 -e
        cangw -A -s v0 -d v2 -e
        cangw -A -s v1 -d v0 -e
        cangw -A -s v1 -d v2 -e
        cangw -A -s v2 -d v0 -e
        cangw -A -s v2 -d v1 -e
        send v0 classic
        send v1 one
        send v2 one
        total 60 0 120";
    // The pair's other end is where the frames come from.
    to_the_other_end_of_the_pair: "
        cangw -A -s x0 -d x0p
        cangw -A -s x0 -d x0p -e
        cangw -A -s x0 -d x1
        send x0p classic
        total 28 0 0";
    back_to_the_source: "
        cangw -A -s v0 -d v0 -i
        send v0 classic
        total 28 0 0";
    back_to_the_source_with_echo: "
        cangw -A -s v0 -d v0 -i -e
        send v0 classic
        total 28 0 28";
    back_to_a_vxcan_source: "
        cangw -A -s x0 -d x0 -i
        cangw -A -s x0 -d x1 -i -e -t
        send x0p classic
        total 56 0 0";
    target_down: "
        cangw -A -s x0 -d x1
        cangw -A -s x0 -d x2 -e
        cangw -A -s x0 -d v0 -e
        ip link set x1 down
        send x0p classic
        total 56 28 0
        ip link set v0 down
        send x0p one
        total 57 30 0
        ip link set x1 up
        ip link set v0 up
        send x0p one
        total 60 30 0";
    source_down_and_up: "
        cangw -A -s x0 -d x1
        send x0p one
        ip link set x0 down
        ip link set x0 up
        send x0p one
        total 2 0 0";
    hop_limit: "
        cangw -A -s v0 -d v1 -e -l 1
        cangw -A -s v1 -d v2 -e
        send v0 classic
        total 28 0 28";
    options_in_the_list: "
        cangw -A -s x0 -d x1 -e -t -i -l 1 -f 12:7FF
        cangw -A -s x0 -d x2 -t -X
        cangw -A -s v0 -d x2 -i -X -f 92345678~DFFFFFFF
        cangw -A -s v0 -d x2 -f 00000001:0
        cangw -A -s v0 -d x2 -f 0:1
        total 0 0 0";
    delete_the_newest_of_the_same: "
        cangw -A -s x0 -d x1 -f 123:7FF
        send x0p one
        cangw -A -s x0 -d x1 -f 123:7FF
        send x0p one
        cangw -A -s x0 -d x2
        total 3 0 0
        cangw -D -s x0 -d x1 -f 123:7FF
        total 2 0 0
        send x0p one
        total 4 0 0
        cangw -D -s x0 -d x1 -f 123:7FF
        total 1 0 0
        cangw -D -s x0 -d x1 -f 123:7FF
        total 1 0 0";
    delete_needs_the_same_options: "
        cangw -A -s x0 -d x1 -e -i -t -l 1 -f 123:C00007FF
        cangw -D -s x0 -d x1 -i -t -l 1 -f 123:C00007FF
        cangw -D -s x0 -d x1 -e -t -l 1 -f 123:C00007FF
        cangw -D -s x0 -d x1 -e -i -l 1 -f 123:C00007FF
        cangw -D -s x0 -d x1 -e -i -t -f 123:C00007FF
        cangw -D -s x0 -d x1 -e -i -t -l 1 -f 123:7FF
        cangw -D -s x0 -d x1 -e -i -t -l 1 -f 123~C00007FF
        cangw -D -s x0 -d x1 -e -i -t -l 1
        cangw -D -s x0 -d x2 -e -i -t -l 1 -f 123:C00007FF
        cangw -D -s x0 -d x1 -X -e -i -t -l 1 -f 123:C00007FF
        total 0 0 0
        cangw -D -s x0 -d x1 -f 123:C00007FF -l 1 -t -i -e
        total 0 0 0";
    delete_with_0_0: "
        cangw -A -s x0 -d x1
        cangw -A -s x0 -d x2 -f 0:0
        cangw -D -s x0 -d x1 -f 0:0
        cangw -D -s x0 -d x2
        total 0 0 0";
    flush: "
        cangw -A -s x0 -d x1
        cangw -A -s v0 -d v1 -e -f 123:7FF
        send x0p one
        total 1 0 0
        cangw -F
        total 0 0 0
        send x0p classic
        send v0 classic
        cangw -F
        cangw -D -s x0 -d x1
        cangw -A -s x0 -d x1
        send x0p one
        total 1 0 0";
    changes_between_frames: "
        cangw -A -s x0 -d x1 -f 123:7FF
        send x0p classic
        cangw -A -s x0 -d x2 -f 124:7FF
        send x0p classic
        cangw -A -s x1 -d v0 -e
        send x0p classic
        cangw -D -s x0 -d x1 -f 123:7FF
        send x0p classic
        total 12 0 0
        send x1p classic
        total 40 0 0";
}
