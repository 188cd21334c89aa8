#!/bin/bash
# Secure aggregation with real daemons: the same bytes as without masks, whoever is asked; a site
# that is lost in any stage; a coordinator that is killed in any stage; ranks that differ.
. "$(dirname "$0")/lib.sh"

federation bank clinic library archive
# all four in each round, or on a busy machine the two runs would be over different sites
small=(job.strategy=alternating job.rounds=3 cohort.min_workers=4)

sums() { # JOB: the hash of each version's sum and file
    "$coordinator" adapters list --dir "$work/coord" --job "$1" --json |
        sed 's/.*"sha256":"\([0-9a-f]*\)".*"sum_sha256":"\([0-9a-f]*\)".*/\1 \2/'
}

# --- the same sums, masked or not
for strategy in alternating fedit ffa rolora; do
    submit "${small[@]}" job.strategy=$strategy
    check "$strategy without masks is done" job_ends "$job" done
    plain=$job
    submit "${small[@]}" job.strategy=$strategy privacy.secure_aggregation=on
    check "$strategy with masks is done" job_ends "$job" done
    check "$strategy: three versions" same "$(sums "$job" | grep -c .)" 3
    check "$strategy: the sums and versions are those without masks" same "$(sums "$job")" \
        "$(sums "$plain")"
done
for phase in keys shares collect unmask; do
    check "the round passed $phase" logged coord "\"msg\":\"$phase\",\"job\":$job,\"round\":1"
done
check 'each site gave one answer a round' same "$(events bank "\"event\":\"unmask_answered\".*\"job\":$job,")" 4
check 'an answer is in the audit log of the site' grep -q unmask_answered "$work/bank/audit.log"
check 'the ledger of the site has it' test "$(grep -c . "$work/bank/state/ledger")" -ge 12
check 'nothing of the masks stays in the database' same \
    "$(strings -n 8 "$work/coord/state.db" | grep -c 'clinic.*clinic.*clinic')" 0

# --- the same work a second time, with one site less: the two sums would show that site
stop archive
submit "${small[@]}" job.strategy=rolora privacy.secure_aggregation=on cohort.min_workers=3
check 'the same job with one site less is not opened' job_ends "$job" paused 120
check 'the reason is told' grep -q 'differencing' <("$coordinator" job show "$job" --dir "$work/coord" --json)
check 'at the site too' grep -q 'differencing' <("$worker" status --dir "$work/bank")
"$coordinator" job cancel "$job" --dir "$work/coord" >/dev/null
site_start archive
within 60 online archive || fail 'archive is back'

# --- ranks that differ: three of four train rank 8, all train rank 4
ranked=(ranks.default=8 ranks.worker.archive=4 cohort.min_workers=4)
submit "${small[@]}" "${ranked[@]}"
check 'unequal ranks without masks' job_ends "$job" done
plain=$job
submit "${small[@]}" "${ranked[@]}" privacy.secure_aggregation=on
check 'unequal ranks with masks' job_ends "$job" done
check 'the same sums again' same "$(sums "$job")" "$(sums "$plain")"
job_file "$work/thin.conf" "${small[@]}" ranks.default=4 ranks.worker.archive=8 \
    privacy.secure_aggregation=on
expect 4 'a rank that one site alone would train is refused at submission' \
    "$coordinator" job submit "$work/thin.conf" --dir "$work/coord"
job_file "$work/two.conf" "${small[@]}" cohort.min_workers=2 privacy.secure_aggregation=on
expect 4 'and so are two sites' "$coordinator" job submit "$work/two.conf" --dir "$work/coord"
job_file "$work/single.conf" "${small[@]}" job.strategy=flexlora privacy.secure_aggregation=on
expect 4 'and strategies that need single updates' \
    "$coordinator" job submit "$work/single.conf" --dir "$work/coord"

# --- a coordinator that dies in each stage: the same round goes on
submit "${small[@]}" job.rounds=6
check 'the undisturbed job is done' job_ends "$job" done
plain=$job
submit "${small[@]}" job.rounds=6 privacy.secure_aggregation=on
round=0
for phase in keys shares collect unmask aggregate; do
    round=$((round + 1))
    within 120 logged coord \
        "\"msg\":\"$phase\",\"job\":$job,\"round\":$round,\|\"job\":$job,\"round\":$round,\"phase\":\"$phase\"" ||
        fail "phase $phase of round $round comes"
    kill_now coord
    coordinator_start
done
check 'the job whose coordinator died in five stages is done' job_ends "$job" done 300
check 'and the sums are those of the undisturbed run' same "$(sums "$job")" "$(sums "$plain")"
check 'no site trained a round twice' same \
    "$(cat "$work"/{bank,clinic,library,archive}.log | grep '"event":"trained"' |
        grep -c "\"job\":$job,.*\"reused\":0")" 24

# --- a site that dies in each stage: it is a dropout of that attempt, and comes back by itself
submit "${small[@]}" job.rounds=6 privacy.secure_aggregation=on cohort.liveness_timeout=2s \
    cohort.min_workers=3 job.seed=8
round=0
for phase in keys shares collect unmask; do
    round=$((round + 1))
    within 120 logged coord "\"msg\":\"$phase\",\"job\":$job,\"round\":$round," ||
        fail "phase $phase of round $round comes"
    kill_now archive
    site_start archive
done
check 'a job whose site died in four stages is done' job_ends "$job" done 300
check 'with all its versions' same "$(sums "$job" | grep -c .)" 6
check 'a site that lost its secrets has said so, or had none to lose' test \
    "$(events archive 'secrets lost')" -ge 0
expect 0 'the coordinator knows its audit log' "$coordinator" audit verify --dir "$work/coord"
the_end
