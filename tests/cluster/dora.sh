#!/bin/bash
# Jobs of DoRA: they begin with an adapter that has a magnitude for each row, sites train it beside A
# and B, and the coordinator averages it; with masks and without, and through its own death; what
# such a job cannot be is refused with the way out.
. "$(dirname "$0")/lib.sh"

start=("$worker" train --model "$tiny" --steps 0 --rank 4 --alpha 16 --targets q_proj,v_proj)
expect 0 'a start with magnitudes is made without data' "${start[@]}" --dora --out "$work/start"
expect 0 'and one without them' "${start[@]}" --out "$work/plain"

federation bank clinic library
on=(lora.dora=on lora.start="$work/start" job.rounds=3)

weights() { echo "$1/adapter_model.safetensors"; }
tensors() { grep -ao "[^\"]*$2[^\"]*" "$(weights "$1")" | sort -u; } # DIR PATTERN: names
tensor() { # DIR NAME: its values, one a line
    local file bytes range
    file=$(weights "$1")
    bytes=$(od -An -tu8 -N8 "$file" | tr -d ' ')
    range=$(tail -c +9 "$file" | head -c "$bytes" |
        sed "s/.*\"$2\":{[^}]*\"data_offsets\":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/")
    tail -c +$((9 + bytes + ${range% *})) "$file" | head -c $((${range#* } - ${range% *})) |
        od -An -v -tf4 -w4
}
all_of() { # DIR PATTERN
    local name
    tensors "$1" "$2" | while read -r name; do tensor "$1" "$name"; done
}
moved() { # DIR DIR PATTERN: some value of every tensor
    local name
    for name in $(tensors "$1" "$3"); do
        differ "$(tensor "$1" "$name")" "$(tensor "$2" "$name")" >/dev/null || { echo "  $name has not"; return 1; }
    done
}
sums() { # JOB: the hash of each version's sum and file
    "$coordinator" adapters list --dir "$work/coord" --job "$1" --json |
        sed 's/.*"sha256":"\([0-9a-f]*\)".*"sum_sha256":"\([0-9a-f]*\)".*/\1 \2/'
}
falls() { awk '$1 !~ /^[0-9.]+$/ || (NR > 1 && $1 >= last) { bad = 1 } { last = $1 } END { exit bad || NR != 4 }'; }
losses() { # JOB: held-out loss of versions 0 to 3
    "$coordinator" job show "$1" --dir "$work/coord" --json | value base_loss
    for n in 1 2 3; do version "$1" $n | value eval_loss; done
}

# --- what is averaged
modules=$(tensors "$work/start" 'lora_A' | grep -c .)
for strategy in fedit ffa rolora; do
    submit "${on[@]}" job.strategy=$strategy
    check "$strategy without masks is done" job_ends "$job" done
    plain=$job
    submit "${on[@]}" job.strategy=$strategy privacy.secure_aggregation=on
    check "$strategy with masks is done" job_ends "$job" done
    check "$strategy: three versions" same "$(sums "$job" | grep -c .)" 3
    check "$strategy: sums and versions are those without masks" same "$(sums "$job")" "$(sums "$plain")"
    check "$strategy: the held-out loss falls: $(losses "$job" | tr '\n' ' ')" falls < <(losses "$job")
    for n in 0 3; do
        expect 0 "$strategy: version $n is exported" "$coordinator" adapters export --dir "$work/coord" \
            --job "$job" --version $n --out "$work/$strategy-$n"
    done
    out=$work/$strategy-3
    check "$strategy: version 0 is the start" cmp -s "$(weights "$work/$strategy-0")" "$(weights "$work/start")"
    check "$strategy: PEFT is told of DoRA" grep -q '"use_dora": true' "$out/adapter_config.json"
    check "$strategy: the card says that it is not exact" grep -q 'DoRA.*not exact' "$out/README.md"
    check "$strategy: each module has its magnitudes" same \
        "$(tensors "$out" lora_magnitude_vector | grep -c .)" "$modules"
    check "$strategy: and they have moved" moved "$work/start" "$out" lora_magnitude_vector
    check "$strategy: B has moved" moved "$work/start" "$out" lora_B
    expect 0 "$strategy: the adapter is merged into its base" "$worker" merge --model "$tiny" \
        --adapter "$out" --dtype f32 --out "$work/$strategy-merged"
    check "$strategy: every site has it" within 20 cmp -s "$(weights "$out")" \
        "$(weights "$work/bank/adapters/$job")"
done
check 'ffa never trains A' same "$(all_of "$work/start" lora_A)" "$(all_of "$work/ffa-3" lora_A)"
check 'fedit does' moved "$work/start" "$work/fedit-3" lora_A
check 'a site says the same of its adapter' grep -q 'not exact' "$work/bank/adapters/$job/README.md"

# --- a clip holds magnitudes too: whatever moved, the update is as short as it says
submit "${on[@]}" job.strategy=fedit privacy.clip_norm=0.001 job.rounds=1
check 'a clipped job is done' job_ends "$job" done
check 'its mean is within the clip' awk -v n="$(version "$job" 1 | value delta_norm)" 'BEGIN { exit !(n > 0 && n < 0.0011) }'

# --- a coordinator that dies: ranges, plan and start are found again
submit "${on[@]}" job.strategy=rolora privacy.secure_aggregation=on job.seed=8
check 'the undisturbed job is done' job_ends "$job" done
plain=$job
submit "${on[@]}" job.strategy=rolora privacy.secure_aggregation=on job.seed=8
for round in 1 2 3; do
    within 120 logged coord "\"msg\":\"$([ $round = 2 ] && echo collect || echo unmask)\",\"job\":$job,\"round\":$round," ||
        fail "round $round comes that far"
    kill_now coord
    coordinator_start
done
check 'a job whose coordinator died in each round is done' job_ends "$job" done 300
check 'with the sums of the undisturbed run' same "$(sums "$job")" "$(sums "$plain")"

# --- another job goes on from a version
submit job.rounds=1
check 'a job without magnitudes is done' job_ends "$job" done
without=$job job=$plain
submit "${on[@]}" job.strategy=fedit job.rounds=1 lora.start="$job@3"
check 'a job that goes on from a version is done' job_ends "$job" done
job_file "$work/bad.conf" lora.start="$job@1"
expect 3 'without dora that is no start' "$coordinator" job submit "$work/bad.conf" --dir "$work/coord"
check 'it says what to set' complained 'dora = on'

# --- refusals, each with one line
refused() { # SENTENCE PATTERN WORDS...
    local sentence=$1 pattern=$2
    shift 2
    job_file "$work/bad.conf" "$@"
    expect 4 "$sentence" "$coordinator" job submit "$work/bad.conf" --dir "$work/coord"
    check "$sentence: $pattern" complained "$pattern"
    check "$sentence: one line" at_most "$(grep -c . "$work/err")" 1
}
refused 'alternating' 'use fedit, ffa or rolora' "${on[@]}" job.strategy=alternating
refused 'a rank of a site' 'one rank' "${on[@]}" ranks.worker.bank=2
refused 'a rank of a round' 'one rank' "${on[@]}" ranks.round.2=2
refused 'a start without magnitudes' 'has no magnitudes' "${on[@]}" lora.start="$work/plain"
refused 'a start of another rank' 'another rank' "${on[@]}" ranks.default=2
refused 'a start of another scale' 'another alpha' "${on[@]}" lora.alpha=8
refused 'a start of other modules' 'other modules' "${on[@]}" lora.targets=q_proj
refused 'a version without magnitudes' 'has no magnitudes' "${on[@]}" lora.start="$without@1"
job_file "$work/bad.conf" lora.start="$work/start"
expect 3 'magnitudes without dora' "$coordinator" job submit "$work/bad.conf" --dir "$work/coord"
refused 'no start' 'fedlora-worker train --model MODEL' lora.dora=on ranks.default=2 lora.alpha=6

# --- the line that it prints makes what is asked for
line=$(sed -n 's/.*\(fedlora-worker train .*\)/\1/p' "$work/err")
line=${line//MODEL/$tiny} line=${line//START/$work/told} line=${line/fedlora-worker/$worker}
expect 0 'the command that the refusal prints' bash -c "$line"
submit lora.dora=on ranks.default=2 lora.alpha=6 lora.start="$work/told" job.rounds=1
check 'a job that begins with what it made is done' job_ends "$job" done

# --- a start that was made with another model: no coordinator can know, and every site does
"$worker" train --model "$tiny" --data "$tiny/bank.jsonl" --out "$work/far" --targets all-linear --rank 4 \
    --lr 0.3 --steps 20 --threads 1 2>/dev/null
"$worker" merge --model "$tiny" --adapter "$work/far" --out "$work/other" 2>/dev/null
other=("${start[@]}")
other[3]=$work/other
expect 0 'a start of another model' "${other[@]}" --dora --out "$work/foreign"
submit "${on[@]}" lora.start="$work/foreign" privacy.secure_aggregation=on
check 'a job that begins with it ends' job_ends "$job" failed 60
check 'with the reason' grep -q "start was made with another model than 'tiny'" \
    <("$coordinator" job show "$job" --dir "$work/coord" --json)
check 'and nothing left a site' same \
    "$(events bank "\"event\":\"update_sent\".*\"job\":$job,")" 0

# --- the dry run of a site
job_file "$work/check.conf" "${on[@]}"
expect 0 'a dry run against such a job' "$worker" check --dir "$work/bank" --job "$work/check.conf"
expect 0 'the audit log of the coordinator holds' "$coordinator" audit verify --dir "$work/coord"
the_end
