# An nginx to which nothing happens, in a folder of its own, and facts of the kernel.

# FOLDER ERROR_LOG LISTEN
configure() {
    mkdir -p "$1/logs"
    cat > "$1/nginx.conf" <<END
daemon off;
worker_processes 2;
error_log $2 info;
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
        listen $3;
        location / { proxy_pass http://127.0.0.1:9; }
    }
}
END
}
# FOLDER ERROR_LOG: becomes it. By its path: busybox has another setpriv.
become_nginx() { exec /bin/setpriv --pdeathsig TERM "$WHOCLOSED_NGINX" -p "$1" -c nginx.conf -e "$2"; }
# PID. Not from its list of children, which a kernel need not have (CONFIG_PROC_CHILDREN).
workers() { grep -ls "^PPid:.$1\$" /proc/[0-9]*/status | wc -l; }
# FOLDER: its pid once both workers run.
started() {
    tries=0
    until [ -s "$1/nginx.pid" ] && [ "$(workers "$(cat "$1/nginx.pid")")" = 2 ] || [ $tries = 300 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    cat "$1/nginx.pid"
}
# One at which nobody listens, below those that the kernel gives out.
free_port() {
    port=21111
    while grep -qis ":$(printf %04X $port) " /proc/net/tcp /proc/net/tcp6; do
        port=$((port + 1))
    done
    echo $port
}
# Whether programs may ask for a task's registers, as Linux 5.15 and later let them.
hands_out_registers() {
    grep -q ' bpf_task_pt_regs$' /proc/kallsyms && has=yes || has=no
    echo "hands out registers: $has"
}
