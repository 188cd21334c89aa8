#!/bin/bash
# Whole jobs with each strategy: versions, exports, JSON, and the same seed giving the same bytes.
. "$(dirname "$0")/lib.sh"

federation bank clinic library

declare -A first
for strategy in fedit ffa alternating; do
    submit job.strategy=$strategy job.name=$strategy
    check "a job with $strategy is done" job_ends "$job" done
    first[$strategy]=$job
    "$coordinator" adapters list --dir "$work/coord" --job "$job" --json >"$work/out"
    check "$strategy: two versions are listed" same "$(grep -c . "$work/out")" 2
    for key in version job round strategy sha256 rank workers created eval_loss eval_tokens sum_sha256; do
        check "$strategy: each version has $key" same "$(grep -c "\"$key\":" "$work/out")" 2
    done
    check "$strategy: three sites are in version 2" same "$(version "$job" 2 | value workers)" 3
    check "$strategy: the rank is the job's" same "$(version "$job" 2 | value rank)" 4
    check "$strategy: a version has the hash of its sum" \
        grep -Eq '"sum_sha256":"[0-9a-f]{64}"' <(version "$job" 2)
    check "$strategy: a version has the sites' held-out loss" \
        grep -Eq '"eval_loss":[0-9.]+,"eval_tokens":[0-9]+' <(version "$job" 2)
    expect 0 "$strategy: export writes a directory" \
        "$coordinator" adapters export --dir "$work/coord" --job "$job" --out "$work/a-$strategy"
    for file in adapter_config.json adapter_model.safetensors README.md; do
        check "$strategy: the export has $file" test -s "$work/a-$strategy/$file"
    done
    check "$strategy: the hash is that of the exported file" same \
        "$(sha256sum <"$work/a-$strategy/adapter_model.safetensors")" "$(sha_of "$job" 2)  -"
    check "$strategy: every site keeps the newest adapter" \
        within 20 cmp -s "$work/a-$strategy/adapter_model.safetensors" \
        "$work/bank/adapters/$job/adapter_model.safetensors"
    expect 0 "$strategy: the adapter can be evaluated" "$worker" eval --model "$tiny" \
        --data "$tiny/clinic.jsonl" --adapter "$work/a-$strategy"
    after=$(value loss <"$work/out")
    expect 0 "$strategy: so can version 0" "$coordinator" adapters export --dir "$work/coord" \
        --job "$job" --version 0 --out "$work/start-$strategy"
    check "$strategy: it says which that is" complained "version 0 of job $job, which is its start"
    expect 0 "$strategy: version 0 is an adapter" "$worker" eval --model "$tiny" \
        --data "$tiny/clinic.jsonl" --adapter "$work/start-$strategy"
    before=$(value loss <"$work/out")
    check "$strategy: the loss falls from $before to $after" \
        awk "BEGIN { exit !($after < $before) }"
done

# ffa never trains A: the exported A of version 2 is that of version 0
"$worker" inspect --json "$work/a-ffa" >/dev/null
check 'a strategy makes a difference' differ "$(sha_of "${first[fedit]}" 2)" "$(sha_of "${first[ffa]}" 2)"

submit job.strategy=alternating job.name=alternating
check 'a second job with the same seed is done' job_ends "$job" done
check 'the same seed gives the same bytes' same "$(sha_of "$job" 2)" "$(sha_of "${first[alternating]}" 2)"
check 'and the same sum' same "$(version "$job" 2 | value sum_sha256)" \
    "$(version "${first[alternating]}" 2 | value sum_sha256)"
submit job.strategy=alternating job.name=alternating job.seed=8
check 'a third job with another seed is done' job_ends "$job" done
check 'another seed gives other bytes' differ "$(sha_of "$job" 2)" "$(sha_of "${first[alternating]}" 2)"

# what the reading commands say
"$coordinator" job show "$job" --dir "$work/coord" --json >"$work/out"
for key in job name state strategy round rounds phase attempt reason refusals; do
    check "job show has $key" said "\"$key\":"
done
"$coordinator" status --dir "$work/coord" --json >"$work/out"
for key in state job round rounds phase workers reason refusals name last_seen_seconds; do
    check "status has $key" said "\"$key\":"
done
"$coordinator" job list --dir "$work/coord" --json >"$work/out"
check 'job list has a line a job' same "$(grep -c . "$work/out")" 5
"$worker" status --dir "$work/bank" --json >"$work/out"
check "a site's status says what left it" said '"sent":\[\{.*"sha256":"[0-9a-f]{64}"'
check "a site's status names its adapter" said '"adapter":"[^"]*adapters/'

# rollback moves the current version, and export follows it
expect 0 'rollback to version 1' "$coordinator" adapters rollback 1 --job "$job" --dir "$work/coord"
expect 0 'the list after it' "$coordinator" adapters list --job "$job" --dir "$work/coord"
check 'it marks version 1 as current' said 'version 1 .*current$'
expect 0 'export after a rollback' "$coordinator" adapters export --dir "$work/coord" --job "$job" \
    --out "$work/back"
check 'the export is version 1' same "$(sha256sum <"$work/back/adapter_model.safetensors")" \
    "$(sha_of "$job" 1)  -"
expect 0 'the audit log of the coordinator holds' "$coordinator" audit verify --dir "$work/coord"

# nothing of a round stays behind
check 'the spool is empty in the end' same "$(find "$work/coord/spool" -type f 2>/dev/null | wc -l)" 0

# the same reading commands without a daemon
stop coord
check 'the coordinator ends with 0 on SIGTERM' same "$code" 0
expect 0 'job list works without a daemon' "$coordinator" job list --dir "$work/coord"
expect 0 'adapters list works without a daemon' "$coordinator" adapters list --dir "$work/coord"
expect 1 'health says that no daemon runs' "$coordinator" health --dir "$work/coord"
the_end
