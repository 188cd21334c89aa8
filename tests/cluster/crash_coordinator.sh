#!/bin/bash
# kill -9 of the coordinator in every phase: the same round goes on, what was accepted is kept, the
# sites reconnect by themselves, and the result is that of an undisturbed run, byte for byte.
. "$(dirname "$0")/lib.sh"

federation bank clinic library
small=(job.strategy=alternating job.rounds=8 train.steps=3)

submit "${small[@]}"
check 'the undisturbed job is done' job_ends "$job" done
expected=$(sha_of "$job" 8)
sum=$(version "$job" 8 | value sum_sha256)

# crash_at PHASE ROUND: kill it as soon as its log says that the phase began. A kill can fall between
# the commit of a phase and its line in the log: the next process then says that it takes it up.
crash_at() {
    within 120 logged coord \
        "\"msg\":\"$1\",\"job\":$job,\"round\":$2,\|\"job\":$job,\"round\":$2,\"phase\":\"$1\"" ||
        { fail "phase $1 of round $2 comes"; return; }
    kill_now coord
    echo "  killed at $1 of round $2"
    coordinator_start
}

submit "${small[@]}"
round=0
for phase in select configure train collect aggregate commit; do
    round=$((round + 1))
    crash_at $phase $round
done
# and at any moment
for moment in 0.03 0.11 0.29; do
    job_over "$job" && break
    sleep $moment
    kill_now coord
    coordinator_start
done
check 'the job that was cut again and again is done' job_ends "$job" done 300
check 'no round was lost' same "$("$coordinator" adapters list --dir "$work/coord" --job "$job" --json | grep -c .)" 8
check 'the adapter is that of the undisturbed run' same "$(sha_of "$job" 8)" "$expected"
check 'and so is its sum' same "$(version "$job" 8 | value sum_sha256)" "$sum"
for name in bank clinic library; do
    check "$name is the same process as ever" runs $name
    check "$name reconnected by itself" logged $name '"event":"connected"' 2
done
check 'no site trained a round twice' same \
    "$(cat "$work"/{bank,clinic,library}.log | grep '"event":"trained"' | grep -c "\"job\":$job,.*\"reused\":0")" 24

# between rounds of a job whose round is long: a site that is training trains on
submit job.strategy=fedit job.rounds=1 train.steps=400
within 120 logged bank "\"event\":\"offer\".*\"job\":$job," || fail 'the long round is offered'
within 120 logged coord "\"msg\":\"train\",\"job\":$job," || fail 'the long round begins'
kill_now coord
check 'the sites notice' within 60 logged bank '"event":"disconnected"' \
    $(($(events bank '"event":"connected"')))
coordinator_start
check 'the long round is done after a crash while it trained' job_ends "$job" done 300
check 'in its first attempt' same \
    "$("$coordinator" job show "$job" --dir "$work/coord" --json | value attempt)" 1
check 'and each site trained it once' same \
    "$(cat "$work"/{bank,clinic,library}.log | grep '"event":"trained"' | grep -c "\"job\":$job,.*\"reused\":0")" 3
expect 0 'the audit log holds after all this' "$coordinator" audit verify --dir "$work/coord"
the_end
