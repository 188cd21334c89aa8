#!/bin/bash
# SIGTERM and SIGINT: both daemons end within ten seconds with 0, idle or at work, and a job that was
# cut goes on afterwards.
. "$(dirname "$0")/lib.sh"

# signalled NAME SIGNAL: ends with 0 in time
signalled() {
    local before=$SECONDS
    kill "-$2" "${pids[$1]}"
    check "$1 ends on SIG$2" await_end "$1" 60
    check "$1 ends with 0" same "$code" 0
    check "$1 ends within 10 s" at_most $((SECONDS - before)) 10
}

federation bank clinic library
signalled bank TERM
site_start bank
within 60 online bank || fail 'bank is online'
signalled bank INT
signalled coord INT
coordinator_start
site_start bank
for name in bank clinic library; do
    check "$name is online after a restart of the coordinator" within 60 online $name
done

steps=2000
while :; do
    submit job.rounds=1 train.steps=$steps cohort.liveness_timeout=60s
    within 120 logged coord "\"msg\":\"train\",\"job\":$job," || fail 'the round trains'
    signalled library TERM # in the middle of its training, unless it was faster than we
    logged library "\"event\":\"trained\".*\"job\":$job," || break
    site_start library
    job_ends "$job" done || fail 'the job that was too fast is done'
    steps=$((steps * 4))
done
signalled coord TERM
coordinator_start
submit job.name=second job.rounds=1 # behind one that waits for library
expect 0 'a job can be cancelled' "$coordinator" job cancel $((job - 1)) --dir "$work/coord"
check 'a cancelled job is cancelled' job_ends $((job - 1)) cancelled 30
site_start library
check 'the next job is done' job_ends "$job" done
for name in bank clinic library; do signalled $name TERM; done

# --exit-when-idle
stop coord
"$coordinator" serve --dir "$work/coord" --exit-when-idle >>"$work/coord.log" 2>&1 &
pids[coord]=$!
check 'serve --exit-when-idle ends when nothing is queued' await_end coord 60
check 'with 0' same "$code" 0
job_file "$work/job.conf" job.rounds=1
expect 0 'a job is queued without a daemon' "$coordinator" job submit "$work/job.conf" --dir "$work/coord"
check 'its number alone is printed' said '^[0-9]+$'
number=$(cat "$work/out")
site_start bank clinic library
"$coordinator" serve --dir "$work/coord" --exit-when-idle >>"$work/coord.log" 2>&1 &
pids[coord]=$!
check 'the daemon works it off and ends' await_end coord 180
check 'with 0' same "$code" 0
check 'the job is done' job_is "$number" done
the_end
