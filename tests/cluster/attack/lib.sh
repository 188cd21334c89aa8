# lib.sh - sourced by the scripts here and by ../torture: a federation of the tiny model whose processes
# may be killed, stopped and started again one by one. Needs BUILD (the build folder).
: "${BUILD:?the build folder}"
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
MODEL=$SOURCE/tests/golden/tiny-llama
COORDINATOR=$BUILD/fedlora-coordinator
WORKER=$BUILD/fedlora-worker
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive FEDLORA_LOG=json NO_COLOR=1
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=16}
# LeakSanitizer looks at its process as a debugger does
if grep -q '^FL_SANITIZE:BOOL=ON' "$BUILD/CMakeCache.txt" 2>/dev/null; then export FEDLORA_COREDUMP=1; fi
declare -A PID=()
SECURE=${FL_SECURE:-off} # the jobs of every test here, with or without secure aggregation

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "FAILED: $*"
    exit 1
}

# A port and the next one, free a moment ago.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null &&
            ! (exec 3<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    fail "no free port"
}

start_coordinator() {
    "$COORDINATOR" serve --dir "$ROOM/coord" >>"$ROOM/serve.out" 2>>"$ROOM/serve.log" &
    PID[coord]=$!
}

start_site() {
    "$WORKER" run --dir "$ROOM/$1" >>"$ROOM/$1.out" 2>>"$ROOM/$1.log" &
    PID[$1]=$!
}

# stop NAME SIGNAL: only what we started, by its id
stop() {
    local pid=${PID[$1]:-}
    [ -n "$pid" ] || return 0
    kill "-$2" "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    unset "PID[$1]"
}

alive() { [ -n "${PID[$1]:-}" ] && kill -0 "${PID[$1]}" 2>/dev/null; }

stop_all() {
    local name
    for name in "${!PID[@]}"; do kill -CONT "${PID[$name]}" 2>/dev/null; done
    for name in "${!PID[@]}"; do stop "$name" KILL; done
}

control() { "$COORDINATOR" "$@" --dir "$ROOM/coord"; }

# until_true SECONDS COMMAND...: tried until it succeeds
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

# online NAME: the coordinator has a session with it
online() { control status --json 2>/dev/null | grep -Eq "\"name\":\"$1\",\"state\":\"(online|training)\""; }

wait_online() {
    local name
    for name in "$@"; do until_true 60 online "$name" || fail "$name does not come online"; done
}

wait_control() {
    for _ in $(seq 200); do
        "$COORDINATOR" health --dir "$ROOM/coord" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    fail "the coordinator does not answer: $(tail -n 3 "$ROOM/serve.log")"
}

invite() { control invite "$1"; }

# join NAME DATA: enrol a site whose worker.conf knows the tiny model
join() {
    invite "$1" | "$WORKER" join - --dir "$ROOM/$1" >/dev/null 2>"$ROOM/$1.join" ||
        fail "join of $1: $(cat "$ROOM/$1.join")"
    configure "$1" "$2"
}

configure() {
    sed -i -e "s|^\[models\]|[models]\ntiny = $MODEL|" \
        -e "s|^\[data\]|[data]\npath = $MODEL/$2.jsonl\neval = $MODEL/text.jsonl|" \
        -e "s|^\[policy\]|[policy]\nrequire_secure_aggregation = $SECURE|" "$ROOM/$1/worker.conf"
}

# setup DIR: a coordinator that serves
setup() {
    ROOM=$1
    PORT=${PORT:-$(free_port)}
    mkdir -p "$ROOM"
    trap stop_all EXIT
    [ -d "$ROOM/coord" ] ||
        "$COORDINATOR" init --dir "$ROOM/coord" --listen "tcp://127.0.0.1:$PORT" 2>/dev/null ||
        fail "init"
    MANIFEST=$("$WORKER" inspect --json "$MODEL" | sed -n 's/.*"manifest":"\([0-9a-f]*\)".*/\1/p')
    start_coordinator
    wait_control
}

# job_file STRATEGY ROUNDS MIN_WORKERS [round_timeout]
job_file() {
    cat >"$ROOM/job.conf" <<X
[job]
name = tiny
rounds = $2
strategy = $1
seed = ${JOB_SEED:-7}
[model]
name = tiny
sha256 = $MANIFEST
[lora]
targets = q_proj,v_proj
alpha = 16
[ranks]
default = 4
[train]
steps = ${STEPS:-4}
batch_size = 2
seq_len = 64
lr = 1e-2
[cohort]
min_workers = $3
select_timeout = ${SELECT_TIMEOUT:-20s}
round_timeout = ${4:-60s}
liveness_timeout = ${LIVENESS:-6s}
[privacy]
secure_aggregation = $SECURE
X
}

submit() { control job submit "$ROOM/job.conf" || fail "submit"; }

# field NAME: of one JSON object a line on stdin
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" | head -n 1; }

job_state() { control job list --json 2>/dev/null | grep "^{\"job\":$1," | field state; }

# versions JOB: "version workers sha256" a line
versions() {
    control adapters list --json |
        sed -n "s/.*\"version\":\([0-9]*\),\"job\":$1,.*\"sha256\":\"\([0-9a-f]*\)\".*\"workers\":\([0-9]*\),.*/\1 \3 \2/p"
}

# wait_job JOB SECONDS: until it is done, failed or paused
wait_job() {
    local end=$((SECONDS + $2)) state
    while [ $SECONDS -lt $end ]; do
        state=$(job_state "$1")
        case $state in done | failed | paused | cancelled) return 0 ;; esac
        sleep 0.2
    done
    return 1
}

rss_kib() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/${PID[coord]}/status" 2>/dev/null; }

# no process of ours may have died of a signal or of a sanitizer
no_crash() {
    ! grep -hE "AddressSanitizer|runtime error|Sanitizer:|assertion|Assertion" "$ROOM"/*.log "$ROOM"/*.out >&2 ||
        fail "a sanitizer or an assertion spoke"
}
