#!/bin/bash
# kill -9 of a site: the round goes on without it, it rejoins, and what it had trained is not
# trained again.
. "$(dirname "$0")/lib.sh"

sites=(bank clinic library ward)
federation "${sites[@]}"
long=(job.strategy=fedit cohort.liveness_timeout=3s cohort.select_timeout=60s)

# A site that shall be caught while it trains may have been faster than we: then with more steps again.
# catch STEPS COMMAND WORDS...: a job of which ward has trained nothing when COMMAND (of ward) is done
has_trained() { logged "$1" "\"event\":\"trained\".*\"job\":$job,"; }
catch() {
    local steps=$1 command=$2
    shift 2
    for (( ; ; steps *= 4)); do
        submit "${long[@]}" "train.steps=$steps" "$@"
        within 120 logged ward "\"event\":\"offer\".*\"job\":$job," || fail 'ward gets an offer'
        within 120 logged coord "\"msg\":\"train\",\"job\":$job,\"round\":1," || fail 'round 1 trains'
        $command ward
        has_trained ward || return 0
        if [ -n "${pids[ward]-}" ]; then wake ward; else site_start ward; fi
        job_ends "$job" done || fail 'the job that was too fast is done'
        within 60 online ward || fail 'ward is online'
    done
}

catch 300 kill_now job.rounds=2
check 'round 1 is committed without the site that was killed' \
    within 120 logged coord "\"event\":\"round_committed\".*\"job\":$job,\"round\":1,\"workers\":3"
site_start ward
check 'the job is done' job_ends "$job" done
check 'the site that was killed is online again' within 60 online ward
check 'three sites are in version 1' same "$(version "$job" 1 | value workers)" 3

submit "${long[@]}" job.rounds=1 train.steps=3 cohort.min_workers=4
check 'a later job is done' job_ends "$job" done
check 'with all four' same "$(version "$job" 1 | value workers)" 4

# A finished delta survives its site: while one site is held, another that has trained is killed.
catch 40 suspend job.rounds=1 cohort.min_workers=4 cohort.liveness_timeout=600s
check 'one site has trained while another is held' within 120 has_trained bank
check 'and the round waits' same "$(events coord "\"event\":\"round_committed\".*\"job\":$job,")" 0
kill_now bank
site_start bank
check 'the site that was killed after training is online again' within 60 online bank
check 'its delta is used again, not trained again' \
    within 60 logged bank "\"event\":\"trained\".*\"job\":$job,.*\"reused\":1"
wake ward
check 'the job is done with all of them' job_ends "$job" done
check 'the killed site trained once' same \
    "$(grep '"event":"trained"' "$work/bank.log" | grep -c "\"job\":$job,.*\"reused\":0")" 1
check 'four sites are in the version' same "$(version "$job" 1 | value workers)" 4
the_end
