# What doctor says of this kernel with an nginx, without one, and without the kernel's
# description of its types; before that the facts, from others than doctor.
folder=$(mktemp -d)
mkdir "$folder/logs"
echo text > "$folder/types"
cat > "$folder/nginx.conf" <<END
daemon off;
worker_processes 2;
error_log logs/error.log info;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen unix:$folder/socket;
        location / { proxy_pass http://127.0.0.1:9; }
    }
}
END
# By its path: busybox has another setpriv.
/bin/setpriv --pdeathsig TERM "$WHOCLOSED_NGINX" -p "$folder" -c nginx.conf -e "$folder/logs/error.log" &
nginx=$!
workers() { wc -w < /proc/$nginx/task/$nginx/children; }
tries=0
until [ "$(workers)" = 2 ] || [ $tries = 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
echo "release: $(uname -r)"
echo "lockdown: $(cat /sys/kernel/security/lockdown 2>/dev/null)"
echo "clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "nginx: $nginx"
echo "workers: $(workers)"
echo "folder: $folder"
answer() {
    echo "case: $1"
    shift
    "$@" 2>&1
    echo "exit: $?"
}
answer whole "$WHOCLOSED" doctor --format json --nginx $nginx
answer without-nginx "$WHOCLOSED" doctor --format json --process-name none-such
# A mount that nobody else sees.
answer without-types unshare -m sh -c \
    'mount --bind "$0" /sys/kernel/btf/vmlinux && exec "$WHOCLOSED" doctor --format json --nginx "$1"' \
    "$folder/types" $nginx
kill -TERM $nginx
wait $nginx
rm -r "$folder"
