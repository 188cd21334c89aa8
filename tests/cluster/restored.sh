#!/bin/bash
# A coordinator that is lost and served again from an older backup: it takes back what two sites
# have, numbers its attempts anew, and pauses where one site alone knows more. No site is restarted.
. "$(dirname "$0")/lib.sh"

sites=(bank clinic library)
coordinator_init
coordinator_start
for name in "${sites[@]}"; do site_join "$name" 'min_cohort = 2'; done
site_start "${sites[@]}"
for name in "${sites[@]}"; do within 60 online "$name" || fail "$name comes online"; done

backup() { # DIR: while the daemon runs
    expect 0 'a backup of the running coordinator' \
        "$coordinator" backup --dir "$work/coord" --out "$1" --json
}
# restore DIR: what is served is that copy, at the address that the sites know
restore() {
    kill_now coord
    rm -rf "$work/lost"
    mv "$work/coord" "$work/lost"
    mv "$1" "$work/coord"
    coordinator_start
}
kept() { # VERSION SITE...: each has it
    local version=$1 name
    shift
    for name in "$@"; do
        logged "$name" "\"event\":\"adapter_kept\".*\"job\":$job,\"version\":$version," || return 1
    done
}
sha_at() { # SITE VERSION
    sha256sum <"$work/$1/adapters/$job@$2/adapter_model.safetensors" | cut -d ' ' -f 1
}
# offers of one round and attempt: at most one a site's log, and none twice
offered_twice() {
    local name
    for name in "${sites[@]}"; do
        grep '"event":"offer"' "$work/$name.log" | grep "\"job\":$job," |
            sed 's/.*\("round":[0-9]*,"attempt":[0-9]*\).*/\1/' | sort | uniq -d | sed "s/^/$name: /"
    done
}
committed() { # VERSION: its hash as the lost coordinator logged it
    grep "\"event\":\"round_committed\".*\"job\":$job,\"round\":$1," "$work/coord.log" | head -n 1 |
        value sha256
}
value_list() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" | tr '\n' ' '; }
versions() { "$coordinator" adapters list --dir "$work/coord" --job "$job" --json | value_list version; }

# --- two rounds are lost, and three sites have them
submit job.strategy=alternating job.rounds=6 train.steps=200 privacy.secure_aggregation=on
within 120 kept 2 "${sites[@]}" || fail 'round 2 is done'
backup "$work/copy"
check 'it says what it wrote' said '"jobs":1,"versions":[34]'
within 120 kept 4 "${sites[@]}" || fail 'round 4 is done'
check 'the copy has no version 4' test -z \
    "$("$coordinator" adapters list --dir "$work/copy" --job "$job" --json | grep '"version":4,')"
restore "$work/copy"
check 'the job is done all the same' job_ends "$job" done 300
check 'with every version' same "$(versions)" '1 2 3 4 5 6 '
for number in 3 4; do
    check "version $number is what was committed before" same "$(sha_of "$job" $number)" \
        "$(committed $number)"
    check "version $number came back from a site" logged coord \
        "\"event\":\"version_recovered\".*\"job\":$job,\"version\":$number,"
    check "round $number was not done again" same \
        "$(events coord "\"event\":\"round_committed\".*\"job\":$job,\"round\":$number,")" 1
done
check 'the sites have the last version' same "$(sha_at bank 6)" "$(sha_of "$job" 6)"
check 'no attempt number was used twice' test -z "$(offered_twice)"
for name in "${sites[@]}"; do check "$name is the same process as ever" runs "$name"; done
expect 0 'the audit log of the copy goes on' "$coordinator" audit verify --dir "$work/coord"

# --- a plain copy of the directory does not know that it is one: its sites tell
submit job.strategy=alternating job.rounds=5 train.steps=200
within 120 kept 1 "${sites[@]}" || fail 'round 1 is done'
stop coord
cp -a "$work/coord" "$work/plain"
coordinator_start
within 120 kept 3 "${sites[@]}" || fail 'round 3 is done'
restore "$work/plain"
check 'a job whose coordinator is a plain copy is done' job_ends "$job" done 300
check 'with every version' same "$(versions)" '1 2 3 4 5 '
for number in 2 3; do
    check "version $number is what was committed before" same "$(sha_of "$job" $number)" \
        "$(committed $number)"
done
check 'no attempt number was used twice' test -z "$(offered_twice)"

# --- a restart is no restoration
submit job.strategy=alternating job.rounds=3 train.steps=150
within 120 kept 1 "${sites[@]}" || fail 'round 1 is done'
before=$(events coord '"event":"recall_begins"')
kill_now coord
coordinator_start
check 'a job whose coordinator was killed is done' job_ends "$job" done 300
check 'and nobody was asked for anything' same "$(events coord '"event":"recall_begins"')" "$before"

# --- one site that lies moves nobody
submit job.strategy=alternating job.rounds=3 train.steps=200
within 120 kept 1 "${sites[@]}" || fail 'round 1 is done'
stop library
echo "{\"job\":$job,\"round\":4,\"attempt\":4000000,\"number\":3,\"version\":\"$(printf 'ab%.0s' {1..32})\"}" \
    >"$work/library/state/seen.json"
cp -r "$work/library/adapters/$job" "$work/library/adapters/$job@3"
kill_now coord
coordinator_start
site_start library
check 'a job that one site says is further than it is goes on to its end' job_ends "$job" done 300
check 'the site was asked and passed over' logged coord '"event":"recall_ended"' 1
check 'nothing of it was taken' same "$(events coord "\"event\":\"version_recovered\".*\"job\":$job,")" 0
check 'with every version' same "$(versions)" '1 2 3 '
attempt=$("$coordinator" job show "$job" --dir "$work/coord" --json | value attempt)
check 'attempt numbers stay small' at_most "$attempt" 1201

# --- one site alone saw the newer version
lose() { # SITE: it forgets version 2 and what came after it
    rm -rf "$work/$1/adapters/$job"@[2-9] "$work/$1/adapters/$job" "$work/$1/state/seen.json"
}
one_knows_more() { # SITE...: those that stay away; library alone has version 2
    submit job.strategy=alternating job.rounds=4 train.steps=400 cohort.min_workers=2
    within 120 kept 1 "${sites[@]}" || fail 'round 1 is done'
    backup "$work/copy"
    within 120 kept 2 "${sites[@]}" || fail 'round 2 is done'
    kill_now coord
    stop bank
    stop clinic
    lose bank
    [ $# -gt 0 ] || lose clinic
    site_start bank
    [ $# -gt 0 ] || site_start clinic
    restore "$work/copy"
    check 'the job pauses' job_ends "$job" paused 120
    "$coordinator" job show "$job" --dir "$work/coord" --json >"$work/out"
    check 'and says who alone has what' said 'only library has version [234], which this coordinator lost'
    check 'and what to do' said 'job resume'
}
one_knows_more
check 'it stays so' job_is "$job" paused
expect 0 'the operator decides' "$coordinator" job resume "$job" --dir "$work/coord"
check 'the job is done from its own version' job_ends "$job" done 300
check 'with every version' same "$(versions)" '1 2 3 4 '
check 'no attempt number was used twice' test -z "$(offered_twice)"
for name in "${sites[@]}"; do
    within 20 kept 4 "$name" || fail "$name keeps version 4"
    check "$name has the same last version" same "$(sha_at "$name" 4)" "$(sha_of "$job" 4)"
done

# --- a second site that has it comes while the job is paused
one_knows_more clinic
site_start clinic
check 'the job goes on by itself' within 120 job_is "$job" done
check 'version 2 is what was committed before' same "$(sha_of "$job" 2)" "$(committed 2)"
check 'with every version' same "$(versions)" '1 2 3 4 '
check 'no attempt number was used twice' test -z "$(offered_twice)"
the_end
