#!/bin/bash
# Unequal ranks: by worker, by layer, by round; each worker trains what it was given.
. "$(dirname "$0")/lib.sh"

federation bank clinic library

for strategy in fedit ffa alternating; do
    submit job.strategy=$strategy ranks.default=8 ranks.worker.clinic=2 ranks.worker.bank=4
    check "$strategy with ranks 4, 2 and 8 is done" job_ends "$job" done
    check "$strategy: the global rank is the largest" same "$(version "$job" 2 | value rank)" 8
    check "$strategy: it exports" "$coordinator" adapters export --dir "$work/coord" --job "$job" \
        --out "$work/a-$strategy" 2>/dev/null
    expect 0 "$strategy: it can be evaluated" "$worker" eval --model "$tiny" \
        --data "$tiny/clinic.jsonl" --adapter "$work/a-$strategy"
    first=$(sha_of "$job" 2)
    submit job.strategy=$strategy ranks.default=8 ranks.worker.clinic=2 ranks.worker.bank=4
    check "$strategy with unequal ranks again" job_ends "$job" done
    check "$strategy: the same bytes again" same "$(sha_of "$job" 2)" "$first"
done

submit job.strategy=alternating ranks.default=8 ranks.layers.0-0=2
check 'a job with ranks by layer is done' job_ends "$job" done
"$coordinator" adapters export --dir "$work/coord" --job "$job" --out "$work/layers" 2>/dev/null
check 'the export has a rank pattern' grep -q '"rank_pattern"' "$work/layers/adapter_config.json"
check 'and an alpha pattern that keeps the scale' grep -q '"alpha_pattern"' "$work/layers/adapter_config.json"
expect 0 'it can be evaluated' "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" \
    --adapter "$work/layers"

submit job.strategy=alternating job.rounds=3 ranks.default=8 ranks.round.1=2 ranks.round.2=4
check 'a growing schedule is done' job_ends "$job" done
for number in 1 2 3; do
    ranks[number]=$(version "$job" $number | value rank)
done
check 'the ranks grow as scheduled' same "${ranks[*]}" '2 4 8'

job_file "$work/shrink.conf" job.strategy=fedit job.rounds=2 ranks.default=8 ranks.round.2=2
expect 4 'a shrinking schedule without re-factoring is refused at submission' \
    "$coordinator" job submit "$work/shrink.conf" --dir "$work/coord"
the_end
