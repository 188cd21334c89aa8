# lib.sh - what up, job, chaos and down share: the project's names, docker-compose in either version,
# and what is asked of the coordinator. A script sets $me (its name) and sources this file.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=${FEDLORA_DIR:-$root/.demo} # downloads and runs, as deploy/demo keeps them
project=${FEDLORA_PROJECT:-fedlora}
run=$dir/compose-$project
base=${FEDLORA_BASE:-debian:bookworm-slim}
images=${FEDLORA_IMAGES:-fedlora}
sites=(foldoc jargon devil vera)
home=/var/lib/fedlora # in the containers
export FEDLORA_RUN=$run FEDLORA_BASE=$base COMPOSE_PROJECT_NAME=$project
export DOCKER_CLI_HINTS=false COMPOSE_IGNORE_ORPHANS=1
umask 077

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}
cannot() { # what this machine lacks: exit 77, which the tests count as skipped
    printf '%s: %s\n' "$me" "$*" >&2
    exit 77
}
cannot_fetch() { cannot "$@"; }
quietly() { # LOG COMMAND...: what it says goes to the run's log, its end is shown if it fails
    local log=$run/$1
    shift
    "$@" >>"$log" 2>&1 || {
        tail -n 15 "$log" >&2
        return 1
    }
}
within() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.3
    done
}
field() { sed -n "s/.*\"$1\": *\(\"[^\"]*\"\|[^\",}]*\).*/\1/p" | head -n 1 | tr -d '"'; }

need_docker() {
    command -v docker >/dev/null || cannot 'docker is not there'
    docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
        cannot 'no Docker daemon answers here, or not to this user'
    if docker compose version >/dev/null 2>&1; then
        compose_program=(docker compose)
    elif command -v docker-compose >/dev/null; then
        compose_program=(docker-compose)
    else
        cannot 'neither `docker compose` nor docker-compose is there'
    fi
}
compose() {
    local files=(-f "$root/deploy/compose/docker-compose.yml")
    [ ! -f "$run/monitor" ] || files+=(-f "$root/deploy/compose/monitor.yml")
    "${compose_program[@]}" "${files[@]}" "$@" </dev/null
}
container() { # SERVICE: its id, empty if there is none
    docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$project" \
        --filter "label=com.docker.compose.service=$1" | head -n 1
}
at() { docker inspect --format "$2" "$(container "$1")" 2>/dev/null; } # SERVICE FORMAT
healthy() { [ "$(at "$1" '{{.State.Health.Status}}')" = healthy ]; }

# A program out of its image, without network, in a container that leaves nothing.
once() { # IMAGE [docker options --] ARGUMENTS...
    local image=$images-$1 options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    docker run --rm -i --network none --log-driver none --read-only --tmpfs /tmp:mode=1777 --cap-drop ALL \
        --security-opt no-new-privileges:true "${options[@]}" "$image" "$@"
}
# What belongs to the containers' user is made, and removed, as root in a container: whoever may
# start containers need not be root.
in_run() { # SCRIPT ARGUMENTS...: in the run's directory
    docker run --rm --network none --log-driver none --user 0:0 --cap-drop ALL --cap-add CHOWN \
        --cap-add DAC_OVERRIDE --cap-add FOWNER -v "$run:/srv/run" -w /srv/run --entrypoint sh \
        "$images-worker" -c "$1" sh "${@:2}"
}
coordinator() { # COMMAND...: at the coordinator that runs
    docker exec "$(container coordinator)" fedlora-coordinator "$@" --dir $home
}
online() { # SITE
    coordinator status --json 2>/dev/null | grep -Eq "\"name\":\"$1\",\"state\":\"(online|training)\""
}
job_state() { coordinator job show "$1" --json 2>/dev/null | field state; }
job_over() { case $(job_state "$1") in done | failed | cancelled | paused) ;; *) return 1 ;; esac; }
versions() { # JOB: how many the coordinator has
    coordinator adapters list --job "$1" --json 2>/dev/null | grep -c '"version":[1-9]'
}
logs() { # SERVICE: all that its containers said
    docker logs "$(container "$1")" 2>&1
}

job_file() { # RATE ROUNDS STEPS LENGTH [LINE]...: on stdout; masks are on, three of the four must reach the end
    cat <<END
[job]
name = $kind
rounds = $2
strategy = alternating
seed = ${seed:-7}
[model]
name = base
sha256 = $(cat "$run/manifest")
[lora]
targets = default
alpha = 16
[ranks]
default = 8
[train]
steps = $3
batch_size = 8
seq_len = $4
lr = $1
[cohort]
min_workers = 3
round_timeout = 30m
END
    shift 4
    [ $# = 0 ] || printf '%s\n' "$@"
}
submit() { # what job_file takes: the job's number in $job
    job_file "$@" >"$run/job.conf"
    job=$(docker exec -i "$(container coordinator)" sh -c \
        "cat >/tmp/job.conf && fedlora-coordinator job submit /tmp/job.conf --dir $home" <"$run/job.conf") ||
        die 'the job was not taken'
}
