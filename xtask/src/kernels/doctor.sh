# What doctor says of this kernel: with an nginx, with one whose error log is a pipe, as a
# backend's host, without an nginx, and without the kernel's description of its types; and
# where it says that no capture is possible, what a capture says. Before that the facts, from
# others than doctor.
folder=$(mktemp -d)
echo text > "$folder/types"
port=$(free_port)
configure "$folder/whole" logs/error.log "unix:$folder/whole/socket"
configure "$folder/piped" stderr "127.0.0.1:$port"
become_nginx "$folder/whole" "$folder/whole/logs/error.log" &
become_nginx "$folder/piped" stderr 2>&1 >/dev/null | cat > "$folder/said" &
nginx=$(started "$folder/whole")
piped=$(started "$folder/piped")
# A kernel measures its processor's clock for a second before it trusts it.
clock() { cat /sys/devices/system/clocksource/clocksource0/current_clocksource; }
tries=0
until [ "$(clock)" != tsc-early ] || [ $tries = 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
echo "release: $(uname -r)"
echo "lockdown: $(cat /sys/kernel/security/lockdown 2>/dev/null)"
echo "clock: $(clock)"
grep -q ' __traceiter_sock_send_length' /proc/kallsyms && echo "tells of sends: yes" || echo "tells of sends: no"
echo "whole nginx: $nginx"
echo "whole workers: $(workers "$nginx")"
echo "whole folder: $folder/whole"
echo "piped nginx: $piped"
echo "piped workers: $(workers "$piped")"
echo "piped folder: $folder/piped"
echo "port: $port"
hands_out_registers
# CASE HOW OPTIONS..
answer() {
    case=$1
    how=$2
    shift 2
    echo "case: $case"
    said=$($how "$WHOCLOSED" doctor --format json "$@" 2>&1)
    printf '%s\nexit: %s\n' "$said" $?
    case $said in
    *'"possible": false'*) ;;
    *) return ;;
    esac
    echo "capture: $case"
    said=$($how "$WHOCLOSED" capture --duration 1s --output "$folder/trace" "$@" 2>&1 >/dev/null)
    printf '%s\nexit: %s\n' "$said" $?
    [ ! -e "$folder/trace" ] || echo "trace: it left one"
    rm -f "$folder/trace"
}
plainly() { "$@"; }
# A mount that nobody else sees.
without_types() {
    unshare -m sh -c 'mount --bind "$0" /sys/kernel/btf/vmlinux && exec "$@"' "$folder/types" "$@"
}
answer whole plainly --nginx "$nginx"
answer piped plainly --nginx "$piped"
answer backend plainly --role backend --port $port
answer without-nginx plainly --process-name none-such
answer without-types without_types --nginx "$nginx"
# By now its module is loaded, if it is one that there is.
grep -q ' tcp_diag_dump' /proc/kallsyms && echo "lists sockets: yes" || echo "lists sockets: no"
kill -TERM "$nginx" "$piped"
wait
rm -r "$folder"
