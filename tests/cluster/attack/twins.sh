#!/bin/bash
# twins.sh BUILD: two processes use copies of one site's keys. The newer session wins, the older is
# told and stays away, so that they do not flap; jobs go on and count that site once.
BUILD=${1:?build folder}
. "$(dirname "$0")/lib.sh"
ROOM=$(mktemp -d)
setup "$ROOM"
for name in bank clinic library; do
    join "$name" "$name"
    start_site "$name"
done
sleep 1
cp -r "$ROOM/bank" "$ROOM/twin"
rm -f "$ROOM/twin/lock"
start_site twin
sleep 1
LIVENESS=3s job_file alternating 3 3 20s
job=$(submit)
wait_job "$job" 60 || fail "the job does not end: $(control status --json)"
[ "$(job_state "$job")" = done ] || fail "the job is $(job_state "$job")"
[ "$(versions "$job" | cut -d' ' -f2 | tr -d '\n')" = 333 ] || fail "not three sites a round: $(versions "$job")"
grep -q session_superseded "$ROOM/serve.log" || fail "the log does not tell of the second process"
grep -q '"event":"goodbye"' "$ROOM/bank.log" || fail "the older process is not told"
[ "$(grep -c session_superseded "$ROOM/serve.log")" -le 2 ] || fail "the two flap"
stop twin KILL
no_crash
stop_all
rm -rf "$ROOM"
echo "the newer of two wins, once"
