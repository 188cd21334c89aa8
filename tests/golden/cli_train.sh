#!/bin/bash
# The command line of train, eval, generate and logits, as a user meets it: outputs, exit codes,
# bad input, Ctrl-C. usage: cli_train.sh FEDLORA_WORKER GOLDEN_DIR
set -u
worker=$1
golden=$2
tiny=$golden/tiny-llama
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect CODE WHAT COMMAND...: runs it, keeps stdout and stderr in $work/out and $work/err.
expect() {
    local code=$1 what=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err"
    local got=$?
    if [ "$got" -ne "$code" ]; then
        fail "$what: exit $got, expected $code"
        sed 's/^/    /' "$work/err" | head -5
    fi
}

# says WHAT PATTERN FILE: the file has a line that matches.
says() {
    grep -Eq -- "$2" "$3" || { fail "$1: no line like '$2'"; head -3 "$3" | sed 's/^/    /'; }
}

one_line() {
    local lines
    lines=$(wc -l <"$work/err")
    [ "$lines" -le "${2:-2}" ] || fail "$1: $lines lines of error"
}

number='-?[0-9.]+(e[-+]?[0-9]+)?'
train=("$worker" train --model "$tiny" --data "$tiny/clinic.jsonl" --threads 1)

# --- words and usage
expect 0 "help" "$worker" --help
expect 0 "version" "$worker" --version
expect 0 "help of train" "$worker" train --help
says "help of train" '--init-adapter' "$work/out"
expect 2 "no command" "$worker"
expect 2 "unknown command" "$worker" trian
expect 2 "no options" "$worker" train
expect 2 "unknown option" "${train[@]}" --out "$work/a" --rnak 4
expect 2 "rank zero" "${train[@]}" --out "$work/a" --rank 0
expect 2 "steps and epochs" "${train[@]}" --out "$work/a" --steps 1 --epochs 1
expect 2 "unknown schedule" "${train[@]}" --out "$work/a" --schedule quadratic
expect 2 "unknown target" "${train[@]}" --out "$work/a" --targets no_proj
says "unknown target" 'no_proj' "$work/err"
expect 2 "bf16 is refused" env FL_GEMM=avx2 "${train[@]}" --out "$work/a" --steps 1 --compute bf16
says "bf16 is refused" 'bf16' "$work/err"
[ ! -e "$work/a" ] || fail "a refused command wrote an adapter"

# --- training
expect 0 "train" "${train[@]}" --out "$work/a" --rank 4 --steps 6 --lr 5e-3 --targets all-linear --json
[ "$(grep -c '"event":"step"' "$work/out")" = 6 ] || fail "train: not 6 step events"
says "step event" "^\{\"event\":\"step\",\"step\":1,\"loss\":$number,\"tokens\":[0-9]+,\"scored\":[0-9]+,\"tokens_per_second\":$number\}$" "$work/out"
says "done event" "^\{\"event\":\"done\",\"steps\":6,\"loss\":$number,\"tokens\":[0-9]+,\"tokens_per_second\":$number,\"peak_rss_bytes\":[0-9]+\}$" "$work/out"
[ "$(tail -1 "$work/out" | grep -c '"event":"done"')" = 1 ] || fail "train: done is not the last event"
says "parameters are printed" 'trainable parameters: [0-9]+ of [0-9]+' "$work/err"
for file in adapter_config.json adapter_model.safetensors README.md; do
    [ -s "$work/a/$file" ] || fail "train wrote no $file"
done
says "base model" '"base_model_name_or_path"' "$work/a/adapter_config.json"
expect 0 "train again" "${train[@]}" --out "$work/b" --rank 4 --steps 6 --lr 5e-3 --targets all-linear
[ ! -s "$work/out" ] || fail "train without --json writes on stdout"
says "plain progress" 'step 6/6 +loss' "$work/err"
cmp -s "$work/a/adapter_model.safetensors" "$work/b/adapter_model.safetensors" ||
    fail "two runs with one seed differ"
expect 0 "another seed" "${train[@]}" --out "$work/b" --rank 4 --steps 6 --seed 1 --targets all-linear
cmp -s "$work/a/adapter_model.safetensors" "$work/b/adapter_model.safetensors" &&
    fail "two seeds give the same adapter"
expect 0 "epochs" "${train[@]}" --out "$work/b" --epochs 2 --batch-size 3 --json
[ "$(grep -c '"event":"step"' "$work/out")" = 6 ] || fail "2 epochs of 8 rows by 3 are not 6 steps"
expect 0 "gguf" "$worker" train --model "$golden/tiny-gguf/mixed.gguf" --data "$tiny/bank.jsonl" \
    --out "$work/g" --steps 2 --threads 1
expect 0 "text rows" "$worker" train --model "$tiny" --data "$tiny/text.jsonl" --out "$work/t" --steps 2

# --- a limit of memory: more is computed, less is held, and the adapter is the same
one=("${train[@]}" --batch-size 1 --steps 5 --targets all-linear --json)
expect 0 "memory" "${one[@]}" --out "$work/free"
says "memory" '^\{"event":"memory",.*"batch_tokens":[0-9]+,"recompute":false\}$' "$work/out"
says "memory" '^memory: about [0-9]+ MB: base .*, activations kept$' "$work/err"
estimate=$(sed -n 's/.*"estimate_bytes":\([0-9]*\).*/\1/p' "$work/out")
expect 0 "memory limit" "${one[@]}" --out "$work/tight" --memory-limit $((estimate - 1))
says "memory limit" "\"limit_bytes\":$((estimate - 1)),\"batch_tokens\":[0-9]+,\"recompute\":true" "$work/out"
cmp -s "$work/free/adapter_model.safetensors" "$work/tight/adapter_model.safetensors" ||
    fail "a memory limit changes the adapter"
expect 1 "memory limit too small" "${one[@]}" --out "$work/none" --memory-limit 1M
says "memory limit too small" 'limit of 1M is too small: rows of [0-9]+ tokens need at least [0-9]+M' "$work/err"
[ ! -e "$work/none" ] || fail "a refused training wrote an adapter"
expect 2 "no size" "${one[@]}" --out "$work/none" --memory-limit much
says "no size" 'memory-limit much' "$work/err"
expect 0 "eval" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --threads 1
cut -d, -f1-3 "$work/out" >"$work/free.loss"
expect 0 "eval within a limit" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --threads 1 --memory-limit 1G
[ "$(cut -d, -f1-3 "$work/out")" = "$(cat "$work/free.loss")" ] || fail "a memory limit changes the loss"
expect 1 "eval, limit too small" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --memory-limit 1M

# --- which linears, and their ranks: what PEFT's config says of them, and what is refused
chosen=("${train[@]}" --targets all-linear --exclude down_proj --layers 1 --rank 4 --rank-pattern 'q_proj=2'
    --alpha-pattern '.*_proj=12,')
expect 0 "chosen linears" "${chosen[@]}" --steps 3 --out "$work/chosen" --checkpoint-every 2
expect 0 "inspect them" "$worker" inspect --json "$work/chosen"
grep -q 'layers\.0\|down_proj' "$work/chosen/adapter_config.json" && fail "a linear is adapted that was left out"
grep -A1 '"rank_pattern"' "$work/chosen/adapter_config.json" | grep -q 'q_proj": 2' || fail "no rank_pattern is written"
grep -q '"model.layers.1.mlp.up_proj": 12' "$work/chosen/adapter_config.json" || fail "no alpha_pattern is written"
expect 0 "eval them" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --threads 1 --adapter "$work/chosen"
expect 2 "resume with others" "${train[@]}" --targets all-linear --rank 4 --steps 3 --out "$work/chosen" --resume
expect 2 "exclude what is not there" "${train[@]}" --exclude conv --out "$work/none" --steps 1
says "exclude what is not there" "exclude: 'conv' matches no linear" "$work/err"
expect 2 "layers beyond the model" "${train[@]}" --layers 2-9 --out "$work/none" --steps 1
says "layers beyond the model" "layers: 2-9, but the model's blocks are 0 to 1" "$work/err"
expect 2 "other ranks for an adapter" "${train[@]}" --init-adapter "$work/chosen" --rank-pattern q_proj=3 --out "$work/none" --steps 1
expect 2 "other layers for an adapter" "${train[@]}" --init-adapter "$work/chosen" --layers 0 --out "$work/none" --steps 1

# --- DoRA: trained, stopped and resumed, merged; what can't carry magnitudes says so
dora=("${train[@]}" --dora --steps 6 --lr 2e-2 --dropout 0.1 --targets all-linear)
expect 0 "dora" "${dora[@]}" --out "$work/dora"
says "dora" '"use_dora": true' "$work/dora/adapter_config.json"
grep -q 'q_proj.lora_magnitude_vector' "$work/dora/adapter_model.safetensors" || fail "no magnitudes are saved"
expect 0 "dora with checkpoints" "${dora[@]}" --out "$work/dora2" --checkpoint-every 4
expect 2 "dora resumed without it" "${train[@]}" --steps 6 --lr 2e-2 --dropout 0.1 --targets all-linear \
    --out "$work/dora2" --resume
says "dora resumed without it" 'made with --dora' "$work/err"
expect 0 "dora resumed" "${dora[@]}" --out "$work/dora2" --resume
cmp -s "$work/dora/adapter_model.safetensors" "$work/dora2/adapter_model.safetensors" ||
    fail "a resumed run of DoRA ends elsewhere"
expect 0 "go on from dora" "${train[@]}" --init-adapter "$work/dora" --out "$work/dora3" --steps 1
says "go on from dora" '"use_dora": true' "$work/dora3/adapter_config.json"
expect 2 "dora on an adapter without" "${train[@]}" --init-adapter "$work/free" --dora --out "$work/none" --steps 1
says "dora on an adapter without" 'dora contradicts' "$work/err"
# the start of a run, which needs no data: what PEFT computes with it is the base alone
start=("$worker" train --model "$tiny" --threads 1 --steps 0 --targets all-linear)
expect 0 "start" "${start[@]}" --dora --out "$work/start" --json
says "start" '^{"event":"done","steps":0}$' "$work/out"
says "start" '"use_dora": true' "$work/start/adapter_config.json"
says "start" 'not trained yet' "$work/start/README.md"
expect 0 "start again" "${start[@]}" --dora --out "$work/start2"
says "start again" 'not trained yet' "$work/err"
cmp -s "$work/start/adapter_model.safetensors" "$work/start2/adapter_model.safetensors" ||
    fail "two starts with one seed differ"
for given in "" "$work/start"; do
    expect 0 "eval ${given:-base}" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --threads 1 \
        ${given:+--adapter "$given"}
    sed 's/.*"loss":\([0-9.]*\).*/\1/' "$work/out"
done >"$work/losses"
awk 'NR == 1 { base = $1 } END { d = $1 - base; exit !(NR == 2 && d < 1e-5 && d > -1e-5) }' "$work/losses" ||
    fail "the start is not the base: $(tr '\n' ' ' <"$work/losses")"
expect 0 "go on from the start" "${train[@]}" --init-adapter "$work/start" --out "$work/dora4" --steps 6 --lr 2e-2 --dora
expect 0 "start without dora" "${start[@]}" --out "$work/start3"
expect 2 "no data" "$worker" train --model "$tiny" --out "$work/none" --steps 1
says "no data" 'data is required' "$work/err"
expect 2 "start and resume" "${start[@]}" --out "$work/none" --resume
[ ! -e "$work/none" ] || fail "a refused start wrote an adapter"
mkdir "$work/other" && touch "$work/other/file"
expect 1 "start over something else" "${start[@]}" --out "$work/other"
expect 0 "inspect dora" "$worker" inspect --json "$work/dora"
says "inspect dora" '"dora":true' "$work/out"
expect 0 "eval dora" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --threads 1 --adapter "$work/dora"
adapted=$(sed 's/.*"loss":\([0-9.]*\).*/\1/' "$work/out")
expect 0 "merge dora" "$worker" merge --model "$tiny" --adapter "$work/dora" --dtype f32 --out "$work/doram"
expect 0 "eval merged dora" "$worker" eval --model "$work/doram" --data "$tiny/clinic.jsonl" --threads 1
merged=$(sed 's/.*"loss":\([0-9.]*\).*/\1/' "$work/out")
awk "BEGIN { d = $adapted - $merged; exit !(d < 1e-5 && d > -1e-5) }" || fail "dora: merged $merged, adapted $adapted"
expect 0 "generate with dora" "$worker" generate --model "$tiny" --adapter "$work/dora" --prompt a --max-tokens 4
expect 2 "export dora" "$worker" export --model "$tiny" --adapter "$work/dora" --out "$work/dora.gguf"
says "export dora" 'GGUF adapters have no magnitudes' "$work/err"
sed 's/"use_dora": true/"use_dora": false/' "$work/dora/adapter_config.json" >"$work/dora2/adapter_config.json"
expect 3 "magnitudes that the configuration denies" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --adapter "$work/dora2"
says "magnitudes that the configuration denies" 'lora_magnitude_vector, and use_dora is false' "$work/err"

# --- what sites have: a table, a share held out, long prompts, records that are empty or broken
{
    echo 'id,prompt,completion'
    for i in $(seq 40); do printf '%s,"ward %s, ","bed ""%s"""\r\n' "$i" "$i" "$i"; done
    printf '41,x,\n42,too few\n43,"%0300d",yes\n' 0
} >"$work/rows.csv"
csv=("$worker" train --model "$tiny" --data "$work/rows.csv" --out "$work/s" --steps 1 --seq-len 40 --json)
expect 3 "broken row of a table" "${csv[@]}"
says "broken row of a table" 'rows\.csv:43:1: 2 fields, and the header has 3' "$work/err"
expect 0 "table" "${csv[@]}" --skip-broken
says "table" '^\{"event":"data","rows":41,.*"truncated":1,"completions_cut":0,"tokens_cut":[0-9]+,"dropped":0,"empty":1,"bad":1,"valid":null,"compute":"f32","kernel":"[a-z0-9]+"\}$' "$work/out"
says "table" '^computing in f32 with [a-z0-9]+$' "$work/err"
expect 0 "held out" "${csv[@]}" --skip-bad-rows --valid-split 0.2
says "held out" '^\{"event":"data","rows":[23][0-9],.*"valid":\{"rows":[1-9][0-9]?,' "$work/out"
says "held out" 'validation: [0-9]+ rows held out' "$work/err"
expect 2 "share of more than all" "${csv[@]}" --valid-split 1.5
completions=$("$worker" eval --model "$tiny" --data "$work/rows.csv" --skip-broken 2>/dev/null | sed 's/,.*//')
everything=$("$worker" eval --model "$tiny" --data "$work/rows.csv" --skip-broken --loss all 2>/dev/null | sed 's/,.*//')
[ "${completions#*:}" -lt "${everything#*:}" ] || fail "--loss all scores no more: $completions, $everything"
printf 'PAR1' >"$work/rows.parquet"
expect 3 "parquet" "$worker" eval --model "$tiny" --data "$work/rows.parquet"
says "parquet" 'Parquet.*read_parquet' "$work/err"

# --- going on from an adapter
init=("${train[@]}" --init-adapter "$work/a" --out "$work/c" --steps 1)
expect 0 "init" "${init[@]}"
says "rank is inherited" '"r": 4' "$work/c/adapter_config.json"
expect 0 "init, same words" "${init[@]}" --rank 4 --alpha 16 --targets all-linear --dropout 0
expect 2 "init, other rank" "${init[@]}" --rank 8
says "init, other rank" 'contradicts' "$work/err"
expect 2 "init, other alpha" "${init[@]}" --alpha 8
expect 2 "init, other targets" "${init[@]}" --targets q_proj
expect 2 "init, other dropout" "${init[@]}" --dropout 0.1
expect 1 "init is missing" "${train[@]}" --init-adapter "$work/nothing" --out "$work/d"

# --- what must not be overwritten
mkdir "$work/precious"
echo keep >"$work/precious/letter"
expect 1 "a directory that is no adapter" "${train[@]}" --out "$work/precious" --steps 1
[ "$(cat "$work/precious/letter")" = keep ] || fail "a directory that is no adapter was touched"
echo keep >"$work/file"
expect 1 "a file in the way" "${train[@]}" --out "$work/file" --steps 1

# --- evaluation
evaluate=("$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl")
expect 0 "eval" "${evaluate[@]}"
says "eval" "^\{\"tokens\":[0-9]+,\"loss\":$number,\"perplexity\":$number,.*\"truncated\":0" "$work/out"
base=$(sed 's/.*"loss":\([0-9.]*\).*/\1/' "$work/out")
expect 0 "eval with the adapter" "${evaluate[@]}" --adapter "$work/a"
adapted=$(sed 's/.*"loss":\([0-9.]*\).*/\1/' "$work/out")
awk "BEGIN { exit !($adapted < $base) }" || fail "training did not lower the loss: $base, $adapted"
expect 0 "eval, rows cut" "${evaluate[@]}" --seq-len 24
says "eval, rows cut" '"truncated":[1-9]' "$work/out"
expect 1 "eval, no adapter there" "${evaluate[@]}" --adapter "$work/nothing"

interval='\{"mean":[0-9.e-]+,"low":[0-9.e-]+,"high":[0-9.e-]+\}'
expect 0 "eval with metrics" "${evaluate[@]}" --metrics f1,exact_match --max-tokens 4 --samples "$work/samples"
says "eval with metrics" "\"generated\":[0-9]+,.*\"metrics\":\{\"exact_match\":$interval,\"f1\":$interval\}\}\$" "$work/out"
[ "$(wc -l <"$work/samples")" = 8 ] || fail "eval with metrics: not 8 samples"
says "a sample" '^\{"row":1,"prompt":".*","reference":".*","completion":".*","finish":".*","tokens":4,"exact_match":.*,"f1":.*\}$' "$work/samples"
cp "$work/out" "$work/first"
expect 0 "eval with metrics again" "${evaluate[@]}" --metrics f1,exact_match --max-tokens 4
cmp -s <(sed 's/"[a-z_]*tokens_per_second":[0-9.e+]*,*//g' "$work/out") <(sed 's/"[a-z_]*tokens_per_second":[0-9.e+]*,*//g' "$work/first") ||
    fail "eval with metrics does not repeat"
expect 0 "eval of some rows" "${evaluate[@]}" --limit 3
says "eval of some rows" '"rows":3,' "$work/out"
expect 2 "unknown metric" "${evaluate[@]}" --metrics bleu
expect 2 "samples of nothing" "${evaluate[@]}" --samples "$work/none"
expect 3 "metrics without prompts" "$worker" eval --model "$tiny" --data "$tiny/text.jsonl" --metrics f1 --samples "$work/none"
[ ! -e "$work/none" ] || fail "a failed evaluation left samples"
printf '{"prompt":"The","choices":[" a"," the cat"],"answer":1}\n' >"$work/choices.jsonl"
expect 0 "choices" "$worker" eval --model "$tiny" --data "$work/choices.jsonl" --choices --samples "$work/samples"
says "choices" "^\{\"tokens\":[0-9]+,\"loss\":$number,.*\"metrics\":\{\"accuracy\":$interval,\"accuracy_norm\":$interval\}\}\$" "$work/out"
says "a choice's sample" '"logprobs":\[-[0-9.]+,-[0-9.]+\],"chosen":[01],"chosen_norm":[01]\}$' "$work/samples"
expect 3 "no choices" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" --choices
says "no choices" 'clinic\.jsonl:1' "$work/err"

# --- generation
generate=("$worker" generate --model "$tiny" --prompt 'Define: ward' --max-tokens 8)
expect 0 "generate" "${generate[@]}"
cp "$work/out" "$work/greedy"
[ ! -s "$work/err" ] || fail "generate has words on stderr: $(head -1 "$work/err")"
expect 0 "generate again" "${generate[@]}" --seed 9
cmp -s "$work/out" "$work/greedy" || fail "greedy generation depends on the seed"
expect 0 "sampling" "${generate[@]}" --temperature 1 --seed 3
cp "$work/out" "$work/sampled"
expect 0 "sampling again" "${generate[@]}" --temperature 1 --seed 3
cmp -s "$work/out" "$work/sampled" || fail "a seed does not repeat its text"
expect 0 "generate with an adapter" "${generate[@]}" --adapter "$work/a"
expect 0 "generate in chat" "${generate[@]}" --chat
cp "$work/out" "$work/chatted"
cmp -s "$work/out" "$work/greedy" && fail "--chat changes nothing"
expect 0 "generate in a named form" "${generate[@]}" --chat-template chatml
cmp -s "$work/out" "$work/chatted" || fail "the model's own form by its name is another"
cp -r "$tiny" "$work/untold"
rm "$work/untold/chat_template.jinja"
untold=("$worker" generate --model "$work/untold" --prompt 'Define: ward' --max-tokens 8)
expect 3 "chat without a template" "${untold[@]}" --chat
says "chat without a template" '--chat-template NAME.*chatml\|llama2' "$work/err"
one_line "chat without a template"
expect 0 "a form where the model has none" "${untold[@]}" --chat --chat-template chatml
cmp -s "$work/out" "$work/chatted" || fail "a form given by name is another"
expect 3 "a form whose marks are missing" "${generate[@]}" --chat-template llama3
says "a form whose marks are missing" 'has no token <\|start_header_id\|>' "$work/err"
expect 2 "a form that there is not" "${generate[@]}" --chat-template vicuna

printf 'Define: ward' >"$work/prompt"
expect 0 "prompt from a file" "$worker" generate --model "$tiny" --prompt-file "$work/prompt" --max-tokens 8
cmp -s "$work/out" "$work/greedy" || fail "a prompt from a file is another prompt"
"$worker" generate --model "$tiny" --prompt-file - --max-tokens 8 <"$work/prompt" >"$work/out" 2>"$work/err"
cmp -s "$work/out" "$work/greedy" || fail "a prompt from stdin is another prompt"
expect 0 "one likeliest token" "${generate[@]}" --temperature 1 --top-k 1
cmp -s "$work/out" "$work/greedy" || fail "top-k 1 is not greedy"
expect 0 "a small nucleus" "${generate[@]}" --temperature 1 --top-p 0.000001
cmp -s "$work/out" "$work/greedy" || fail "a small top-p is not greedy"
expect 0 "generate as JSON" "${generate[@]}" --json
says "generate as JSON" '^\{"text":".*","ids":\[[0-9,]+\],"prompt_tokens":[0-9]+,"tokens":8,"finish":"length","tokens_per_second":[0-9.e+]+\}$' "$work/out"
id=$(sed 's/.*"ids":\[[0-9]*,\([0-9]*\),.*/\1/' "$work/out")
expect 0 "stop at an id" "${generate[@]}" --json --stop-ids "$id"
says "stop at an id" '"finish":"stop"' "$work/out"
letter=$(sed 's/[^a-zA-Z]//g' "$work/greedy" | tr -d '\n' | cut -c 2)
expect 0 "stop at a text" "${generate[@]}" --stop "$letter" --stop 'not there'
grep -q "$letter" "$work/out" && fail "the stop text was printed"
expect 2 "an empty stop" "${generate[@]}" --stop ''
expect 2 "no prompt" "$worker" generate --model "$tiny"
expect 2 "two prompts" "${generate[@]}" --prompt-file "$work/prompt"
expect 2 "top-k without a temperature" "${generate[@]}" --top-k 5
expect 2 "stop ids that are none" "${generate[@]}" --stop-ids 1,x
expect 1 "no such prompt file" "$worker" generate --model "$tiny" --prompt-file "$work/nothing"

# --- merge
greedy() { "$worker" generate --prompt 'Define: ward' --max-tokens 12 "$@" 2>/dev/null; }
wanted=$(greedy --model "$tiny" --adapter "$work/a")
expect 0 "merge to a directory" "$worker" merge --model "$tiny" --adapter "$work/a" --out "$work/merged"
says "merge to a directory" "^wrote $work/merged \([0-9.]+ [kM]B, F32\): .* fedlora-worker generate --model $work/merged --prompt TEXT$" "$work/err"
one_line "merge to a directory" 1
[ ! -s "$work/out" ] || fail "merge to a directory: words on stdout"
[ "$(greedy --model "$work/merged")" = "$wanted" ] || fail "the merged directory says something else"
expect 0 "merge as JSON" "$worker" merge --model "$tiny" --adapter "$work/a" --out "$work/merged-json" --dtype bf16 --json
says "merge as JSON" "^\{\"path\":\"$work/merged-json\",\"bytes\":$(cat "$work"/merged-json/* | wc -c),\"dtype\":\"BF16\",\"format\":\"safetensors\"\}$" "$work/out"
one_line "merge as JSON" 0
expect 0 "merge to GGUF" "$worker" merge --model "$tiny" --adapter "$work/a" --out "$work/merged.gguf"
says "merge to GGUF" "^wrote $work/merged.gguf \([0-9.]+ [kM]B, F32\): .*llama.cpp" "$work/err"
one_line "merge to GGUF" 1
[ "$(greedy --model "$work/merged.gguf")" = "$wanted" ] || fail "the merged GGUF file says something else"
"$worker" train --model "$golden/tiny-gguf/f32.gguf" --data "$tiny/bank.jsonl" --out "$work/ga" \
    --steps 2 --threads 1 2>/dev/null
wanted=$(greedy --model "$golden/tiny-gguf/f32.gguf" --adapter "$work/ga")
for out in from-gguf from-gguf.gguf; do
    expect 0 "merge of a GGUF base to $out" "$worker" merge --model "$golden/tiny-gguf/f32.gguf" \
        --adapter "$work/ga" --out "$work/$out"
    [ "$(greedy --model "$work/$out")" = "$wanted" ] || fail "$out says something else"
done
[ "$("$worker" tokenize --model "$work/from-gguf" <"$work/prompt")" = \
    "$("$worker" tokenize --model "$golden/tiny-gguf/f32.gguf" <"$work/prompt")" ] ||
    fail "the tokenizer of the merged directory is another"
expect 1 "merge onto a model" "$worker" merge --model "$tiny" --adapter "$work/a" --out "$work/merged"
says "merge onto a model" 'exists' "$work/err"
expect 1 "merge onto a file" "$worker" merge --model "$tiny" --adapter "$work/a" --out "$work/merged.gguf"
expect 3 "merge of another model's adapter" "$worker" merge --model "$tiny" --adapter "$golden/cases/gqa-tied/init" --out "$work/none"
expect 2 "merge to a directory that can't be described" "$worker" merge --model "$golden/tiny-gguf/mixed.gguf" --adapter "$work/ga" --out "$work/none"
[ -z "$(ls "$work" | grep none)" ] || fail "a refused merge left something behind"

# --- export
expect 0 "export" "$worker" export --model "$tiny" --adapter "$work/a" --out "$work/a.gguf"
says "export" "^wrote $work/a.gguf \([0-9.]+ kB, F32\): .*--lora $work/a.gguf" "$work/err"
one_line "export" 1
[ ! -s "$work/out" ] || fail "export: words on stdout"
expect 0 "inspect of what was exported" "$worker" inspect "$work/a.gguf"
expect 0 "export as f16" "$worker" export --model "$tiny" --adapter "$work/a" --out "$work/a.gguf" --dtype f16 --json
says "export as f16" "^\{\"path\":\"$work/a.gguf\",\"bytes\":$(wc -c <"$work/a.gguf"),\"dtype\":\"F16\",\"format\":\"gguf\"\}$" "$work/out"
one_line "export as JSON" 0
expect 1 "export onto a directory" "$worker" export --model "$tiny" --adapter "$work/a" --out "$work/precious"
cp "$golden/tiny-gguf/f32.gguf" "$work/base.gguf"
expect 1 "export onto the model" "$worker" export --model "$work/base.gguf" --adapter "$work/a" --out "$work/base.gguf"
cmp -s "$golden/tiny-gguf/f32.gguf" "$work/base.gguf" || fail "export onto the model: it was touched"
expect 3 "export of another model's adapter" "$worker" export --model "$tiny" --adapter "$golden/cases/gqa-tied/init" --out "$work/none.gguf"
[ ! -e "$work/none.gguf" ] || fail "a refused export wrote a file"

# --- logits
expect 0 "logits" "$worker" logits --model "$tiny" --tokens 1,2,3 --out "$work/l.safetensors"
says "logits" '"logits"' "$work/l.safetensors"
expect 2 "logits, no number" "$worker" logits --model "$tiny" --tokens 1,x --out "$work/m"
expect 2 "logits, beyond the vocabulary" "$worker" logits --model "$tiny" --tokens 1,999999 --out "$work/m"
expect 2 "logits, empty" "$worker" logits --model "$tiny" --tokens '' --out "$work/m"
[ ! -e "$work/m" ] || fail "a refused logits command wrote a file"

# --- fetch (its transfers: unit.worker.download)
expect 2 "fetch of no name" "$worker" fetch
expect 2 "fetch of a path" "$worker" fetch ../../etc/passwd --cache "$work/cache"
expect 2 "fetch over plain http" env HF_ENDPOINT=http://example.org "$worker" fetch org/name --cache "$work/cache"
says "fetch over plain http" 'https' "$work/err"

# --- a model by name, in the cache of Hugging Face's libraries
hub=$work/hub/models--acme--tiny
mkdir -p "$hub/blobs" "$hub/refs" "$hub/snapshots/0123456789abcdef"
for file in "$tiny"/*; do
    cp "$file" "$hub/blobs/$(basename "$file").blob"
    ln -s "../../blobs/$(basename "$file").blob" "$hub/snapshots/0123456789abcdef/$(basename "$file")"
done
printf 0123456789abcdef >"$hub/refs/main"
export HF_HUB_CACHE=$work/hub
expect 0 "logits by name" "$worker" logits --model acme/tiny --tokens 1,2,3 --out "$work/n.safetensors"
cmp -s "$work/n.safetensors" "$work/l.safetensors" || fail "a model by name is another one"
expect 0 "train by name" "$worker" train --model acme/tiny --data "$tiny/clinic.jsonl" --out "$work/h" --steps 1
says "train by name" '"base_model_name_or_path": "acme/tiny"' "$work/h/adapter_config.json"
expect 0 "tokenize by name" sh -c "echo hello | '$worker' tokenize --model acme/tiny@main"
expect 0 "inspect by name" "$worker" inspect --json acme/tiny
named=$(sed 's/.*"manifest":"\([0-9a-f]*\)".*/\1/' "$work/out")
expect 0 "inspect by path" "$worker" inspect --json "$hub/snapshots/0123456789abcdef"
[ "$named" = "$(sed 's/.*"manifest":"\([0-9a-f]*\)".*/\1/' "$work/out")" ] || fail "manifests by name and path differ"
expect 0 "merge by name" "$worker" merge --model acme/tiny --adapter "$work/h" --out "$work/hm"
says "merge by name" 'base model tiny with' "$work/hm/README.md"
expect 0 "export by name" "$worker" export --model acme/tiny --adapter "$work/h" --out "$work/hm.gguf"
expect 1 "not in the cache" "$worker" eval --model acme/other --data "$tiny/clinic.jsonl"
says "not in the cache" 'fedlora-worker fetch acme/other$' "$work/err"
one_line "not in the cache"
unset HF_HUB_CACHE

# --- a base in four bits: made at load, it is the one that bitsandbytes stored
expect 0 "logits, quantized" "$worker" logits --model "$tiny" --quantize nf4 --tokens 1,2,3 --threads 1 \
    --out "$work/q.safetensors"
expect 0 "logits, stored" "$worker" logits --model "$golden/nf4/model" --tokens 1,2,3 --threads 1 \
    --out "$work/s.safetensors"
cmp -s "$work/q.safetensors" "$work/s.safetensors" || fail "a base quantized at load is another one"
cmp -s "$work/q.safetensors" "$work/l.safetensors" && fail "--quantize changes nothing"
expect 0 "train, quantized" "${train[@]}" --quantize nf4 --out "$work/q" --steps 3 --targets all-linear
says "train, quantized" 'base quantized to . nf4' "$work/q/README.md"
expect 0 "eval, quantized" "${evaluate[@]}" --quantize nf4 --adapter "$work/q"
expect 0 "generate, quantized" "${generate[@]}" --quantize nf4
expect 2 "unknown type" "${evaluate[@]}" --quantize int4
expect 0 "merge, stored in four bits" "$worker" merge --model "$golden/nf4/model" --adapter "$work/q" --dtype f32 \
    --out "$work/qm"
grep -q quantization_config "$work/qm/config.json" &&
    fail "a merged model calls itself quantized"
expect 0 "logits, merged" "$worker" logits --model "$work/qm" --tokens 1,2,3 --out "$work/qm.safetensors"
expect 0 "inspect, stored in four bits" "$worker" inspect "$golden/nf4/model"

# --- bad files
expect 1 "no such model" "$worker" eval --model "$work/nothing" --data "$tiny/clinic.jsonl"
says "no such model" 'nothing' "$work/err"
expect 1 "no such data" "$worker" eval --model "$tiny" --data "$work/nothing.jsonl"
cp -r "$tiny" "$work/broken"
head -c 50000 "$tiny/model.safetensors" >"$work/broken/model.safetensors"
expect 3 "truncated weights" "$worker" eval --model "$work/broken" --data "$tiny/clinic.jsonl"
one_line "truncated weights"
cp "$tiny/model.safetensors" "$work/broken/model.safetensors"
echo '{"model_type": "llama"' >"$work/broken/config.json"
expect 3 "broken config" "$worker" eval --model "$work/broken" --data "$tiny/clinic.jsonl"
one_line "broken config"
head -c 30000 "$golden/tiny-gguf/f32.gguf" >"$work/broken.gguf"
expect 3 "truncated gguf" "$worker" eval --model "$work/broken.gguf" --data "$tiny/clinic.jsonl"
one_line "truncated gguf"
: >"$work/empty.gguf"
expect 3 "empty gguf" "$worker" eval --model "$work/empty.gguf" --data "$tiny/clinic.jsonl"
printf '{"text": "fine"}\n\n{"text": broken}\n' >"$work/bad.jsonl"
expect 3 "broken line" "$worker" train --model "$tiny" --data "$work/bad.jsonl" --out "$work/n"
says "broken line" 'bad\.jsonl:3' "$work/err"
expect 0 "broken line left out" "$worker" eval --model "$tiny" --data "$work/bad.jsonl" --skip-bad-rows
says "broken line left out" '"bad":1' "$work/out"
: >"$work/empty.jsonl"
expect 3 "empty data" "$worker" train --model "$tiny" --data "$work/empty.jsonl" --out "$work/n"
printf '{"input_ids": [1, 2, 99999]}\n' >"$work/ids.jsonl"
expect 3 "id beyond the vocabulary" "$worker" train --model "$tiny" --data "$work/ids.jsonl" --out "$work/n"
cp -r "$work/a" "$work/bad-adapter"
head -c 500 "$work/a/adapter_model.safetensors" >"$work/bad-adapter/adapter_model.safetensors"
expect 3 "truncated adapter" "${evaluate[@]}" --adapter "$work/bad-adapter"
expect 3 "adapter of another model" "$worker" eval --model "$tiny" --data "$tiny/clinic.jsonl" \
    --adapter "$golden/cases/gqa-tied/init"
[ ! -e "$work/n" ] || fail "a failed training wrote an adapter"

# --- a run that is stopped, killed, and resumed, to the bytes of one that was not
same_adapter() { # WHAT DIR DIR
    for file in adapter_config.json adapter_model.safetensors README.md; do
        cmp -s "$2/$file" "$3/$file" || fail "$1: $file differs"
    done
}
run=("${train[@]}" --steps 30 --batch-size 3 --grad-accum 2 --dropout 0.1 --lr 5e-3 --schedule cosine)
expect 0 "whole run" "${run[@]}" --out "$work/whole"
[ ! -e "$work/whole/checkpoints" ] || fail "a run leaves checkpoints that nobody asked for"
expect 0 "with checkpoints" "${run[@]}" --out "$work/kept" --checkpoint-every 7 --keep-checkpoints 2 --json
same_adapter "with checkpoints" "$work/whole" "$work/kept"
[ "$(wc -l <"$work/whole/metrics.jsonl")" = 30 ] || fail "not a line of metrics for each step"
says "metrics" "^\{\"step\":30,\"loss\":$number,\"lr\":$number,\"grad_norm\":$number,\"tokens\":[0-9]+,\"tokens_per_second\":$number,\"seconds\":$number\}$" "$work/whole/metrics.jsonl"
says "report" '<h2>Loss</h2>' "$work/whole/training.html"
says "checkpoint event" '^\{"event":"checkpoint","step":28,"path":".*/kept/checkpoints/step-28"\}$' "$work/out"
[ "$(ls "$work/kept/checkpoints" | sort | tr '\n' ' ')" = "step-21 step-28 " ] || fail "checkpoints: $(ls "$work/kept/checkpoints")"
expect 0 "a checkpoint is an adapter" "$worker" inspect "$work/kept/checkpoints/step-28"
expect 1 "begin over checkpoints" "${run[@]}" --out "$work/kept"
says "begin over checkpoints" '\-\-resume' "$work/err"
one_line "begin over checkpoints" 1
expect 0 "resume" "${run[@]}" --out "$work/kept" --resume
says "resume" 'going on from .*/step-28' "$work/err"
same_adapter "resume" "$work/whole" "$work/kept"
expect 2 "resume, other rate" "${run[@]}" --out "$work/kept" --resume --lr 6e-3
says "resume, other rate" '\-\-lr is 0.006 now and was 0.005' "$work/err"
expect 2 "resume, quantized" "${run[@]}" --out "$work/kept" --resume --quantize nf4
says "resume, quantized" '\-\-quantize is nf4 now and was none' "$work/err"
expect 2 "resume, other data" "${run[@]}" --out "$work/kept" --resume --data "$tiny/bank.jsonl"
says "resume, other data" 'another --data' "$work/err"
expect 2 "resume, other dropout" "${run[@]}" --out "$work/kept" --resume --dropout 0.2
cp -r "$tiny" "$work/other-model"
sed -i 's/"rms_norm_eps": 1e-05/"rms_norm_eps": 1e-06/' "$work/other-model/config.json"
expect 2 "resume, other model" "${run[@]}" --out "$work/kept" --resume --model "$work/other-model"
says "resume, other model" 'another --model' "$work/err"
expect 1 "resume an adapter without checkpoints" "${run[@]}" --out "$work/whole" --resume
same_adapter "refusals change nothing" "$work/whole" "$work/kept"
printf 'x' | dd of="$work/kept/checkpoints/step-28/optimizer.safetensors" bs=1 seek=900 conv=notrunc 2>/dev/null
expect 3 "damaged checkpoint" "${run[@]}" --out "$work/kept" --resume
[ "$(cut -d, -f1-5 "$work/kept/metrics.jsonl")" = "$(cut -d, -f1-5 "$work/whole/metrics.jsonl")" ] ||
    fail "a resumed run tells other metrics"
says "damaged checkpoint" 'step-28/optimizer.safetensors' "$work/err"
rm -r "$work/kept/checkpoints/step-28"
expect 0 "the one before it" "${run[@]}" --out "$work/kept" --resume
same_adapter "the one before it" "$work/whole" "$work/kept"

kills=0
for pause in 0.02 0.05 0.03 0.06 0.04 0.07 0.05 0.08; do
    "${run[@]}" --out "$work/killed" --checkpoint-every 1 --resume >"$work/out" 2>"$work/err" &
    pid=$!
    sleep "$pause"
    kill -KILL "$pid" 2>/dev/null && kills=$((kills + 1))
    wait "$pid" 2>/dev/null
done
expect 0 "after kill -9" "${run[@]}" --out "$work/killed" --checkpoint-every 1 --resume
same_adapter "after $kills kill -9" "$work/whole" "$work/killed"
(cd "$work" && ls -d killed.* 2>/dev/null | grep -v '^killed.tmp.run$') && fail "a killed run left something beside its directory"
(cd "$work/killed" && ls -A . checkpoints | grep -qE 'tmp|unfinished') && fail "a killed run left something unfinished"

# --- validation
valid=("${train[@]}" --valid "$tiny/bank.jsonl" --lr 2e-2 --steps 40 --targets all-linear)
expect 0 "validation" "${valid[@]}" --out "$work/valid" --eval-every 4 --json
[ "$(grep -c '"event":"validation"' "$work/out")" = 10 ] || fail "40 steps by 4 have not 10 evaluations"
says "validation event" "^\{\"event\":\"validation\",\"step\":4,\"loss\":$number,\"tokens\":[0-9]+,\"best\":true\}$" "$work/out"
says "done event with validation" "\"best_loss\":$number,\"best_step\":[0-9]+,\"stopped_early\":false\}$" "$work/out"
best=$(sed -n 's/.*"best_loss":\([0-9.]*\).*/\1/p' "$work/out")
expect 0 "eval of the best" "$worker" eval --model "$tiny" --data "$tiny/bank.jsonl" --adapter "$work/valid/best"
again=$(sed 's/.*"loss":\([0-9.]*\).*/\1/' "$work/out")
awk "BEGIN { d = $best - $again; exit !(d < 1e-4 && d > -1e-4) }" || fail "OUT/best has $again, the run said $best"
says "the card of the best" 'validation loss, the best' "$work/valid/best/README.md"
expect 0 "patience" "${valid[@]}" --out "$work/early" --eval-every 1 --patience 3 --steps 400 --keep best
says "patience" 'stopped early: no improvement in 3' "$work/err"
expect 0 "by heart" "${valid[@]}" --out "$work/heart" --eval-every 10 --steps 100
says "by heart" '^warning: the validation loss stays above' "$work/err"
[ ! -e "$work/early/best" ] || fail "--keep best leaves a best/ too"
expect 0 "an evaluation an epoch" "${valid[@]}" --out "$work/epoch" --steps 6 --json
[ "$(grep -c '"event":"validation"' "$work/out")" = 3 ] || fail "8 rows by 4: not every 2 steps"
expect 2 "no rows to evaluate" "${train[@]}" --out "$work/n" --eval-every 4
expect 2 "nothing to be patient about" "${train[@]}" --out "$work/n" --patience 4
expect 2 "no best to keep" "${train[@]}" --out "$work/n" --keep best
expect 1 "no validation file" "${train[@]}" --out "$work/n" --valid "$work/nothing.jsonl"
[ ! -e "$work/n" ] || fail "a refused training wrote an adapter"

# --- Ctrl-C
expect 0 "long run" "${run[@]}" --steps 600 --out "$work/long"
"${run[@]}" --steps 600 --out "$work/stopped" --json >"$work/out" 2>"$work/err" &
pid=$!
for _ in $(seq 100); do
    grep -q '"step"' "$work/out" && break
    sleep 0.05
done
kill -INT "$pid"
wait "$pid"
[ $? -eq 1 ] || fail "an interrupted training does not exit 1"
says "interrupted" 'stopped after step [0-9]+ of 600; saved in .*/checkpoints/step-' "$work/err"
says "how to go on" '^go on with: fedlora-worker train .* --resume$' "$work/err"
command=$(sed -n 's/^go on with: fedlora-worker train//p' "$work/err")
expect 0 "the command that it named" bash -c "'$worker' train $command"
same_adapter "the command that it named" "$work/long" "$work/stopped"

if [ "$failures" -ne 0 ]; then
    echo "$failures failures"
    exit 1
fi
echo "all as expected"
