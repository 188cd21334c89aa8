#!/bin/bash
# Jobs through a bad network (proxy.c): connections that are cut, slow, silent, and bytes that are
# flipped or lost. CURVE refuses what was spoiled and the link is made anew; the job is done with the
# bytes of an undisturbed run. A transfer that is cut goes on where it was: at most one chunk a cut is
# sent again.
# usage: network.sh BUILD_DIR [SEED]
. "$(dirname "$0")/lib.sh"
seed=${2:-1}
sites=(bank clinic library)
chunk=262144

# --- the proxy of a site: its commands go to a descriptor of its own

declare -A orders=() listens=()
proxy_start() { # NAME: stands between NAME and the coordinator from now on
    local to=$port descriptor
    choose_port
    listens[$1]=$port
    port=$to
    mkfifo "$work/$1.orders"
    "$build/tests/proxy" "${listens[$1]}" "$port" "$seed" <"$work/$1.orders" >"$work/$1.proxy" 2>&1 &
    pids[proxy.$1]=$!
    exec {descriptor}>"$work/$1.orders"
    orders[$1]=$descriptor
    within 20 grep -q listening "$work/$1.proxy" || fail "the proxy of $1 listens"
    sed -i "s|^address = .*|address = tcp://127.0.0.1:${listens[$1]}|" "$work/$1/worker.conf"
}

tells=0
# order NAME COMMAND...: returns once it holds
order() {
    local name=$1 before
    shift
    before=$(grep -c '^ok: \|^not understood: ' "$work/$name.proxy")
    echo "$*" >&"${orders[$name]}"
    within 20 eval "[ \$(grep -c '^ok: \|^not understood: ' '$work/$name.proxy') -gt $before ]"
    tail -n 1 "$work/$name.proxy" | grep -q "^ok: $*" || fail "the proxy of $name takes '$*'"
}
told() { # NAME KEY: one of the proxy's numbers, as of now
    tells=$((tells + 1))
    order "$1" stats "t$tells"
    grep "\"stats\":\"t$tells\"" "$work/$1.proxy" | value "$2"
}
happened() { # NAME KIND TIMES
    [ "$(told "$1" "$2")" -ge "$3" ]
}
everyone() { # COMMAND...
    local name
    for name in "${sites[@]}"; do order "$name" "$@"; done
}

# --- a model whose adapters are megabytes; its weights are those of the tiny one, over and over

declare -i wide_offset=0
wide_tensor() { # NAME ROWS [COLUMNS]
    local bytes=$((4 * $2 * ${3:-1}))
    printf '"%s":{"dtype":"F32","shape":[%s],"data_offsets":[%d,%d]},' "$1" "$2${3:+,$3}" \
        $wide_offset $((wide_offset + bytes)) >>"$work/wide/header"
    wide_offset+=$bytes
}

wide_model() {
    local layer name head
    mkdir "$work/wide"
    cp "$tiny"/*.json "$tiny/chat_template.jinja" "$work/wide/"
    sed -e 's/"head_dim": .*/"head_dim": 32,/' -e 's/"hidden_size": .*/"hidden_size": 256,/' \
        -e 's/"intermediate_size": .*/"intermediate_size": 512,/' \
        -e 's/"num_attention_heads": .*/"num_attention_heads": 8,/' \
        -e 's/"num_key_value_heads": .*/"num_key_value_heads": 4,/' \
        "$tiny/config.json" >"$work/wide/config.json"
    wide_tensor model.embed_tokens.weight 320 256
    for layer in 0 1; do
        name=model.layers.$layer
        wide_tensor $name.input_layernorm.weight 256
        wide_tensor $name.post_attention_layernorm.weight 256
        wide_tensor $name.self_attn.q_proj.weight 256 256
        wide_tensor $name.self_attn.k_proj.weight 128 256
        wide_tensor $name.self_attn.v_proj.weight 128 256
        wide_tensor $name.self_attn.o_proj.weight 256 256
        wide_tensor $name.mlp.gate_proj.weight 512 256
        wide_tensor $name.mlp.up_proj.weight 512 256
        wide_tensor $name.mlp.down_proj.weight 256 512
    done
    wide_tensor model.norm.weight 256
    head="{$(sed 's/,$//' "$work/wide/header")}"
    while [ $((${#head} % 8)) != 0 ]; do head+=' '; done
    printf '%b%s' "$(printf '\\x%02x\\x%02x\\0\\0\\0\\0\\0\\0' $((${#head} % 256)) $((${#head} / 256)))" \
        "$head" >"$work/wide/model.safetensors"
    for ((layer = 0; layer <= wide_offset; layer += 65536)); do tail -c 65536 "$tiny/model.safetensors"; done |
        head -c $wide_offset >>"$work/wide/model.safetensors"
    rm "$work/wide/header"
}

# --- the federation, each site behind a proxy of its own

wide_model
coordinator_init
coordinator_start
for name in "${sites[@]}"; do
    site_join "$name"
    proxy_start "$name"
done
site_start "${sites[@]}"
for name in "${sites[@]}"; do within 60 online "$name" || fail "$name comes online"; done

# All three must be in each round, so every one is the same sum.
small=(job.strategy=fedit cohort.min_workers=3 cohort.liveness_timeout=3s)
submit "${small[@]}"
check 'the undisturbed job is done' job_ends "$job" done
expected=$(sha_of "$job" 2)

one_more() { # SENTENCE: a job of the same bytes
    submit "${small[@]}"
    within 240 job_over "$job"
    if ! job_is "$job" done || [ "$(sha_of "$job" 2)" != "$expected" ]; then
        fail "$1: job $job is $(job_state "$job"), version 2 is $(sha_of "$job" 2), undisturbed $expected"
    fi
    for name in "${sites[@]}"; do
        trained_once "$job" "$name" || fail "$1: $name trained a round of job $job twice"
    done
}

# jobs_through SENTENCE KIND TIMES: jobs until that has befallen each site so often
jobs_through() {
    local before=$failures name turn again=yes
    for ((turn = 0; turn < 30 && failures == before; turn++)); do
        again=''
        for name in "${sites[@]}"; do happened "$name" "$2" "$3" || again=yes; done
        [ -n "$again" ] || break
        one_more "$1"
    done
    [ -z "$again" ] || fail "$1: $2 has not befallen each site $3 times"
    check "$1: every job is done, with the bytes of the undisturbed one" same "$before" "$failures"
}

everyone delay 10 40
one_more 'everything arrives late'
check 'a slow network gives the same bytes' same "$(sha_of "$job" 2)" "$expected"
everyone delay 0 0
for kind in cut reset flip skip hold; do
    everyone $kind random 9000
    jobs_through "a network that does '$kind' at random" $kind 3
    everyone $kind random 0
done

# --- silence: nothing passes, and no connection ends

submit "${small[@]}" train.steps=200
within 120 logged bank "\"event\":\"offer\".*\"job\":$job," || fail 'the round is offered to bank'
order bank stall 3600000
check 'a site that hears nothing says so' within 60 logged bank '"event":"coordinator_silent"'
check 'the coordinator gives its session up' within 60 offline bank
order bank stall 0
check 'once it can be heard again the job is done' job_ends "$job" done
check 'with all sites' same "$(version "$job" 2 | value workers)" 3
check 'and nothing trained twice' trained_once "$job" bank

# --- all at once

everyone delay 0 20
for kind in cut reset flip skip; do everyone $kind random 40000; done
jobs_through 'cuts, delay and spoiled bytes together' flip 7
for kind in cut reset flip skip; do everyone $kind random 0; done
everyone delay 0 0

# --- transfers of several chunks, cut in the middle

large=(model.name=wide "model.sha256=$(manifest "$work/wide")" lora.targets=all-linear job.rounds=1
    ranks.default=64 train.steps=1 job.strategy=fedit cohort.min_workers=3 evaluate.every=0)

# transfer JOB WORDS...: bytes that bank sent and received for it in $up and $down
transfer() {
    local from_up from_down
    from_up=$(told bank up) from_down=$(told bank down)
    submit "${large[@]}" "$@"
    check "the large job $job is done" job_ends "$job" done
    within 60 logged bank "\"event\":\"adapter_kept\".*\"job\":$job,\"version\":1," ||
        fail 'bank has the adapter'
    up=$(($(told bank up) - from_up)) down=$(($(told bank down) - from_down))
}

transfer # a start adapter that a site has is not fetched again: from the second job on all are alike
transfer
plain_up=$up plain_down=$down expected=$(sha_of "$job" 1)
echo "  undisturbed: $up bytes up, $down bytes down"
check 'the update has several chunks' at_most $((4 * chunk)) "$plain_up"
check 'and so has the version' at_most $((4 * chunk)) "$plain_down"

# What a cut may cost beside one chunk: a handshake, HELLO and what is said again after it.
session=16384
for direction in up down; do
    [ $direction = up ] && whole=$plain_up || whole=$plain_down
    for part in 2 3 5; do # in the middle of a chunk, at several places
        cuts=$(told bank cut)
        order bank cut $direction $((whole * part / 7))
        transfer
        check "a cut at $part/7 of what goes $direction" same $(($(told bank cut) - cuts)) 1
        [ $direction = up ] && extra=$((up - plain_up)) || extra=$((down - plain_down))
        echo "  $extra bytes more $direction"
        check 'costs at most one chunk' at_most $extra $((chunk + session))
        check 'the adapter is the same' same "$(sha_of "$job" 1)" "$expected"
    done
done
check 'the sites are the processes of before' eval 'runs bank && runs clinic && runs library'
check 'and so is the coordinator' runs coord
expect 0 'the audit log holds' "$coordinator" audit verify --dir "$work/coord"
for name in "${sites[@]}"; do
    stop "$name"
    exec {orders[$name]}>&-
done
the_end
