#!/bin/bash
# A site obeys its own worker.conf first; its refusal is seen on both sides, with the reason.
. "$(dirname "$0")/lib.sh"

federation bank clinic library

# refusal POLICY LINE, PATTERN, [JOB WORDS]: clinic gets the line; the job fails for lack of sites
refusal() {
    local line=$1 pattern=$2
    shift 2
    stop clinic
    check "a site stops with 0" same "$code" 0
    site_conf clinic "$line"
    sed -i '/^max_steps = 1000000$/d' "$work/clinic/worker.conf"
    site_start clinic
    within 60 online clinic || fail 'clinic is online'
    submit job.rounds=1 "$@"
    check "'$line' ends the job at once" job_ends "$job" failed 60
    "$coordinator" job show "$job" --dir "$work/coord" --json >"$work/out"
    check "'$line': the coordinator's operator sees whom and why" said "\"worker\":\"clinic\",\"reason\":\"[^\"]*$pattern"
    check "'$line': the site's log says it" within 20 logged clinic "\"event\":\"refused\".*$pattern"
    check "'$line': the site's status says it" within 20 grep -q "\"reason\":\"[^\"]*$pattern" "$work/clinic/status.json"
    check "'$line': nothing left the site" same "$(events clinic "\"event\":\"update_sent\".*\"job\":$job,")" 0
}

refusal 'jobs = other-*' 'jobs = other'
refusal 'models = other' 'models = other'
refusal 'max_rank = 2' 'max_rank = 2'
refusal 'max_steps = 2' 'max_steps = 2'
refusal 'max_rounds = 1' 'max_rounds = 1' job.rounds=2
refusal 'max_tokens = 100' 'max_tokens = 100'
refusal 'min_cohort = 4' 'min_cohort = 4'

# --- the default: secure aggregation is demanded
stop clinic
site_conf clinic
sed -i '/require_secure_aggregation/d' "$work/clinic/worker.conf"
site_start clinic
within 60 online clinic || fail 'clinic is online'
submit job.rounds=1
check 'a site that says nothing demands secure aggregation' job_ends "$job" failed 60
check 'and says so' grep -q 'require_secure_aggregation = on' \
    <("$coordinator" job show "$job" --dir "$work/coord" --json)
job_file "$work/on.conf" job.rounds=1
grep -v secure_aggregation "$work/on.conf" >"$work/default.conf"
job=$("$coordinator" job submit "$work/default.conf" --dir "$work/coord")
check 'a job that leaves it at its default has it, and the site takes part' job_ends "$job" done 120

# --- other bytes under the same name
stop clinic
cp -r "$tiny" "$work/other-model"
sed -i 's/"rms_norm_eps": *1e-0*[0-9]/"rms_norm_eps": 1e-04/' "$work/other-model/config.json"
printf '\n' >>"$work/other-model/config.json"
site_conf clinic
sed -i "s|^tiny = .*|tiny = $work/other-model|" "$work/clinic/worker.conf"
site_start clinic
within 60 online clinic || fail 'clinic is online'
submit job.rounds=1
check 'a model with another manifest is refused' job_ends "$job" failed 60
"$coordinator" job show "$job" --dir "$work/coord" --json >"$work/out"
check 'with its hash' said "$(manifest "$work/other-model")"
check "and the job's" said "$(manifest)"

# --- a name that the site does not know
stop clinic
site_conf clinic
sed -i 's|^tiny = |huge = |' "$work/clinic/worker.conf"
site_start clinic
within 60 online clinic || fail 'clinic is online'
submit job.rounds=1
check 'a model that the site does not have is refused' job_ends "$job" failed 60
check 'by name' grep -q "no model named 'tiny'" <("$coordinator" job show "$job" --dir "$work/coord" --json)

# --- the others can do without it
stop clinic
site_conf clinic 'max_rank = 2'
site_join ward
site_start clinic ward
within 60 online ward || fail 'ward is online'
within 60 online clinic || fail 'clinic is online'
submit job.rounds=1
check 'three other sites suffice' job_ends "$job" done
check 'the version has three' same "$(version "$job" 1 | value workers)" 3

# --- one site's loss is its own, unless it shares it
check 'no single loss is in the log of the coordinator' same "$(events coord '"event":"site_eval')" 0
the_end
