#!/usr/bin/env bash
# CPU time per request of Berth's gateway, nginx and haproxy, side by side: the same load, the same
# upstream, one thread each, interleaved rounds; the median of the rounds counts.
#
#   tests/benches/gateway.sh [PATH OF bare_gateway]
#
# Needs wrk, nginx and haproxy (Debian: wrk nginx-light haproxy), and the release example:
#   cargo build --release -p berth-gateway --example bare_gateway
# Environment: ROUNDS (5), SECONDS_EACH (3), CONNECTIONS (32), SIZES ("1024 102400" bytes).
set -euo pipefail

gateway=${1:-${CARGO_TARGET_DIR:-target}/release/examples/bare_gateway}
rounds=${ROUNDS:-5} each=${SECONDS_EACH:-3} connections=${CONNECTIONS:-32}
sizes=${SIZES:-1024 102400}
work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

for tool in wrk nginx haproxy "$gateway"; do
    command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 2; }
done

free_port() { # a port that nobody listens on, below the ephemeral range
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && { echo "$port"; return; }
    done
}
up=$(free_port) p_nginx=$(free_port) p_haproxy=$(free_port) p_berth=$(free_port)
mkdir -p "$work/files"
for size in $sizes; do head -c "$size" /dev/zero | tr '\0' x > "$work/files/$size"; done

nginx_common="daemon off; worker_processes 1; pid PID; error_log stderr error; user root;
events { worker_connections 4096; }"
cat > "$work/upstream.conf" <<CONF
${nginx_common/PID/$work/upstream.pid}
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100;
  server { listen 127.0.0.1:$up backlog=4096; root $work/files; } }
CONF
cat > "$work/nginx.conf" <<CONF
${nginx_common/PID/$work/nginx.pid}
http { access_log off; keepalive_requests 1000000000; client_body_temp_path $work; proxy_temp_path $work;
  upstream bench { server 127.0.0.1:$up; keepalive 64; keepalive_requests 1000000000; }
  server { listen 127.0.0.1:$p_nginx backlog=4096;
    location /s/bench/ { proxy_pass http://bench/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Request-ID \$request_id; proxy_set_header X-Forwarded-For \$remote_addr;
      proxy_set_header X-Forwarded-Proto \$scheme; proxy_set_header X-Forwarded-Host \$host;
      add_header X-Request-ID \$request_id; add_header berth-service bench; } } }
CONF
cat > "$work/haproxy.cfg" <<CONF
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:$p_haproxy
  unique-id-format %[uuid]
  unique-id-header X-Request-ID
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-response set-header X-Request-ID %[unique-id]
  http-response set-header berth-service bench
  default_backend b
backend b
  http-request replace-path /s/bench(/.*) \1
  server s 127.0.0.1:$up
CONF
nginx -c "$work/upstream.conf" 2>"$work/upstream.log" & pids+=($!)
nginx -c "$work/nginx.conf" 2>"$work/nginx.log" & pids+=($!); pid_nginx=$!
haproxy -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 & pids+=($!); pid_haproxy=$!
"$gateway" --threads 1 --listen "127.0.0.1:$p_berth" --upstream "127.0.0.1:$up" >"$work/berth.log" & pids+=($!)
pid_berth=$!

url() { local port=p_$1; echo "http://127.0.0.1:${!port}/s/bench/$2"; }
answers() { # the length of the answer
    exec 3<>"/dev/tcp/127.0.0.1/${1%%/*}" || return 1
    printf 'GET /%s HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n' "${1#*/}" >&3
    timeout 5 cat <&3 | wc -c
    exec 3<&-
}
for proxy in berth nginx haproxy; do
    port=p_$proxy
    for _ in $(seq 100); do
        got=$(answers "${!port}/s/bench/${sizes%% *}" 2>/dev/null || echo 0)
        [ "$got" -ge "${sizes%% *}" ] && break
        sleep 0.1
    done
    [ "$got" -ge "${sizes%% *}" ] || { echo "$proxy does not answer" >&2; cat "$work"/*.log >&2; exit 1; }
done

# nginx works in a child of its master.
pid_nginx=$(pgrep -P "$pid_nginx")
ticks() { local pid=pid_$1; awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/${!pid}/stat"; }
hertz=$(getconf CLK_TCK)
printf '%-8s %-8s %14s %10s %12s\n' size proxy 'CPU-µs/request' ratio 'requests/s'
for size in $sizes; do
    for round in $(seq "$rounds"); do
        for proxy in berth nginx haproxy; do
            before=$(ticks "$proxy")
            wrk -t1 -c"$connections" -d"${each}s" "$(url "$proxy" "$size")" > "$work/wrk"
            after=$(ticks "$proxy")
            ! grep -E 'Non-2xx|Socket errors' "$work/wrk" || { echo "$proxy: failed requests" >&2; exit 1; }
            awk -v p="$proxy" -v t=$((after - before)) -v hz="$hertz" '
                / requests in / { n = $1 } /^Requests\/sec/ { rps = $2 }
                END { printf "%s %.3f %.0f\n", p, t / hz * 1e6 / n, rps }' "$work/wrk" >> "$work/$size"
        done
    done
    median() { awk -v p="$1" -v c="$2" '$1 == p { print $c }' "$work/$size" | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
    ours=$(median berth 2)
    for proxy in berth nginx haproxy; do
        theirs=$(median "$proxy" 2)
        awk -v s="$size" -v p="$proxy" -v t="$theirs" -v o="$ours" -v r="$(median "$proxy" 3)" \
            'BEGIN { printf "%-8s %-8s %14.1f %10.2f %12.0f\n", s, p, t, o / t, r }'
    done
done
echo "ratio: Berth's CPU time divided by the proxy's; below 1 is better than the proxy."
