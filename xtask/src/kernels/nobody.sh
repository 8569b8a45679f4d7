# The lab's stale connections, captured by a user who owns nothing and has the capabilities
# of docs/doctor.md alone; before its score, what that capture kept of them, and what doctor
# says to that user.
folder=$(mktemp -d)
chmod 755 "$folder"
cat > "$folder/whoclosed" <<'END'
#!/bin/sh
before=
for argument; do
    # The lab's folder is root's.
    [ "$before" = --output ] && chmod 777 "$(dirname "$argument")"
    before=$argument
done
# Whether it has given up what it does without, as that user: what it might inherit goes
# first, what it is permitted last. setpriv has all until it becomes the agent.
has_given_up() {
    awk '$1 == "Name:" { name = $2 } $1 == "Uid:" { user = $2 } /^Cap/ { has[$1] = $2 }
        END {
            exit !(name == "whoclosed" && user == 65534 && has["CapInh:"] ~ /^0+$/ &&
                has["CapPrm:"] == has["CapEff:"])
        }' /proc/$$/status
}
if [ "$1" = capture ]; then (
    tries=0
    until has_given_up || [ ! -e /proc/$$/status ] || [ $tries = 600 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    sed -n 's/^CapPrm:./kept: /p; s/^Uid:.\([0-9]*\).*/user: \1/p' /proc/$$/status > "${0%/*}/kept"
) & fi
caps=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search
# By its path: busybox has another.
exec /bin/setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
    --bounding-set=$caps --inh-caps=$caps --ambient-caps=$caps "$AGENT" "$@"
END
chmod 755 "$folder/whoclosed"
export AGENT="$WHOCLOSED"
configure "$folder/nginx" logs/error.log "127.0.0.1:$(free_port)"
become_nginx "$folder/nginx" "$folder/nginx/logs/error.log" &
nginx=$(started "$folder/nginx")
said=$("$folder/whoclosed" doctor --format json --nginx "$nginx" 2>&1)
told=$?
kill -TERM "$nginx"
wait
# Where this user's captures see neither lines nor calls many a line has no connection. The
# lab looks for the truth of such ones only if it withholds the uprobes itself.
blind=
case $said in
*'Requests cannot be counted'*'"log_calls_seen": false'*) blind=--no-uprobe ;;
esac
WHOCLOSED=$folder/whoclosed whoclosed-lab stale --seed $SEED $blind --json --runs-may-be-missed > "$folder/score" 2>&1
status=$?
echo "release: $(uname -r)"
echo "unprivileged_bpf_disabled: $(cat /proc/sys/kernel/unprivileged_bpf_disabled 2>/dev/null)"
hands_out_registers
cat "$folder/kept"
# In one line: the lab's score is what begins a line with a brace.
printf 'doctor: %s\n' "$(printf '%s' "$said" | tr '\n' ' ')"
echo "doctor's status: $told"
cat "$folder/score"
rm -r "$folder"
exit $status
