#!/usr/bin/env bash
# Train on several machines: run the same command on each of them. See docs/distributed.md.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/launch_multi_node.sh --address A --machines N [option ...] CONFIG [section.key=value ...]

Run the same command on every machine, in any order. Training starts when all machines have joined.
The arguments after the options go to `retinanet train`, with --auto-resume: if the folder already
has a run, it continues from its last checkpoint. All machines must share the run folder
(output.dir). The data may be in a different place on each machine (data.root=...).

  --address A       address of the first machine, as the others reach it: IPv4, or a name that
                    resolves (not needed with --machines 1)
  --machines N      number of machines; restarted machines also wait for all of them
  --port P          port on the first machine, free and open to the others (default 29400). The
                    machines also connect to each other on ports that the system picks
  --processes P     number of processes on this machine (default: the number of its GPUs, or 1)
  --max-restarts R  how often the processes are restarted after one has failed (default 3)
  --wait S          seconds that a machine waits for the others, at the start and after a restart
                    (default 600)
  --interface I     network interface for gloo and NCCL, such as eth0 (default: for gloo, the one
                    that leads to the first machine; NCCL chooses its own)
  --host yes|no     whether this is the first machine (default: whether A is one of its own
                    addresses; behind a port mapping it is not)
  --help            show this help

example, to run on both of two machines:
  scripts/launch_multi_node.sh --address 10.0.0.1 --machines 2 \
    configs/retinanet_r50_fpn_1x_coco.yaml data.root=/data/coco output.dir=/shared/runs
TEXT
}

fail() {
  echo "error: $*" >&2
  exit 2
}

whole() { # NAME VALUE LOW HIGH
  [[ "$2" =~ ^[0-9]{1,9}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) ||
    fail "$1 $2: must be a whole number from $3 to $4"
}

address="" machines="" processes="" interface="" host=""
port=29400 restarts=3 wait=600
while (($#)) && [[ "$1" == -* ]]; do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
  esac
  (($# > 1)) || fail "$1: its value is missing, or there is no such option (see --help)"
  case "$1" in
    --address) address="$2" ;;
    --machines) machines="$2" ;;
    --port) port="$2" ;;
    --processes) processes="$2" ;;
    --max-restarts) restarts="$2" ;;
    --wait) wait="$2" ;;
    --interface) interface="$2" ;;
    --host) host="$2" ;;
    *) fail "there is no option $1 (see --help); options of \`retinanet train\` follow the config" ;;
  esac
  shift 2
done

[[ -n "$address" || "$machines" != 1 ]] || address=127.0.0.1
[[ -n "$address" ]] || fail "--address is missing: give the address of the first machine (see --help)"
[[ "$address" =~ ^[A-Za-z0-9._-]+$ ]] ||
  fail "--address $address: neither an IPv4 address nor a host name; give the port with --port"
[[ -n "$machines" ]] || fail "--machines is missing: give the number of machines (see --help)"
whole --machines "$machines" 1 100000
whole --port "$port" 1 65535
whole --max-restarts "$restarts" 0 100000
whole --wait "$wait" 1 1000000
[[ -z "$processes" ]] || whole --processes "$processes" 1 1024
[[ "$host" =~ ^(yes|no)?$ ]] || fail "--host $host: must be yes or no"
(($#)) || fail "give a config file, or options of \`retinanet train\`, after the options (see --help)"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
if [[ -z "${PYTHON:-}" && -z "${VIRTUAL_ENV:-}" && -x "$root/.venv/bin/python" ]]; then
  python="$root/.venv/bin/python"
fi
command -v "$python" >/dev/null || fail "$python: there is no such program; set PYTHON to a Python"

# Ask the kernel from which of its addresses this machine reaches the first one, and which interface
# has that address. On the first machine, it is the same address. The machine's own host name is no
# help: it may not resolve, or resolve to 127.0.1.1.
here="$("$python" - "$address" "$port" "$interface" <<'PY'
import socket
import struct
import sys

address, port, interface = sys.argv[1], int(sys.argv[2]), sys.argv[3]
names = [name for _, name in socket.if_nameindex()]


def address_of(name):
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
        except OSError:  # it has no IPv4 address, or Linux has no such name
            return ""
    return socket.inet_ntoa(answer[20:24])


if interface and interface not in names:
    sys.exit(f"error: --interface {interface}: this machine has only {', '.join(names)}")
try:
    first = socket.gethostbyname(address)
except OSError as error:
    sys.exit(f"error: --address {address}: does not resolve here ({error}); give the IPv4 address")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
        probe.connect((first, port))  # sends nothing
    except OSError as error:
        sys.exit(f"error: --address {address}: this machine cannot reach {first} ({error})")
    local = probe.getsockname()[0]
host = "yes" if local == first else "no"
if interface:
    local = address_of(interface) or local
print(host, first, local, interface or next((n for n in names if address_of(n) == local), ""))
PY
)" || exit 2
read -r found first local nearest <<<"$here"
host="${host:-$found}"
if [[ "$first" == 127.* && "$first" != "$address" && "$machines" != 1 ]]; then
  fail "--address $address: is $first here (see /etc/hosts), which other machines cannot reach;" \
    "give the IPv4 address"
fi
if [[ -n "$interface" ]]; then
  export GLOO_SOCKET_IFNAME="$interface" NCCL_SOCKET_IFNAME="$interface"
elif [[ -n "$nearest" ]]; then
  export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-$nearest}"
fi
# Without this, a machine that comes back waits in vain for the address at which the processes meet:
# the first machine sends it only in the first round (torch 2.10 to 2.15).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Signals that torchrun passes on to its processes. Otherwise a SIGUSR would kill it and them.
export PET_SIGNALS_TO_HANDLE="${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2}"
if [[ -z "$processes" ]]; then
  processes="$("$python" -c 'import torch; print(torch.cuda.device_count() or 1)')"
fi

echo "machine $local: processes: $processes; machines: $machines, meeting at $first:$port" \
  "$([[ "$host" == yes ]] && echo "(this one)"); waiting up to $wait s for all of them" >&2
exec "$python" -m torch.distributed.run \
  --nnodes "$machines" --nproc-per-node "$processes" --max-restarts "$restarts" \
  --rdzv-backend c10d --rdzv-endpoint "$first:$port" --rdzv-id retinanet \
  --rdzv-conf "is_host=$([[ "$host" == yes ]] && echo 1 || echo 0),join_timeout=$wait,read_timeout=$wait" \
  --local-addr "$local" "$root/tools/train.py" "$@" --auto-resume
