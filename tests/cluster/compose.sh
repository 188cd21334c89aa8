#!/bin/bash
# The images and the compose cluster: what a container may do, what it says of bad mounts, the real
# glossary job, Prometheus beside it, and the chaos run. Exit 77: this machine cannot (it is said why).
# usage: compose.sh job|monitor|refusals|chaos [BUILD_FOLDER]
#   job       builds the images (of the folder's programs, if it is given), runs one round on the
#             real model, ends the cluster
#   monitor   the tiny job with Prometheus and the status page; wants the images
#   refusals  bad mounts; wants the images
#   chaos     deploy/compose/chaos, in short; wants the images
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
export FEDLORA_PROJECT=fedlora-test
me=compose
# shellcheck source=deploy/compose/lib.sh
. "$root/deploy/compose/lib.sh"
checks=0 failures=0
check() { # SENTENCE COMMAND...
    local sentence=$1
    shift
    checks=$((checks + 1))
    if "$@"; then
        echo "ok: $sentence"
    else
        failures=$((failures + 1))
        echo "FAILED: $sentence"
    fi
}
same() { [ "$1" = "$2" ] || { echo "  '$1' is not '$2'"; return 1; }; }
at_most() { [ "$1" -le "$2" ] || { echo "  $1 is more than $2"; return 1; }; }
the_end() {
    echo "$checks checks, $failures failed"
    [ "$failures" = 0 ]
    exit
}
need_docker
images_there() {
    docker image inspect $images-worker $images-coordinator $images-tools >/dev/null 2>&1 || cannot 'the images are not there'
}
ending() { # whatever comes, the cluster goes
    trap '"$root/deploy/compose/down"' EXIT
    trap 'exit 130' INT TERM
}

# --- job

size() { docker image inspect --format '{{.Size}}' "$1"; }
megabytes_above_base() { echo $((($(size "$images-$1") - $(size "$base")) / 1000000)); }
leftovers() { # of the project: containers, volumes, networks
    local filter=label=com.docker.compose.project=$project
    { docker ps -aq --filter "$filter" && docker volume ls -q --filter "$filter" && docker network ls -q --filter "$filter"; } |
        grep -c .
}
confined() { # SERVICE
    same "$(at "$1" '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.PortBindings}}')" \
        'true 10001:10001 [ALL] [no-new-privileges:true] map[]' &&
        [ "$(at "$1" '{{.HostConfig.Memory}}')" -gt 0 ] && [ "$(at "$1" '{{.HostConfig.NanoCpus}}')" -gt 0 ] &&
        [ "$(at "$1" '{{.HostConfig.PidsLimit}}')" -gt 0 ]
}
no_keys() { # IMAGE: nothing that looks like a key or an address of this run
    same "$(docker run --rm --network none --user 0:0 --entrypoint sh "$images-$1" -c \
        'find / -xdev \( -name "*.key" -o -name site.keys -o -name coordinator.conf -o -name worker.conf \) | grep -c .')" 0
}
job_test() { # [BUILD_FOLDER]
    ending
    # the unit tests were run already by who runs this; by hand, deploy/compose/up runs them too
    FEDLORA_TESTS='^cli$' "$root/deploy/compose/up" ${1:+--programs "$1"} || exit
    check "the coordinator's image is at most 60 MB above the base" at_most "$(megabytes_above_base coordinator)" 60
    check "the worker's image is at most 150 MB above the base" at_most "$(megabytes_above_base worker)" 150
    for name in coordinator worker; do check "no keys are in the image of the $name" no_keys $name; done
    for name in coordinator "${sites[@]}"; do
        check "$name may do what it needs, and no more" confined "$name"
    done
    check 'up again changes nothing' "$root/deploy/compose/up" --no-build
    check 'keys and data are for their owner alone' same \
        "$(find "$run/secrets" "$run/data" -perm /077 | grep -c .)" 0
    check 'one round of the glossary job is done' "$root/deploy/compose/job" --rounds 1 --steps 2 --rows 8 --out "$run/adapter"
    for file in adapter_config.json adapter_model.safetensors; do
        check "$file is on the host" test -s "$run/adapter/$file"
    done
    check 'the cluster ends' "$root/deploy/compose/down"
    check 'and leaves nothing' same "$(leftovers)" 0
}

# --- monitor

metric() { # PROMQL: its value, as Prometheus has it
    docker exec "$(container prometheus)" promtool query instant http://127.0.0.1:9090 "$1" 2>/dev/null |
        sed -n 's/.*=> \([^ ]*\) @.*/\1/p' | head -n 1
}
comes() { # VALUE PROMQL: within four scrapes
    within 20 same_quietly "$1" "$2" || same "$(metric "$2")" "$1"
}
same_quietly() { [ "$(metric "$2")" = "$1" ]; }
page() { # PATH [HEADER]: the status line, and what follows
    exec 3<>"/dev/tcp/127.0.0.1/$FEDLORA_HTTP_PORT" || return
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s\r\n' "$1" "${2:+$2$'\r\n'}" >&3
    timeout 10 cat <&3
    exec 3>&-
}
networks() { at "$1" '{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{end}}'; }
monitor_test() {
    images_there
    export FEDLORA_HTTP_PORT=17480 FEDLORA_PROMETHEUS_PORT=19090
    ending
    docker build -q --build-arg "BASE=$base" -f "$root/deploy/docker/Dockerfile.prometheus" \
        --network "${FEDLORA_BUILD_NETWORK:-default}" -t $images-prometheus "$root" >/dev/null 2>&1 ||
        cannot 'Prometheus cannot be installed in an image'
    "$root/deploy/compose/up" --tiny --monitor --no-build || exit
    check 'Prometheus reads the coordinator' comes 1 'up{job="fedlora-coordinator"}'
    check 'and sees four sites' comes 4 'sum(fedlora_worker_up)'
    check 'a job is done' "$root/deploy/compose/job" --rounds 2
    check 'Prometheus has its rounds' comes 2 'sum(fedlora_rounds_total{result="committed"})'
    check 'and that no job waits' comes 0 'fedlora_jobs{state="paused"}'
    check 'no alert is up' same "$(metric 'count(ALERTS{alertstate="firing"})')" ''
    local token
    token=$(printf ':%s' "$(cat "$run/http.token")" | base64 -w 0)
    check 'the page is not for everybody' grep -q '^HTTP/1.1 401' <<<"$(page /)"
    check 'and with the token it is there' grep -q '^HTTP/1.1 200' <<<"$(page / "Authorization: Basic $token")"
    for name in "${sites[@]}"; do
        check "$name is on the federation's network alone" same "$(networks "$name")" "${project}_federation "
    done
    check 'Prometheus is on its own network alone' same "$(networks prometheus)" "${project}_monitor "
    check 'the cluster ends' "$root/deploy/compose/down"
    check 'and leaves nothing' same "$(leftovers)" 0
}

# --- refusals

volume=fedlora-test-refusals
work='' key=''
# refused SENTENCE PATTERN IMAGE [docker options]: exit 3, and what it says
refused() {
    local sentence=$1 pattern=$2 image=$images-$3 said
    shift 3
    said=$(docker run --rm --network none --read-only --tmpfs /tmp --cap-drop ALL "$@" "$image" 2>&1)
    check "$sentence" same "$?" 3
    check "  and it says which file and which mode" grep -Eq -- "$pattern" <<<"$said"
}
root_in_volume() { # SCRIPT
    docker run --rm --network none --user 0:0 -v $volume:/var/lib/fedlora --entrypoint sh $images-worker -c "$1"
}
refusals_test() {
    images_there
    work=$(mktemp -d)
    trap 'rm -rf "$work"; docker volume rm -f $volume >/dev/null' EXIT
    trap 'exit 130' INT TERM
    key=$work/site.keys
    docker volume rm -f $volume >/dev/null 2>&1
    docker volume create $volume >/dev/null
    refused 'a site without its keys' 'site\.keys is missing: .* owner 10001:10001, mode 0400' worker -v $volume:/var/lib/fedlora
    refused 'a coordinator without its key' 'coordinator\.key is missing: .* 10001:10001, mode 0400' coordinator \
        -v $volume:/var/lib/fedlora
    mkdir "$work/none"
    refused 'a directory that was made where the keys were missing' 'site\.keys is not a file' worker \
        -v $volume:/var/lib/fedlora -v "$work/none:/var/lib/fedlora/site.keys"
    root_in_volume 'rmdir /var/lib/fedlora/site.keys || rm -f /var/lib/fedlora/site.keys'
    echo rubbish >"$key"
    chmod 0400 "$key"
    refused "keys of root's that the site can't read" 'site\.keys cannot be read: it is of 0:0, mode 0400;.* of 10001:10001, mode 0400' \
        worker -v $volume:/var/lib/fedlora -v "$key:/var/lib/fedlora/site.keys:ro"
    chmod 0644 "$key"
    refused 'keys that others can read' 'site\.keys is of .*mode 0644: .* must be of 10001:10001, mode 0400' \
        worker -v $volume:/var/lib/fedlora -v "$key:/var/lib/fedlora/site.keys:ro"
    root_in_volume 'chown 0:0 /var/lib/fedlora'
    refused "a volume of root's" '/var/lib/fedlora is of 0:0, mode 0700: the volume must be of 10001:10001, mode 0700' \
        worker -v $volume:/var/lib/fedlora
    root_in_volume 'chown 10001:10001 /var/lib/fedlora; chmod 0777 /var/lib/fedlora'
    refused 'a volume that others can look into' '/var/lib/fedlora has mode 0777: .* 10001:10001, mode 0700' worker \
        -v $volume:/var/lib/fedlora
    root_in_volume 'chmod 0700 /var/lib/fedlora; fedlora-worker keys --dir /tmp/s >/dev/null &&
        rm -f /var/lib/fedlora/site.keys && cp /tmp/s/site.keys /var/lib/fedlora && chown 10001:10001 /var/lib/fedlora/site.keys'
    refused 'a site without settings' '/etc/fedlora/worker\.conf is missing: .* mode 0444' worker -v $volume:/var/lib/fedlora
    check 'other commands go to the program' docker run --rm --network none $images-worker --version
}

case ${1-} in
    job) job_test "${@:2}" ;;
    monitor) monitor_test ;;
    refusals) refusals_test ;;
    chaos)
        images_there
        FEDLORA_PROJECT=$project-chaos exec "$root/deploy/compose/chaos" --no-build --rounds 4 --outage 30
        ;;
    *)
        echo 'usage: compose.sh job|monitor|refusals|chaos [BUILD_FOLDER]' >&2
        exit 2
        ;;
esac
the_end
