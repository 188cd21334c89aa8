#!/bin/bash
# A site is suspended in the middle of a round and wakes three rounds later: it catches up by itself,
# and nothing of it is counted in a round that went on without it.
. "$(dirname "$0")/lib.sh"

sites=(bank clinic library ward)
coordinator_init
coordinator_start
# rounds without end: however long it sleeps, there are some left when it wakes
for name in "${sites[@]}"; do site_join "$name" 'max_rounds = 1000000'; done
site_start "${sites[@]}"
for name in "${sites[@]}"; do within 60 online "$name" || fail "$name comes online"; done
submit job.rounds=10000 job.strategy=fedit train.steps=40 cohort.min_workers=3 cohort.liveness_timeout=2s \
    cohort.select_timeout=5s

without() { # how many rounds were committed without one of the four
    events coord "\"event\":\"round_committed\".*\"job\":$job,.*\"workers\":3"
}
accepted() { # ROUND: does ward know that its update is counted?
    logged ward "\"event\":\"update_accepted\".*\"job\":$job,\"round\":$1}"
}
sent() { logged ward "\"event\":\"update_sent\".*\"job\":$job,\"round\":$1,"; }
rounds() { events coord "\"event\":\"round_committed\".*\"job\":$job,"; }

within 120 logged ward "\"event\":\"offer\".*\"job\":$job,.*\"round\":2," || fail 'round 2 is offered to ward'
suspend ward
offered=0 # the last round for which it offered an update before it slept
while sent $((offered + 1)); do offered=$((offered + 1)); done
check 'three rounds go on without it' within 120 eval '[ "$(without)" -ge 3 ]'
check 'its session is over' offline ward
slept=$(rounds)
wake ward
check 'it comes online by itself' within 60 online ward

# it is in a round again: one that was committed after it woke
back=''
caught_up() {
    local round
    for ((round = slept + 1; round <= $(rounds); round++)); do
        accepted $round && back=$round && return
    done
    return 1
}
check 'it takes part in a later round' within 120 caught_up
within 60 eval "[ \$(rounds) -ge ${back:-0} ]"
expect 0 'that is enough of rounds' "$coordinator" job cancel "$job" --dir "$work/coord"
check 'the job is cancelled' job_ends "$job" cancelled 30

"$coordinator" adapters list --dir "$work/coord" --job "$job" --json >"$work/versions"
number=0 wrong=0 three=0
while read -r workers; do
    number=$((number + 1))
    if [ "$workers" = 3 ]; then
        three=$((three + 1))
        accepted $number || continue
    elif [ "$workers" = 4 ] && sent $number && { [ $number -le $offered ] || [ $number -gt "$slept" ]; }; then
        continue
    fi
    wrong=$((wrong + 1))
    echo "  round $number has $workers; ward offered up to round $offered, slept through $slept"
done < <(sed -n 's/.*"version":[1-9].*"workers":\([0-9]*\),.*/\1/p' "$work/versions")
check "each of $number rounds counts ward only if it was there" same "$wrong" 0
check 'three or more went on without it' at_most 3 "$three"
check 'its versions are all there, once' same "$(versions "$job")" "$(seq -s ' ' 1 $number) "
for name in "${sites[@]}"; do
    check "$name trained no round twice" trained_once "$job" $name
done
check 'a version that came without it is here' test -s "$work/ward/adapters/$job/adapter_model.safetensors"

submit cohort.min_workers=4 job.rounds=1
check 'a later job with all four is done' job_ends "$job" done
expect 0 'the audit log holds' "$coordinator" audit verify --dir "$work/coord"
the_end
