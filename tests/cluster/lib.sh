# lib.sh - a federation of real daemons on 127.0.0.1 with the tiny model, for tests in bash.
# A test sources this file, is called with BUILD_DIR, and ends with `the_end`. Each check is a
# sentence; what fails is printed with the last lines of the logs. Daemons are ended by process id.
# shellcheck shell=bash
set -u

build=${1:?usage: $0 BUILD_DIR}
golden=$(cd "$(dirname "${BASH_SOURCE[0]}")/../golden" && pwd)
coordinator=$build/fedlora-coordinator
worker=$build/fedlora-worker
tiny=$golden/tiny-llama
work=$(mktemp -d "${TMPDIR:-/tmp}/fl-cluster.XXXXXX")
failures=0 checks=0
declare -A pids=() # name -> process id of what runs
declare -A with=() # name -> "KEY=VALUE ..." in the environment of its daemon
# The jobs of every test here, with or without secure aggregation: FL_SECURE=on switches all.
secure=${FL_SECURE:-off}
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
unset FEDLORA_LOG NO_COLOR FEDLORA_COREDUMP
# LeakSanitizer looks at its process as a debugger does
if grep -q '^FL_SANITIZE:BOOL=ON' "$build/CMakeCache.txt" 2>/dev/null; then export FEDLORA_COREDUMP=1; fi

clean_up() {
    local code=$? name
    trap - EXIT INT TERM
    for name in "${!pids[@]}"; do kill -KILL "${pids[$name]}" 2>/dev/null; done
    wait 2>/dev/null
    umount "$work/disk" 2>/dev/null
    if [ -n "${FL_KEEP-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- checks

fail() {
    local log
    failures=$((failures + 1))
    echo "FAILED: $*"
    [ "$failures" -le 2 ] || return 0
    for log in "$work"/*.log; do
        [ ! -s "$log" ] || { echo "  -- ${log##*/}"; tail -n 6 "$log" | cut -c 1-400 | sed 's/^/  /'; }
    done
}

# check SENTENCE COMMAND...: holds when the command succeeds
check() {
    local sentence=$1
    shift
    checks=$((checks + 1))
    if "$@"; then echo "ok: $sentence"; else fail "$sentence"; fi
}

# expect CODE SENTENCE COMMAND...: exit code CODE; $work/out and $work/err keep what it said
expect() {
    local code=$1 sentence=$2 got
    shift 2
    checks=$((checks + 1))
    timeout 120 "$@" >"$work/out" 2>"$work/err"
    got=$?
    if [ "$got" = "$code" ]; then
        echo "ok: $sentence (exit $code)"
    else
        fail "$sentence: exit $got, expected $code: $(head -n 2 "$work/err")"
    fi
    if grep -q 'ERROR: AddressSanitizer\|runtime error:' "$work/err"; then
        fail "$sentence: a sanitizer reports"
    fi
}

said() { grep -Eq -- "$1" "$work/out"; }
complained() { grep -Eq -- "$1" "$work/err"; }
same() { [ "$1" = "$2" ] || { echo "  '$1' is not '$2'"; return 1; }; }
differ() { [ "$1" != "$2" ] || { echo "  both are '$1'"; return 1; }; }
at_most() { [ "$1" -le "$2" ] || { echo "  $1 is more than $2"; return 1; }; }

the_end() {
    local name log
    for name in "${!pids[@]}"; do
        kill -TERM "${pids[$name]}" 2>/dev/null
        kill -CONT "${pids[$name]}" 2>/dev/null
    done
    for name in "${!pids[@]}"; do
        await_end "$name" 20 && continue
        grep -H . "/proc/${pids[$name]}/task"/*/{comm,wchan,stat} 2>/dev/null # what its threads wait for
        fail "$name does not end"
    done
    for log in "$work"/*.log; do
        if grep -q 'ERROR: AddressSanitizer\|ERROR: LeakSanitizer\|runtime error:' "$log" 2>/dev/null; then
            grep -A 12 'Sanitizer\|runtime error:' "$log" | head -n 40
            fail "a sanitizer reports in ${log##*/}"
        fi
    done
    echo "$checks checks, $failures failed"
    [ "$failures" = 0 ]
    exit
}

# --- waiting: never for a fixed time

# within SECONDS COMMAND...: tried until it succeeds
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

runs() { [ -n "${pids[$1]-}" ] && kill -0 "${pids[$1]}" 2>/dev/null; }
gone() { ! runs "$1"; }

# await_end NAME SECONDS: it ends by itself; its exit code is then in $code
code=''
await_end() {
    local pid=${pids[$1]-}
    [ -n "$pid" ] || return 0
    within "$2" gone "$1" || return 1
    wait "$pid" 2>/dev/null
    code=$?
    unset "pids[$1]"
}

# --- logs: how often an event stands there, or the value of its last one

events() { # NAME PATTERN
    local n
    n=$(grep -c -- "$2" "$work/$1.log" 2>/dev/null)
    echo "${n:-0}"
}
logged() { # NAME PATTERN [TIMES]
    [ "$(events "$1" "$2")" -ge "${3:-1}" ]
}
value() { # KEY: of the last JSON line on stdin that has it
    sed -n "s/.*\"$1\": *\(\"[^\"]*\"\|[-+.0-9a-z]*\).*/\1/p" | tail -n 1 | tr -d '"'
}

# --- the federation

port=0
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
choose_port() {
    local try
    for ((try = 0; try < 200; try++)); do
        port=$((20000 + RANDOM % 6000 * 2))
        taken $port || taken $((port + 1)) || return 0
    done
    echo 'no free port'
    exit 1
}

coordinator_init() {
    choose_port
    "$coordinator" init --dir "$work/coord" --listen "tcp://127.0.0.1:$port" 2>>"$work/init.err" ||
        { cat "$work/init.err"; echo 'init failed'; exit 1; }
}

healthy() { "$coordinator" health --dir "$work/coord" >/dev/null 2>&1; }

coordinator_start() { # [serve options]
    # shellcheck disable=SC2086
    env ${with[coord]-} "$coordinator" serve --dir "$work/coord" "$@" >>"$work/coord.log" 2>&1 &
    pids[coord]=$!
    within 60 healthy || fail 'the coordinator answers'
}

kill_now() { # NAME: kill -9
    local pid=${pids[$1]-}
    [ -n "$pid" ] || return 0
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    unset "pids[$1]"
}

suspend() { # NAME: SIGSTOP; it does nothing more once this returns
    kill -STOP "${pids[$1]}"
    within 20 eval "sed 's/.*) //' '/proc/${pids[$1]}/stat' | grep -q '^[Tt]'" || fail "$1 is suspended"
}
wake() { kill -CONT "${pids[$1]}"; }

stop() { # NAME: SIGTERM; its exit code in $code
    kill -TERM "${pids[$1]}" 2>/dev/null
    await_end "$1" 30
}

site_join() { # NAME [POLICY LINE]...
    local name=$1
    shift
    "$coordinator" invite --dir "$work/coord" "$name" 2>>"$work/init.err" |
        "$worker" join - --dir "$work/$name" 2>>"$work/init.err" ||
        { tail -n 3 "$work/init.err"; echo "$name could not join"; exit 1; }
    site_conf "$name" "$@"
}

site_conf() { # NAME [POLICY LINE]...: worker.conf anew, with the coordinator that join wrote
    local name=$1 head data=$tiny/clinic.jsonl
    shift
    [ ! -f "$tiny/$name.jsonl" ] || data=$tiny/$name.jsonl
    head=$(sed -n '/^\[coordinator\]/,/^key/p' "$work/$name/worker.conf")
    {
        printf '%s\n[models]\ntiny = %s\n' "$head" "$tiny"
        [ ! -f "$work/wide/config.json" ] || printf 'wide = %s\n' "$work/wide"
        printf '[data]\npath = %s\neval = %s\n' "$data" "$tiny/text.jsonl"
        printf '[policy]\nrequire_secure_aggregation = %s\nmax_steps = 1000000\n' "$secure"
        [ $# -eq 0 ] || printf '%s\n' "$@"
        printf '[train]\nthreads = 1\n'
    } >"$work/$name/worker.conf.next"
    mv "$work/$name/worker.conf.next" "$work/$name/worker.conf"
}

site_start() { # NAME...
    local name
    for name in "$@"; do
        # shellcheck disable=SC2086
        env ${with[$name]-} "$worker" run --dir "$work/$name" >>"$work/$name.log" 2>&1 &
        pids[$name]=$!
    done
}

online() { # NAME
    "$coordinator" status --dir "$work/coord" --json 2>/dev/null |
        grep -Eq "\"name\":\"$1\",\"state\":\"(online|training)\""
}
offline() { ! online "$1"; }

federation() { # NAME...: coordinator and sites, all online
    local name
    coordinator_init
    coordinator_start
    for name in "$@"; do site_join "$name"; done
    site_start "$@"
    for name in "$@"; do within 60 online "$name" || fail "$name comes online"; done
}

manifest() { "$worker" inspect --json "${1:-$tiny}" | value manifest; }

# job_file FILE [SECTION.KEY=VALUE]...: a small job; the words override or add keys
job_file() {
    local file=$1 word
    shift
    local -A keys=([job.name]=tiny [job.rounds]=2 [job.strategy]=fedit [job.seed]=7
        [model.name]=tiny [model.sha256]=$(manifest) [lora.targets]=q_proj,v_proj [lora.alpha]=16
        [ranks.default]=4 [train.steps]=3 [train.batch_size]=2 [train.seq_len]=64 [train.lr]=1e-2
        [cohort.min_workers]=3 [cohort.select_timeout]=2s [cohort.round_timeout]=5m
        [cohort.liveness_timeout]=10s [privacy.secure_aggregation]=$secure)
    for word in "$@"; do keys[${word%%=*}]=${word#*=}; done
    for word in "${!keys[@]}"; do
        printf '%s %s = %s\n' "${word%%.*}" "${word#*.}" "${keys[$word]}"
    done | sort | awk '$1 != last { print "[" $1 "]"; last = $1 } { sub(/^[^ ]* /, ""); print }' >"$file"
}

submit() { # [SECTION.KEY=VALUE]...: the job's number in $job
    job_file "$work/job.conf" "$@"
    job=$("$coordinator" job submit "$work/job.conf" --dir "$work/coord" 2>"$work/err") ||
        { fail "the job is taken: $(cat "$work/err")"; job=0; }
}

job_state() { "$coordinator" job show "$1" --dir "$work/coord" --json 2>/dev/null | value state; }
job_is() { [ "$(job_state "$1")" = "$2" ]; }
job_over() { case $(job_state "$1") in done | failed | cancelled | paused) ;; *) return 1 ;; esac; }
job_ends() { # JOB STATE [SECONDS]
    within "${3:-240}" job_over "$1" || { echo "  job $1 goes on"; return 1; }
    job_is "$1" "$2" || {
        "$coordinator" job show "$1" --dir "$work/coord" --json
        return 1
    }
}
version() { # JOB VERSION: its line of JSON
    "$coordinator" adapters list --dir "$work/coord" --job "$1" --json |
        grep "\"version\":$2,"
}
versions() { # JOB: the numbers of its versions, in order
    "$coordinator" adapters list --dir "$work/coord" --job "$1" --json |
        sed -n 's/.*"version":\([0-9]*\),.*/\1/p' | tr '\n' ' '
}
# how often NAME... trained a round of JOB: work that was kept from an earlier attempt is not counted
trainings() { # JOB NAME...
    local job=$1 name
    shift
    for name in "$@"; do
        grep "\"event\":\"trained\".*\"job\":$job,.*\"reused\":0" "$work/$name.log"
    done | grep -c .
}
trained_once() { # JOB NAME: no round twice
    [ -z "$(sed -n "s/.*\"event\":\"trained\".*\"job\":$1,\"round\":\([0-9]*\),.*\"reused\":0.*/\1/p" \
        "$work/$2.log" | sort | uniq -d)" ]
}
sha_of() { version "$1" "$2" | value sha256; }
