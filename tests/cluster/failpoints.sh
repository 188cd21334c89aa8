#!/bin/bash
# Real daemons die at their nth durable step, before it, after it or in the middle of a write, and are
# started again: each job is done with every version once. Where the coordinator dies, all sites are
# in every round, no site trains a round twice, and the adapter is that of an undisturbed run. Where a
# site dies, nothing that it finished is trained again. What is walked are fsync, rename, unlink,
# mkdir, ftruncate and write on files, SQLite's included (failpoint.c).
# usage: failpoints.sh BUILD_DIR [all]     without `all` some sixty of the steps, spread evenly
. "$(dirname "$0")/lib.sh"

sites=(bank clinic library ward)
never=1000000000
seed=7

for program in "$coordinator" "$worker"; do
    check "${program##*/} itself has no failpoint" eval "! grep -qaE 'FL_FAILPOINT|failpoint' '$program'"
done
check 'what is preloaded has' grep -qa FL_FAILPOINT "$build/tests/failpoint.so"

# --- a point: $work/NAME.point says when the daemon NAME dies, $work/NAME.point.met where it died

for name in coord "${sites[@]}"; do
    with[$name]="LD_PRELOAD=$build/tests/failpoint.so FL_FAILPOINT=$work/$name.point"
    with[$name]+=" FL_FAILPOINT_ROOT=$(cd "$work" && pwd -P)/$name/"
done
ASAN_OPTIONS+=:verify_asan_link_order=0

met() { [ -e "$work/$1.point.met" ]; }
arm() { # NAME NUMBER WHEN
    rm -f "$work/$1.point.met"
    revived=''
    echo "$2 $3" >"$work/$1.point.next"
    mv "$work/$1.point.next" "$work/$1.point"
}

# revive NAME: if it has met its point; the process that follows lives on
revive() {
    local died
    [ -z "$revived" ] && met "$1" || return 0
    wait "${pids[$1]}" 2>/dev/null
    died=$?
    unset "pids[$1]"
    revived=yes
    [ "$died" = 137 ] || fail "$1 ended with $died at its point: $(cat "$work/$1.point.met")"
    if [ "$1" = coord ]; then coordinator_start; else site_start "$1"; fi
}

newest_job() {
    "$coordinator" job list --dir "$work/coord" --json | sed -n 's/.*"job":\([0-9]*\),.*/\1/p' |
        sort -n | tail -n 1
}

# give_job NAME: NAME may die of it; what was not acknowledged is lost, or not
give_job() {
    local before=$job
    # the same deltas may be summed masked over one set of sites only: other rounds need another seed
    [ "$1" = coord ] || seed=$((seed + 1))
    job_file "$work/job.conf" cohort.select_timeout=60s "cohort.min_workers=$least" job.seed=$seed
    job=$("$coordinator" job submit "$work/job.conf" --dir "$work/coord" 2>"$work/err") && return
    met "$1" || fail "the job is refused: $(cat "$work/err")"
    revive "$1"
    job=$(newest_job)
    [ "$job" != "$before" ] || submit cohort.select_timeout=60s "cohort.min_workers=$least" job.seed=$seed
}

over_or_met() { job_over "$job" || { [ -z "$revived" ] && met "$1"; }; }

# one_job NAME: done, whatever becomes of NAME
one_job() {
    give_job "$1"
    within 120 over_or_met "$1"
    revive "$1"
    within 120 job_over "$job"
    check_job "$1" "$(job_state "$job")"
}

check_job() { # NAME STATE
    local what number name once
    what="job $job, $1 killed $(cat "$work/$1.point.met" 2>/dev/null || echo at no step)"
    [ "$2" = done ] || fail "$what: it is $2: $("$coordinator" job show "$job" --dir "$work/coord" --json)"
    [ "$(versions "$job")" = '1 2 ' ] || fail "$what: its versions are $(versions "$job")"
    for number in 1 2; do
        [ "$(version "$job" $number | value workers)" -ge "$least" ] || fail "$what: too few in version $number"
    done
    for name in "${sites[@]}"; do
        once=$(trainings "$job" "$name")
        if [ "$1" = coord ]; then
            [ "$once" = 2 ] || fail "$what: $name trained $once times"
        else # one that was killed may have missed a round
            trained_once "$job" "$name" || fail "$what: $name trained a round twice"
        fi
    done
    [ "$1" != coord ] || [ "$(sha_of "$job" 2)" = "$expected" ] ||
        fail "$what: the adapter is $(sha_of "$job" 2), undisturbed $expected"
    [ -z "$(find "$work/coord/spool" -type f 2>/dev/null)" ] || fail "$what: it left something in the spool"
}

# steps NAME WHEN: how many of them an undisturbed job takes, in $steps
steps=0
count_steps() {
    arm "$1" $never "$2"
    one_job "$1"
    steps=$((never - 10#$(sed 's/ .*//' "$work/$1.point")))
    rm "$work/$1.point"
}

# walk NAME WHEN EVERY: dies at every EVERYth step of a job
walk() {
    local n first jobs kills=0 before=$failures
    count_steps "$1" "$2"
    for ((n = 1 + $3 / 2; n <= steps; n += $3)); do
        arm "$1" $n "$2"
        for ((jobs = 0; jobs < 3; jobs++)); do # the last steps may fall behind the job's end
            met "$1" || one_job "$1"
        done
        met "$1" && kills=$((kills + 1)) || fail "$1 does not come to step $n"
        revive "$1"
        [ "$failures" -lt $((before + 3)) ] || break
    done
    check "$1 killed $2 each of $kills steps of $steps" same "$before" "$failures"
}

if [ "${2-}" = all ]; then every=(1 1 1 1 1); else every=(12 12 9 8 8); fi
federation "${sites[@]}"

# A round that went on with three after a restart would be another sum than that of all four.
least=4
submit cohort.min_workers=4 cohort.select_timeout=60s
check 'the undisturbed job is done' job_ends "$job" done
expected=$(sha_of "$job" 2)
# the shell tells of each process that died of a signal
exec 2>"$work/shell.err"
walk coord before "${every[0]}"
walk coord after "${every[1]}"
walk coord torn "${every[2]}"

least=3
walk ward after "${every[3]}"
walk ward torn "${every[4]}"
expect 0 'the audit log holds after all this' "$coordinator" audit verify --dir "$work/coord"
the_end
