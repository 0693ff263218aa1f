# The first process of a guest. Above this, xtask sets: shares (folders, one a line), start (a script of the host's files).
set -eu

for module in /modules/*.ko; do busybox insmod "$module"; done

# mount_share TAG FOLDER OPTIONS
mount_share() { busybox mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "/host$2"; }
# The host's files do not change while a guest runs, or at least not those that it reads.
mount_share root / ro,cache=loose

busybox mount -t devtmpfs dev /host/dev
busybox mkdir -p /host/dev/pts /host/dev/shm
busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /host/dev/pts
busybox mount -t tmpfs -o mode=1777 tmpfs /host/dev/shm
busybox ln -s /proc/self/fd /host/dev/fd
busybox ln -s /proc/self/fd/0 /host/dev/stdin
busybox ln -s /proc/self/fd/1 /host/dev/stdout
busybox ln -s /proc/self/fd/2 /host/dev/stderr
busybox mount -t proc proc /host/proc
busybox mount -t sysfs sysfs /host/sys
busybox mount -t bpf -o mode=700 bpf /host/sys/fs/bpf
busybox mount -t cgroup2 cgroup2 /host/sys/fs/cgroup
busybox mount -t debugfs debugfs /host/sys/kernel/debug
busybox mount -t tracefs tracefs /host/sys/kernel/tracing
busybox mount -t tmpfs -o mode=755 tmpfs /host/run
for folder in tmp var/tmp; do busybox mount -t tmpfs -o mode=1777 tmpfs "/host/$folder"; done

number=0
while IFS= read -r folder; do
    # Only beneath the folders in memory is there anything to make.
    busybox mkdir -p "/host$folder"
    # What the guest writes here is on the host after the sync at its end.
    mount_share "share$number" "$folder" cache=loose
    number=$((number + 1))
done <<END
$shares
END

# Not a chroot: the guest's processes and /proc/1/root are to see the same root.
exec busybox switch_root /host /bin/sh "$start"
