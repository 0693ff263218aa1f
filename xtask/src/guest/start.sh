# Goes on where init.sh ends, on the host's files. Above this, xtask sets: run (the folder of this run), modules (the kernel's
# folder), max_hops, and the function `command`, which becomes the command to run.
set -u
umask 022
ulimit -n 65536
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

finish() { sync; busybox poweroff -f; }
fail() { echo "guest: $1" >/dev/console; finish; }

# Modules come from the unpacked kernel, also when the kernel itself asks for one.
export MODPROBE_OPTIONS="--dirname=$modules"
cp "$run/modprobe" /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
modprobe --all can can-raw can-bcm can-isotp can-dev vcan vxcan kvaser_pci slcan \
    overlay bridge veth sch_ingress sch_fq_codel cls_bpf cls_fw cls_matchall act_mirred act_skbedit act_gact || fail "a module did not load"
modprobe ifb numifbs=0 || fail "ifb did not load"
modprobe can-gw "max_hops=$max_hops" || fail "can-gw did not load"
ip link set lo up || fail "lo does not come up"

# A port of virtio can be opened once only, and programs open /dev/stdout again: hence pipes before the ports.
mkdir /run/guest
mkfifo /run/guest/out /run/guest/err
busybox cat /run/guest/out >/dev/vport0p1 &
out=$!
busybox cat /run/guest/err >/dev/vport0p2 &
err=$!

cgroup=/sys/fs/cgroup/guest
mkdir "$cgroup"
(
    echo 0 >"$cgroup/cgroup.procs"
    command
) </dev/null >/run/guest/out 2>/run/guest/err
status=$?

# What the command left running keeps the pipes open; a process that fled to another group is waited for only so long.
echo 1 >"$cgroup/cgroup.kill"
(sleep 5; kill "$out" "$err") 2>/dev/null &
wait "$out" "$err"
echo "$status" >"$run/status"
finish
