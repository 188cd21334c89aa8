#!/bin/bash
# sites.sh BUILD [MODE...]: three honest sites run a short job while a fourth, enrolled like them,
# misbehaves in one named way after the other. Each time the coordinator must live and stay small,
# the job must end well (or end by itself with its reason), and the log must name the offence.
BUILD=${1:?build folder}
shift
. "$(dirname "$0")/lib.sh"
ATTACK=$BUILD/tests/attack_site
ROOM=$(mktemp -d)
LIMIT_KIB=${LIMIT_KIB:-$((64 * 1024))}
nm -C "$COORDINATOR" 2>/dev/null | grep -q __asan && LIMIT_KIB=$((600 * 1024))

# mode : what the job may come to : what the log must tell (- nothing)
CASES='
honest:done:round_committed
noise-frames:done:peer_dropped
mutations:done:peer_dropped
stale-nonce:done:-
hello-flood:done:peer_dropped
heartbeat-flood:done:peer_dropped
need-flood:done:peer_dropped
unasked-chunks:done:-
plays-coordinator:done:peer_dropped
join-on-session:done:peer_dropped
future:done:-
silent:done:-
flapping:done:-
crowd:done:peer_dropped
join-crowd:done:join_refused
join-noise:done:peer_dropped
join-hello:done:peer_dropped
join-brute:done:join_refused
join-foreign-key:done:join_refused
join-unsigned:done:join_refused
never-fits:done:-
fit-flood:done:peer_dropped
refuses:done:site_refused
other-manifest:done:site_refused
inventory-cut:done:site_refused
inventory-flipped:done|failed:site_refused
inventory-other:done|failed:site_refused
inventory-noise:done:-
inventory-huge:done:-
lying-pages:done:fetch_failed
lying-sizes:done:-
lying-chunks:done:fetch_failed
never-serves:done:-
never-trains:done:-
nan-seconds:done:peer_dropped
fails:done:site_failed
trained-flood:done:peer_dropped
never-uploads:done:-
too-big:done:update_rejected
too-short:done:update_rejected
vast:done:update_rejected
noise:done:update_rejected
flipped:done:update_rejected
other-attempt:done:update_rejected
other-name:done:update_rejected
other-key:done:update_rejected
noise-inside:done:update_rejected
wrong-counts:done:update_rejected
beyond-grid:done:update_rejected
beyond-weight:done:update_rejected
heavy:done:update_rejected
weightless:done:update_rejected
vast-scalars:done:update_rejected
all-cut:done|paused:-
swaps:done:-
upload-flood:done:-
'
SITES=(bank clinic library)
setup "$ROOM"
for name in "${SITES[@]}"; do
    join "$name" "$name"
    start_site "$name"
done
KEY=$(sed -n 's/^key = //p' "$ROOM/bank/worker.conf")
spare=0

# begin_attack MODE: the hostile process, under a name of its own, so that no case sees another's
begin_attack() {
    local token='' name=mallory$((++spare))
    case $1 in
    join-on-session) ;;
    join-*) token=$(invite "$name") ;;
    esac
    mkdir -p "$ROOM/$name"
    if [ -z "$token" ]; then
        control roster add "$name" "$("$WORKER" keys --dir "$ROOM/$name")" >/dev/null || fail "roster add"
    fi
    "$ATTACK" "$1" "tcp://127.0.0.1:$PORT" "$KEY" "$ROOM/$name/site.keys" "$MODEL" 40 $token \
        >"$ROOM/attack.out" 2>"$ROOM/attack.err" &
    PID[attack]=$!
    OFFENDER=$name
}

# told EVENT MARK: the log behind line MARK tells it, or the offender knows of it
told() {
    tail -n "+$(($2 + 1))" "$ROOM/serve.log" | grep -q "\"event\":\"$1\"" ||
        { [ "$1" = peer_dropped ] && grep -q "goodbye\|down" "$ROOM/attack.out"; } ||
        { [ "$1" = update_rejected ] && grep -q rejected "$ROOM/attack.out"; } ||
        { [ "$1" = join_refused ] && grep -q join-refused "$ROOM/attack.out"; }
}

# try MODE OUTCOMES EVENT
try() {
    local job state before after mark rss
    mark=$(wc -l <"$ROOM/serve.log")
    begin_attack "$1"
    # most say when they have a session; some never have one
    if [ "$1" = honest ]; then wait_online "$OFFENDER"; else until_true 2 test -s "$ROOM/attack.out"; fi
    SELECT_TIMEOUT=3s STEPS=2 LIVENESS=3s job_file "$STRATEGY" 2 3 5s
    job=$(submit)
    wait_job "$job" 60 || fail "$1: the job does not end: $(control status --json)"
    state=$(job_state "$job")
    if [ "$1" = honest ]; then # the tool itself must be able to do it right
        [ "$(versions "$job" | cut -d' ' -f2 | tr -d '\n')" = 44 ] || fail "an honest fourth site is not counted: $(versions "$job"; cat "$ROOM/attack.err" "$ROOM/attack.out")"
    fi
    case "|$2|" in *"|$state|"*) ;; *) fail "$1: the job is $state: $(control job show "$job" --json)" ;; esac
    alive coord || fail "$1: the coordinator died: $(tail -n 3 "$ROOM/serve.log")"
    [ "$state" = done ] || control job show "$job" --json | grep -q '"reason":"[^"]' || fail "$1: no reason"
    [ "$state" = paused ] && control job cancel "$job" >/dev/null
    # an event that is told too often is left out of the log for a while: the offender knows it too
    [ "$3" = - ] || until_true 20 told "$3" "$mark" ||
        fail "$1: the log does not tell $3: $(tail -n "+$((mark + 1))" "$ROOM/serve.log" | tail -n 12)"
    if [ "$1" != honest ] && [ "$1" != all-cut ] && [ "$3" = update_rejected ]; then
        versions "$job" | grep -q '^[12] 4' && fail "$1: its update was counted"
    fi
    stop attack TERM
    ! grep -E "Sanitizer|runtime error" "$ROOM/attack.err" >&2 || fail "$1: the attacking program itself broke"
    control roster revoke "$OFFENDER" >/dev/null 2>&1
    rss=$(rss_kib)
    [ "$rss" -lt "$LIMIT_KIB" ] || fail "$1: the coordinator has grown to $rss KiB"
    printf 'ok %-18s job %s %s, peak %s KiB; %s; it saw %s\n' "$1" "$job" "$state" "$rss" \
        "$(cat "$ROOM/attack.err")" "$(sort "$ROOM/attack.out" | uniq -c | tr -s ' \n' ' ')"
}

chosen=" $* "
n=0
while IFS=: read -r mode outcomes event; do
    [ -n "$mode" ] || continue
    [ "$chosen" = "  " ] || case $chosen in *" $mode "*) ;; *) continue ;; esac
    n=$((n + 1))
    STRATEGY=alternating
    [ $((n % 2)) = 0 ] && STRATEGY=fedit
    try "$mode" "$outcomes" "$event"
done <<<"$CASES"
for name in "${SITES[@]}"; do alive "$name" || fail "$name died: $(tail -n 3 "$ROOM/$name.log")"; done
no_crash
control audit verify >/dev/null || fail "the audit log is broken"
stop_all
rm -rf "$ROOM"
echo "$n attacks withstood"
