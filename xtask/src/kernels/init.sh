#!/bin/sh
# The guest's first process. Whatever fails here shows in what the command finds.
export PATH=/bin:/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
hostname guest
# From the kernel's command line.
stty -F "/dev/$REPORT" raw -echo
exec >"/dev/$REPORT" 2>&1 </dev/null
echo "guest: up"
# No terminal for the command: programs draw nothing.
{ sh /command.sh; echo "guest: ended $?"; } 2>&1 | cat
poweroff -f
