#!/bin/bash
# Wall clocks jump by hours, forwards and back, at the coordinator and at the sites, while a job runs:
# its rounds go on as if nothing were (no site is lost, no attempt is made twice, the adapter is that
# of an undisturbed run). Only invitations feel it.
. "$(dirname "$0")/lib.sh"

sites=(bank clinic library)
for name in coord "${sites[@]}"; do
    with[$name]="LD_PRELOAD=$build/tests/walltime.so FL_WALLTIME=$work/$name.walltime"
done
ASAN_OPTIONS+=:verify_asan_link_order=0

# jump HOURS NAME...: their wall clocks are off by so much from now on
jump() {
    local name seconds=$(($1 * 3600))
    shift
    for name in "$@"; do
        echo $seconds >"$work/$name.walltime.next"
        mv "$work/$name.walltime.next" "$work/$name.walltime"
    done
}
# the hours by which the last line of a log is ahead of now, rounded
ahead() {
    local stamp
    stamp=$(sed -n 's/.*"ts":"\([^"]*\)".*/\1/p' "$work/$1.log" | tail -n 1)
    echo $((($(date -d "$stamp" +%s) - $(date +%s) + 36000000 + 1800) / 3600 - 10000))
}

federation "${sites[@]}"
small=(job.rounds=8 job.strategy=alternating train.steps=60 cohort.liveness_timeout=3s)
submit "${small[@]}"
check 'the undisturbed job is done' job_ends "$job" done
expected=$(sha_of "$job" 8)

submit "${small[@]}"
# round_is ROUND PHASE: a round is there, or behind already
round_is() { logged coord "\"event\":\"round_state\",\"msg\":\"$2\",\"job\":$job,\"round\":$1,"; }
moment() { # ROUND PHASE HOURS NAME...
    within 120 round_is "$1" "$2" || fail "round $1 comes to $2"
    shift 2
    jump "$@"
}
moment 1 train 5 coord
moment 2 train -7 coord
check 'a jump is seen in the log, at least' within 60 eval '[ "$(ahead coord)" = -7 ]'
moment 3 train 30 bank clinic
moment 3 collect 9 coord library
moment 4 train -30 bank library
moment 5 select 0 coord
moment 5 train 9000 coord "${sites[@]}"
moment 6 train -9000 coord "${sites[@]}"
moment 7 collect 0 coord bank
check 'the job is done' job_ends "$job" done
check 'with the bytes of the undisturbed one' same "$(sha_of "$job" 8)" "$expected"
check 'each site trained each round once' same "$(trainings "$job" "${sites[@]}")" 24
check 'no attempt was made anew' same "$(events coord "\"job\":$job,.*\"attempt\":[2-9]")" 0
check 'no site was taken for silent' same "$(events coord '"event":"site_silent"')" 0
for name in "${sites[@]}"; do
    check "$name kept its connection" same "$(events $name '"event":"connected"')" 1
done
jump 0 coord "${sites[@]}"

# --- invitations

invite() { token=$("$coordinator" invite --dir "$work/coord" "$@"); }
invite ward --ttl 1h
jump 2 coord
expect 4 'two hours later an invitation for one hour has expired' "$worker" join "$token" --dir "$work/ward"
check 'and it is said' complained 'expired'
jump 0 coord
expect 0 'once the clock is right again it holds' "$worker" join "$token" --dir "$work/ward"
invite late --ttl 1h
jump -5 coord
expect 0 'on a clock that went back an invitation is good for longer' "$worker" join "$token" --dir "$work/late"
expect 4 'but once' "$worker" join "$token" --dir "$work/again"
"$coordinator" status --dir "$work/coord" --json >"$work/out"
check 'no site was seen in the future' eval '! said "\"last_seen_seconds\":-"'
expect 0 'the audit log holds, whatever its stamps' "$coordinator" audit verify --dir "$work/coord"
the_end
