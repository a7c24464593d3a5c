#!/usr/bin/env bash
# Ray on one node of a cluster.
#
#   deploy/node.sh check              is the token here, are the packages those of the locks?
#   deploy/node.sh ray start OPTIONS  check, then `ray start` with these options, in the background
#   deploy/node.sh ray stop           end what `ray start` of this script has started here, and nothing else
#
# `ray stop` ends every Ray process of the host, also those of other clusters. Here Ray runs below one
# `ray start --block`, which is known by the path of this environment and the node's address.
#
# The node's address is the one at which ssh reached it, the same that ray_cluster.yaml names: on a host
# with several networks Ray would guess another one, and the autoscaler would not know the node again.
# At a console set NODE_IP. Exit codes: 0; 1 failed; 2 the node must be mended first.
set -euo pipefail
cd "$(dirname "$0")/.."

ray=$PWD/.venv/bin/ray
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
logs=${XDG_STATE_HOME:-$HOME/.local/state}/gemmcast
start_limit_s=${NODE_START_LIMIT_S:-120}
stop_limit_s=${NODE_STOP_LIMIT_S:-30}
export RAY_AUTH_MODE=token
# Ray would wait 30 s at its end for agents to leave. They have nothing to bring to an end: what they
# have measured is with the run already.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-0}

ssh_server() {
    local client client_port server rest
    read -r client client_port server rest <<<"${SSH_CONNECTION:-}"
    echo "${server:-}"
}

address=${NODE_IP:-$(ssh_server)}

refuse() {
    echo "error: $1" >&2
    exit 2
}

check() {
    [[ -x $ray ]] || refuse "$ray is missing: run \`make env\` on this node"
    if [[ -z ${RAY_AUTH_TOKEN:-} ]]; then
        [[ -s $token ]] || refuse "token file $token is missing or empty: copy it from the head"
        [[ $(stat -Lc %a "$token") == ?00 ]] || refuse "token file $token is open to others: chmod 600 it"
    fi
    local locks=(requirements.lock) ready
    for ready in .venv/.ready-requirements-*.lock; do
        [[ -e $ready ]] && locks+=("${ready#.venv/.ready-}")
    done
    .venv/bin/python -m agent.packages "${locks[@]}" || exit 2
}

# The processes of this script's `ray start` here; of all addresses where this one is not known.
started() {
    local wanted="$ray start --block --node-ip-address=$address${address:+ }" file words
    for file in /proc/[0-9]*/cmdline; do
        mapfile -d '' -t words 2>/dev/null <"$file" || continue
        [[ "${words[*]} " == *"$wanted"* ]] || continue
        file=${file#/proc/}
        echo "${file%/cmdline}"
    done
    return 0
}

# Whether a process runs. One that has ended stays without words where nobody waits for it, as in a
# container without an init.
runs() {
    grep -qa . "/proc/$1/cmdline" 2>/dev/null
}

start() {
    check
    [[ -n $address ]] || refuse "the node's address is not known: set NODE_IP, such as NODE_IP=10.0.0.5"
    install -d -m 700 "$logs"
    # Two nodes that start at once on one host, as in a trial, would take the same socket of Ray.
    exec 9>"$logs/lock"
    flock 9
    local running
    running=$(started)
    [[ -z $running ]] || refuse "Ray runs here already (process $running): deploy/node.sh ray stop"
    local log=$logs/ray-$address.log
    # Emptied before it is read: the last start wrote "started" into it too.
    : >"$log"
    setsid "$ray" start --block --node-ip-address="$address" "$@" </dev/null >"$log" 2>&1 9>&- &
    local process=$!
    for ((i = 0; i < start_limit_s * 5; i++)); do
        if grep -q "Ray runtime started" "$log"; then
            echo "Ray runs at $address (process $process, log $log)"
            return
        fi
        runs "$process" || break
        sleep 0.2
    done
    pkill -KILL -s "$process" || true
    echo "error: Ray did not start at $address: $(reason "$log"); its log is $log" >&2
    exit 1
}

# Why Ray did not start, by what it has written; the whole of it is a stack trace of Python.
reason() {
    if grep -q "Authentication token is missing or incorrect" "$1"; then
        echo "the head has another token: copy the head's to $token"
    elif grep -q "Failed to connect to GCS\|waiting for GCS to become available" "$1"; then
        echo "no head answers there: start the head first, and look at the address and the firewall"
    else
        grep -v "^[[:space:]]*$" "$1" | tail -n 1
    fi
}

stop() {
    local process
    for process in $(started); do
        kill -TERM "$process" 2>/dev/null || continue
        for ((i = 0; i < stop_limit_s * 5; i++)); do
            runs "$process" || break
            sleep 0.2
        done
        # What is left of the session that `setsid` made: a raylet that hangs, say.
        pkill -KILL -s "$process" || true
        echo "Ray has ended (process $process)"
    done
}

case "$*" in
check) check ;;
"ray start "*) start "${@:3}" ;;
"ray stop") stop ;;
*) refuse "'$*' is no command: say check, ray start OPTIONS or ray stop" ;;
esac
