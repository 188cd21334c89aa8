#!/bin/bash
# HTTP of real daemons: what monitors and people see before, during and after a job; wrong tokens,
# methods and hosts, requests that are too large or too slow, while the job goes on.
. "$(dirname "$0")/lib.sh"

web=0
choose_web() { # a port for HTTP beside those of the federation
    local own=$port
    choose_port
    web=$port port=$own
}

# ask METHOD PATH [HEADER]...: $work/reply has head and body, $work/body the body; $code the status
ask() {
    local method=$1 path=$2 line host='Host: localhost' more=''
    shift 2
    for line in "$@"; do
        case $line in Host:*) host=$line ;; *) more+="$line"$'\r\n' ;; esac
    done
    : >"$work/reply"
    { exec 3<>"/dev/tcp/127.0.0.1/$web"; } 2>/dev/null || { code=none; return 0; }
    # in a process of its own: who is refused early may not get to its end
    (printf '%s %s HTTP/1.1\r\n%s\r\n%s\r\n' "$method" "$path" "$host" "$more" >&3) 2>/dev/null
    timeout 20 cat <&3 >"$work/reply" 2>/dev/null
    exec 3<&- 3>&-
    sed '1,/^\r$/d' "$work/reply" >"$work/body"
    code=$(sed -n '1s/^HTTP\/1.1 \([0-9]*\).*/\1/p' "$work/reply")
}
answers() { # CODE METHOD PATH [HEADER]...
    local wanted=$1
    shift
    ask "$@"
    same "$code" "$wanted"
}
metric() { # NAME{LABELS}: its value
    ask GET /metrics
    sed -n "s/^$1 //p" "$work/body"
}
metric_is() { [ "$(metric "$1")" = "$2" ] || { echo "  $1 is '$(metric "$1")', not '$2'"; return 1; }; }
soon() { within 15 "$@" >/dev/null || "$@"; }
body_has() { grep -Fq -- "$1" "$work/body" || { echo "  no '$1'"; return 1; }; }
some_train() { [ "$(metric 'fedlora_workers{state="training"}')" != 0 ]; }
well_formed() { # the text format of metrics: what promtool would say, as far as grep can
    ask GET /metrics
    ! grep -Ev '^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+.0-9eNaInf]+)$' "$work/body"
}

# --- off unless it is asked for, and closed unless it is safe
coordinator_init
choose_web
coordinator_start
ask GET /healthz
check 'nothing is served unless [http] listen is set' same "$code" none
stop coord
conf=$work/coord/coordinator.conf
sed -i "s|^# listen = 127.0.0.1:7480|listen = 0.0.0.0:$web|" "$conf"
expect 4 'other machines are not served without a token' "$coordinator" serve --dir "$work/coord"
check 'the reason names what to set' complained 'token_file'
sed -i 's|^# token_file = |token_file = |' "$conf"
expect 1 'nor with a token file that is not there' "$coordinator" serve --dir "$work/coord"
token=correct-horse-battery-staple
printf '%s\n' "$token" >"$work/coord/http.token"
chmod 644 "$work/coord/http.token"
expect 4 'nor with one that others can read' "$coordinator" serve --dir "$work/coord"
chmod 600 "$work/coord/http.token"
coordinator_start
bearer="Authorization: Bearer $token"
check 'with the token it is served' answers 200 GET /metrics "$bearer"
check 'the token as a password too' answers 200 GET /metrics \
    "Authorization: Basic $(printf 'me:%s' "$token" | base64)"
check 'without it not' answers 401 GET /metrics
check 'a browser is told how to ask' grep -q '^WWW-Authenticate: Basic' "$work/reply"
check 'nor with a wrong one' answers 401 GET /metrics 'Authorization: Bearer correct-horse-battery-stapld'
check 'nor with one in the address' answers 401 GET "/metrics?token=$token"
check 'paths that are none are not told from others' answers 401 GET /no-such-page
check 'probes need none' answers 200 GET /healthz
check 'what was refused is logged' logged coord '"event":"http_refused"' 3
check 'the token is in no log' same "$(grep -c "$token" "$work/coord.log")" 0
stop coord
sed -i "s|^listen = 0.0.0.0:$web|listen = 127.0.0.1:$web|; s|^token_file|# token_file|" "$conf"

# --- before a job
sed -i "s|^# liveness = 30s|liveness = 3s|" "$conf" # and three heartbeats in it
coordinator_start
for name in bank clinic library; do site_join $name; done
# a site shows itself where its own file says so
coordinator_web=$web
choose_web
printf '[http]\nlisten = 127.0.0.1:%s\n' $web >>"$work/bank/worker.conf"
site_web=$web web=$coordinator_web
at_site() { # COMMAND...: with what a site answers
    local web=$site_web
    "$@"
}
site_start bank clinic library
for name in bank clinic library; do within 60 online $name || fail "$name comes online"; done
check 'it is healthy' answers 200 GET /healthz
check 'and ready' answers 200 GET /readyz
check 'three sites are online' soon metric_is 'fedlora_workers{state="online"}' 3
check 'each by name' metric_is 'fedlora_worker_up{worker="bank"}' 1
check 'no round was committed' metric_is 'fedlora_rounds_total{result="committed"}' 0
check 'they enrolled here' metric_is 'fedlora_joins_total{result="accepted"}' 3
check 'the text is well-formed' well_formed
check 'answers are not stored' grep -qi '^cache-control: no-store' "$work/reply"
check 'and allow nothing from elsewhere' grep -qi "^content-security-policy: default-src 'none'" "$work/reply"

check 'the page says that there is no job' answers 200 GET /
check 'and names the sites' body_has clinic
check 'style and script are of the same origin' answers 200 GET /app.css
check 'both' answers 200 GET /app.js
check 'there is no other page' answers 404 GET /admin
check 'nor a job that is not there' answers 404 GET /jobs/1
check 'nor anything of the directory' answers 404 GET /adapters/../../coordinator.key

check 'the site that serves HTTP is ready' soon at_site answers 200 GET /readyz
check 'and its page waits for a job' at_site answers 200 GET /
check 'in words' body_has 'No job yet'

# --- during a job, and while it is attacked
submit job.rounds=4 train.steps=3000 job.name=glossaries
check 'the job is seen running' soon metric_is 'fedlora_jobs{state="running"}' 1
check 'and its round' soon metric_is 'fedlora_job_round{job_id="1",job_name="glossaries"}' 1
check 'sites are seen training' soon some_train
ask GET /
check 'the page shows the job' body_has 'Job 1: glossaries'
check 'and the phase' body_has 'aria-current="step"'
check 'the same is there as JSON' answers 200 GET /status.json
check 'with its state' same "$(head -n 1 "$work/body" | grep -o '"state":"running"' | head -n 1)" '"state":"running"'
site_trains() { [ "$(metric 'fedlora_site_stage{stage="training"}')" = 1 ]; }
check 'the site shows that it trains' within 60 at_site site_trains
check 'on its page too' at_site answers 200 GET /
check 'with the job' body_has 'Job 1: glossaries'
check 'it has no pages of the coordinator' at_site answers 404 GET /jobs/1
check 'POST is refused there too' at_site answers 405 POST /
# --- the same on a terminal
expect 0 'top prints once where there is no terminal' "$coordinator" top --dir "$work/coord"
check 'job, round and phase' said '^job 1   round [0-9] of 4   '
check 'and the sites' said '^bank +(online|training) '
check 'without any control codes' test "$(tr -d '\n -~' <"$work/out" | wc -c)" = 0
expect 0 'and when it is told to' "$coordinator" top --once --dir "$work/coord"
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    (
        export TERM=xterm
        timeout -s INT 3 script -qec "$coordinator top --interval 200ms --dir $work/coord" "$work/typescript" </dev/null
    ) >/dev/null 2>&1
    check 'on a terminal it draws again and again' test "$(grep -ac 'fedlora coordinator: running' "$work/typescript")" -ge 3
else
    echo 'skipped: this machine gives no pseudo-terminal'
fi
expect 1 'top of no coordinator is an error' "$coordinator" top --dir "$work/none"
check 'POST is refused' answers 405 POST / 'Content-Length: 0'
check 'DELETE is refused' answers 405 DELETE /metrics
check 'a foreign host is refused' answers 421 GET / 'Host: evil.example'
check 'a long path is refused' answers 414 GET "/$(printf '%0300d' 0)"
ask GET / "X-Long: $(printf '%020000d' 0)"
check 'a request that is too large is refused' test "$code" != 200
late=$(metric fedlora_http_late_total)
for i in 1 2 3 4 5 6 7 8; do # each says a byte now and then, for longer than it is given
    (
        exec 4<>"/dev/tcp/127.0.0.1/$web" || exit
        printf 'GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ' >&4
        for ((n = 0; n < 60; n++)); do printf y >&4 || exit; sleep 0.25; done
    ) 2>/dev/null &
    slow[i]=$!
done
within 20 test "$(metric 'fedlora_http_connections')" -ge 8 || fail 'the slow ones are connected'
check 'others are answered meanwhile' answers 200 GET /healthz
ended_late() { [ "$(metric fedlora_http_late_total)" -ge $((late + 8)) ]; }
check 'who is too slow is cut off' within 30 ended_late
wait "${slow[@]}"
check 'the job goes on and is done' job_ends "$job" done

# --- after it
check 'four rounds were committed' soon metric_is 'fedlora_rounds_total{result="committed"}' 4
check 'and the last adapter evaluated' soon metric_is 'fedlora_rounds_total{result="evaluated"}' 1
check 'version 4 is current' metric_is 'fedlora_job_version{job_id="1",job_name="glossaries"}' 4
loss=$(version "$job" 4 | value eval_loss)
check 'its held-out loss is told' same \
    "$(printf %.6f "$(metric 'fedlora_held_out_loss{job_id="1",job_name="glossaries"}')")" "$(printf %.6f "$loss")"
ask GET /jobs/1
check 'the page of the job has its curve' body_has 'aria-label="Held-out loss by round"'
check 'and its versions' body_has "$(sha_of "$job" 4 | cut -c 1-12)"
ask GET /adapters/1/4/adapter_model.safetensors
check 'a version can be had' same "$(sha256sum <"$work/body" | cut -d ' ' -f 1)" "$(sha_of "$job" 4)"
"$coordinator" adapters export --dir "$work/coord" --out "$work/peft" 2>/dev/null
ask GET /adapters/1/4/adapter_config.json
check 'and its configuration, as export writes it' cmp "$work/body" "$work/peft/adapter_config.json"
check 'but no other' answers 404 GET /adapters/1/5/adapter_model.safetensors
check 'the audit log knows who had it' within 5 grep -q '"event":"version_downloaded","job":1,"version":4,"address":"127.0.0.1"' "$work/coord/audit.log"
expect 0 'and holds' "$coordinator" audit verify --dir "$work/coord"
check 'the site tells what left it' at_site soon metric_is fedlora_site_updates_total 5
check 'and what it trained' at_site metric_is fedlora_site_rounds_trained_total 4
check 'its text is well-formed' at_site well_formed
at_site ask GET /
check 'its page has its own held-out curve' body_has 'aria-label="Held-out loss here, by version"'
sent=$(sed -n 's/.*"event":"update_sent".*"sha256":"\([0-9a-f]\{12\}\).*/\1/p' "$work/bank.log" | tail -n 1)
check 'and the hash of what left last' body_has "$sent"
check 'updates were counted' metric_is fedlora_updates_total 15
check 'bytes too' test "$(metric fedlora_received_bytes_total)" -gt "$(metric fedlora_update_bytes_total)"
check 'and the time of each phase' test "$(metric 'fedlora_round_phase_seconds_count{phase="train"}')" -ge 4
check 'the text is still well-formed' well_formed
stop bank
check 'the site ends with 0' same "$code" 0
check 'a site that went is down' soon metric_is 'fedlora_worker_up{worker="bank"}' 0

# --- a loop that hangs is told by who still answers: the HTTP thread is stopped with it, so at once
stop coord
check 'the coordinator ends with 0' same "$code" 0
ask GET /healthz
check 'and answers no more' same "$code" none
the_end
