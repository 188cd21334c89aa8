#!/bin/bash
# The audit logs of both sides: what they say, that they agree, that tampering shows, and that a
# public key is all that an outsider needs. Keys and core dumps are kept from others.
. "$(dirname "$0")/lib.sh"

verify_coord=("$coordinator" audit verify --dir) verify_site=("$worker" audit verify --dir)
log_of() { # NAME EVENT: its lines of the audit log
    grep "\"event\":\"$2\"" "$work/$1/audit.log"
}
count_of() { log_of "$@" | grep -c .; }

log_has() { [ "$(count_of "$1" "$2")" -ge "$3" ]; } # NAME EVENT TIMES
federation bank clinic library
if [ -z "${FEDLORA_COREDUMP-}" ]; then
    check 'a daemon of the coordinator leaves no core dumps' \
        grep -Eq '^Max core file size +0 +0' "/proc/${pids[coord]}/limits"
    check 'nor does a site' grep -Eq '^Max core file size +0 +0' "/proc/${pids[bank]}/limits"
fi
submit job.rounds=2
check 'a job is done' job_ends "$job" done

# --- what stands there
expect 0 'the log of a running coordinator holds' "${verify_coord[@]}" "$work/coord"
check 'and is signed' said 'the chain holds and is signed'
check 'by a key that is known' test "$(grep -c 'compare it' "$work/out")" = 0
for site in bank clinic library; do
    check "$site has its last version" within 60 log_has $site version_kept 2
    expect 0 "the log of $site holds while it runs" "${verify_site[@]}" "$work/$site"
    check "$site wrote down that it joined" same "$(log_of $site joined | value name)" $site
    check "$site took the offers of two rounds and of the last evaluation" \
        test "$(count_of $site offer_accepted)" -ge 3
    check "what $site sent is what the coordinator took from it" same \
        "$(log_of $site update_sent | grep -o '"sha256":"[0-9a-f]*"' | sort -u)" \
        "$(log_of coord update_accepted | grep "\"worker\":\"$site\"" | grep -o '"sha256":"[0-9a-f]*"' | sort -u)"
    check "$site heard that it was taken" same "$(count_of $site update_accepted)" "$(count_of $site update_sent)"
    check "$site kept the version that the coordinator committed" same \
        "$(log_of $site version_kept | grep '"version":2,' | value sha256)" "$(sha_of "$job" 2)"
done
check 'the coordinator wrote down who was enrolled, with the keys' same \
    "$(log_of coord site_enrolled | grep '"worker":"bank"' | grep -o 'fl1:[^"]*')" \
    "$("$worker" keys --dir "$work/bank" | grep -o 'fl1:.*')"
check 'what was submitted' same "$(log_of coord job_submitted | value job)" "$job"
check 'what each round made' same "$(log_of coord round_committed | grep '"round":2,' | value sha256)" "$(sha_of "$job" 2)"
check 'and of what sum' same "$(log_of coord round_committed | grep '"round":2,' | value sum_sha256)" \
    "$(version "$job" 2 | value sum_sha256)"
check 'and that the job ended' same "$(log_of coord job_ended | value state)" done
expect 0 'export' "$coordinator" adapters export --dir "$work/coord" --out "$work/adapter"
expect 0 'roll back' "$coordinator" adapters rollback 1 --dir "$work/coord"
expect 0 'revoke' "$coordinator" roster revoke library --dir "$work/coord"
for event in version_exported rolled_back site_revoked; do
    check "$event stands there" same "$(count_of coord $event)" 1
done

# --- a refusal, with its reason
site_join ward 'max_rounds = 1'
site_start ward
within 60 online ward || fail 'ward comes online'
submit job.name=second job.rounds=2 cohort.min_workers=2 cohort.select_timeout=3s
within 120 log_has ward offer_refused 1
check 'a site writes down what it refused' test "$(log_of ward offer_refused | value permanent)" = yes
check 'and why' test -n "$(log_of ward offer_refused | value reason)"
"$coordinator" job cancel "$job" --dir "$work/coord" >/dev/null 2>&1
check 'the second job is over' within 60 job_over "$job"
for name in bank clinic ward; do stop $name; done

# --- what a site's own people are shown of it: while its daemon runs, after a restart, without one
in_log=$(log_of bank update_sent | grep -o '"sha256":"[0-9a-f]*"')
shows_all() { # SENTENCE
    "$worker" status --dir "$work/bank" --json >"$work/out"
    check "$1: status shows what left the site" same "$(sed 's/.*"sent":\[\([^]]*\)\].*/\1/' "$work/out" |
        grep -o '"sha256":"[0-9a-f]*"')" "$in_log"
    check "$1: with bytes" said '"bytes":[1-9][0-9]*,"sha256"'
    check "$1: and the newest adapter" said "\"adapter\":\"$work/bank/adapters/1\",\"adapter_job\":1,\"adapter_version\":2"
}
shows_all 'a daemon that has stopped'
expect 0 'status in words' "$worker" status --dir "$work/bank"
check 'names adapter, version and job' said "^adapter +$work/bank/adapters/1 \(version 2 of job 1\)$"
check 'and says when what left' said '^sent .*: [0-9]+ bytes, sha256 [0-9a-f]{64}, 20[0-9-]+T[0-9:.]+Z$'
site_start bank
within 60 online bank || fail 'bank is online again'
shows_all 'a daemon that was started again'
check 'its status file has it too' grep -q '"adapter":"[^"]*/adapters/1"' "$work/bank/status.json"
kill_now bank
rm "$work/bank/status.json"
shows_all 'a site whose status file is lost'

# --- an outsider with a copy
hex=$("${verify_site[@]}" "$work/bank" --json | value key)
identity=$("$worker" keys --dir "$work/bank" | grep -o 'fl1:.*')
other=$("$worker" keys --dir "$work/clinic" | grep -o 'fl1:.*')
copy() { # a fresh copy of bank's log in $work/copy
    rm -rf "$work/copy"
    mkdir "$work/copy"
    cp "$work/bank/audit.log" "$work/bank/audit.log.head" "$work/copy"
}
copy
lines=$(wc -l <"$work/bank/audit.log")
expect 0 'a copy verifies with the key in hexadecimal' "${verify_site[@]}" "$work/copy" --key "$hex"
expect 0 'and with the identity, by the other program too' "${verify_coord[@]}" "$work/copy" --key "$identity"
expect 0 'and without: it says whose it is' "${verify_site[@]}" "$work/copy"
check 'and that this must be compared' said "$hex .*compare it"
expect 0 'as JSON' "${verify_site[@]}" "$work/copy" --key "$hex" --json
check 'JSON has the lines' same "$(value lines <"$work/out")" "$lines"
check 'the last hash' same "$(value hash <"$work/out")" "$(tail -n 1 "$work/copy/audit.log" | head -c -1 | sha256sum | cut -d ' ' -f 1)"
check 'and the times' same "$(value last <"$work/out")" "$(tail -n 1 "$work/copy/audit.log" | value ts)"
expect 3 'it is not the log of another' "${verify_site[@]}" "$work/copy" --key "$other"
check 'and the line is named' complained 'audit.log:1: .*another key'
expect 3 'a key that is none is refused' "${verify_site[@]}" "$work/copy" --key 1234

# tampered SENTENCE LINE SED-SCRIPT: a changed copy is found out
tampered() {
    copy
    sed -i "$3" "$work/copy/audit.log"
    expect 3 "$1" "${verify_site[@]}" "$work/copy" --key "$identity"
    check 'and the line is named' complained "audit.log:$2:"
}
tampered 'a changed line shows' 3 '3s/"round":[0-9]*/"round":7/'
tampered 'a removed line shows' 4 4d
tampered 'the first line too' 1 1d
tampered 'the end that was cut off too' "$lines" '$d'
tampered 'an inserted line shows' 4 3p
tampered 'two lines that changed places show' 3 '3{h;d};4G'
expect 3 'and as JSON' "${verify_site[@]}" "$work/copy" --json
check 'with the line' same "$(value broken_line <"$work/out")" 3
copy
rm "$work/copy/audit.log.head"
expect 3 'without its head the end of a log cannot be trusted' "${verify_site[@]}" "$work/copy" --key "$identity"
expect 1 'no log is no log' "${verify_site[@]}" "$work/adapter"

# --- a site whose log was cut does not carry on as if nothing had been
cp "$work/bank/audit.log" "$work/kept.log"
sed -i '$d' "$work/bank/audit.log"
expect 3 'a log that was cut at its end is not continued' "$worker" run --dir "$work/bank"
check 'and it says what to do' complained 'move it and its .head away'
cp "$work/kept.log" "$work/bank/audit.log"
site_start bank
check 'with its own log it comes online' within 60 online bank
stop bank

# --- what a crash leaves: the line before its head
cp "$work/bank/audit.log.head" "$work/kept.head"
mkdir "$work/old"
cp -r "$work/clinic/." "$work/old"
tail -n 1 "$work/old/audit.log" | head -c 40 >>"$work/old/audit.log"
expect 0 'a line that a crash tore is no tampering' "${verify_site[@]}" "$work/old"
check 'and it says so' said 'no sign of tampering'

# --- logs of before: unsigned
rm -rf "$work/copy"
mkdir "$work/copy"
previous=$(printf '0%.0s' {1..64})
for i in 1 2; do
    line="{\"seq\":$i,\"ts\":\"2026-01-01T00:00:0$i.000Z\",\"event\":\"x\",\"prev\":\"$previous\"}"
    printf '%s\n' "$line" >>"$work/copy/audit.log"
    previous=$(printf '%s' "$line" | sha256sum | cut -d ' ' -f 1)
done
expect 0 'a log without signatures verifies' "${verify_coord[@]}" "$work/copy"
check 'as such' said 'NOT signed'
expect 3 'but not as that of a key' "${verify_coord[@]}" "$work/copy" --key "$identity"
stop coord
cp "$work/copy/audit.log" "$work/coord/audit.log"
rm "$work/coord/audit.log.head"
expect 0 'it is continued' "$coordinator" invite --dir "$work/coord" newcomer
expect 0 'by signed lines' "${verify_coord[@]}" "$work/coord" --json
check 'that vouch for what was there' same "$(value unsigned_lines <"$work/out")/$(value lines <"$work/out")" 2/4

# --- a key that others could replace
chmod 775 "$work/bank"
expect 4 'a site whose directory others can write does not run' "$worker" run --dir "$work/bank"
check 'and says what to do' complained 'chmod go-w'
chmod 700 "$work/bank"
the_end
