#!/usr/bin/env bash
# Train on several machines: the same command on each of them. See docs/distributed.md.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/launch_multi_node.sh --address A --machines N [option ...] CONFIG [section.key=value ...]

Run the same command on every machine, in any order; training starts when all of them are there.
What follows the options goes to `retinanet train`, with --auto-resume: a run that is in the folder
already goes on from its last checkpoint. The run's folder (output.dir) must be one that all machines
see; the data may lie elsewhere on each (data.root=...).

  --address A       of the first machine, as the others reach it: IPv4 or a name that resolves
                    (one machine alone needs none)
  --machines N      how many take part; also those that are restarted wait for all of them
  --port P          on the first machine, free and open to the others (default 29400). The machines
                    also connect to each other on ports that the system picks
  --processes P     on this machine (default: its GPUs, or 1)
  --max-restarts R  times that the processes are started again after one failed (default 3)
  --wait S          seconds that a machine waits for the others, at the start and after a restart
                    (default 600)
  --interface I     network interface for gloo and NCCL, such as eth0 (default: gloo takes the one
                    that leads to the first machine, NCCL chooses itself)
  --host yes|no     whether the first machine is this one (default: whether A is one of its
                    addresses, which it is not behind a port mapping)
  --help            show this

example, on both of two machines:
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
    fail "$1 $2: not a whole number from $3 to $4"
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
[[ -n "$address" ]] || fail "--address is missing: that of the first machine (see --help)"
[[ "$address" =~ ^[A-Za-z0-9._-]+$ ]] ||
  fail "--address $address: neither an IPv4 address nor a host name; the port goes into --port"
[[ -n "$machines" ]] || fail "--machines is missing: how many take part (see --help)"
whole --machines "$machines" 1 100000
whole --port "$port" 1 65535
whole --max-restarts "$restarts" 0 100000
whole --wait "$wait" 1 1000000
[[ -z "$processes" ]] || whole --processes "$processes" 1 1024
[[ "$host" =~ ^(yes|no)?$ ]] || fail "--host $host: yes or no"
(($#)) || fail "name a config file, or options of \`retinanet train\`, after the options (see --help)"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
if [[ -z "${PYTHON:-}" && -z "${VIRTUAL_ENV:-}" && -x "$root/.venv/bin/python" ]]; then
  python="$root/.venv/bin/python"
fi
command -v "$python" >/dev/null || fail "$python: there is no such program; name one in PYTHON"

# Asked of the kernel, because a host name need not resolve, or resolves to 127.0.1.1: from which of
# its addresses this machine reaches the first one (from the same address, where it is the first),
# and which interface has that address.
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
        except OSError:  # it has no IPv4 address, or is no name that Linux knows
            return ""
    return socket.inet_ntoa(answer[20:24])


if interface and interface not in names:
    sys.exit(f"error: --interface {interface}: this machine has {', '.join(names)}")
try:
    first = socket.gethostbyname(address)
except OSError as error:
    sys.exit(f"error: --address {address}: does not resolve here ({error}); give the IPv4 address")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
        probe.connect((first, port))  # sends nothing
    except OSError as error:
        sys.exit(f"error: --address {address}: there is no way to {first} from here ({error})")
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
  fail "--address $address: is $first here (see /etc/hosts), which other machines do not reach;" \
    "give the IPv4 address"
fi
if [[ -n "$interface" ]]; then
  export GLOO_SOCKET_IFNAME="$interface" NCCL_SOCKET_IFNAME="$interface"
elif [[ -n "$nearest" ]]; then
  export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-$nearest}"
fi
# Without this, a machine that comes back waits in vain for the address at which the processes meet:
# the first one tells it in the first round only (torch 2.10 to 2.15).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# What torchrun passes on to its processes; it would die of a SIGUSR otherwise, and they with it.
export PET_SIGNALS_TO_HANDLE="${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2}"
if [[ -z "$processes" ]]; then
  processes="$("$python" -c 'import torch; print(torch.cuda.device_count() or 1)')"
fi

echo "machine $local: $processes process(es); $machines machine(s) meet at $first:$port" \
  "$([[ "$host" == yes ]] && echo "(this one)"); waits $wait s for them" >&2
exec "$python" -m torch.distributed.run \
  --nnodes "$machines" --nproc-per-node "$processes" --max-restarts "$restarts" \
  --rdzv-backend c10d --rdzv-endpoint "$first:$port" --rdzv-id retinanet \
  --rdzv-conf "is_host=$([[ "$host" == yes ]] && echo 1 || echo 0),join_timeout=$wait,read_timeout=$wait" \
  --local-addr "$local" "$root/tools/train.py" "$@" --auto-resume
