#!/bin/bash
# kill -9 of a site: the round goes on without it, it rejoins, and what it had trained is not
# trained again.
. "$(dirname "$0")/lib.sh"

sites=(bank clinic library ward)
federation "${sites[@]}"
long=(job.strategy=fedit train.steps=300 cohort.liveness_timeout=3s)

submit "${long[@]}" job.rounds=2
within 120 logged coord "\"msg\":\"train\",\"job\":$job,\"round\":1," || fail 'round 1 trains'
sleep 0.2
kill_now ward
check 'round 1 is committed without the site that was killed' \
    within 120 logged coord "\"event\":\"round_committed\".*\"job\":$job,\"round\":1,\"workers\":3"
site_start ward
check 'the job is done' job_ends "$job" done
check 'the site that was killed is online again' within 60 online ward
check 'three sites are in version 1' same "$(version "$job" 1 | value workers)" 3

submit "${long[@]}" job.rounds=1 train.steps=3
check 'a later job is done' job_ends "$job" done
check 'with all four' same "$(version "$job" 1 | value workers)" 4

# A finished delta survives its site: while one site is held, another that has trained is killed.
submit "${long[@]}" job.rounds=1 cohort.min_workers=4 cohort.liveness_timeout=600s train.steps=40
within 120 logged coord "\"msg\":\"train\",\"job\":$job," || fail 'the round trains'
kill -STOP "${pids[ward]}"
if within 60 logged bank "\"event\":\"trained\".*\"job\":$job," &&
    ! logged coord "\"event\":\"round_committed\".*\"job\":$job,"; then
    kill_now bank
    site_start bank
    check 'the site that was killed after training is online again' within 60 online bank
    check 'its delta is used again, not trained again' \
        within 60 logged bank "\"event\":\"trained\".*\"job\":$job,.*\"reused\":1"
else
    fail 'one site has trained while another is held'
fi
kill -CONT "${pids[ward]}"
check 'the job is done with all of them' job_ends "$job" done
check 'the killed site trained once' same \
    "$(grep '"event":"trained"' "$work/bank.log" | grep -c "\"job\":$job,.*\"reused\":0")" 1
check 'four sites are in the version' same "$(version "$job" 1 | value workers)" 4
the_end
