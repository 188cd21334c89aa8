#!/bin/bash
# twins.sh BUILD: two processes use copies of one site's keys. The newer session wins, the older is
# told and stays away for a minute, so that they do not flap; jobs go on and count that site once.
# When the newer one ends, the older comes back by itself.
BUILD=${1:?build folder}
. "$(dirname "$0")/lib.sh"
ROOM=$(mktemp -d)
setup "$ROOM"
for name in bank clinic library; do
    join "$name" "$name"
    start_site "$name"
done
wait_online bank clinic library
cp -r "$ROOM/bank" "$ROOM/twin"
rm -f "$ROOM/twin/lock"
start_site twin
logs() { grep -q "$2" "$ROOM/$1.log"; }
times() { grep -c "$2" "$ROOM/$1.log"; }
until_true 60 logs twin '"event":"connected"' || fail "the newer process gets no session"
until_true 60 logs bank '"event":"goodbye"' || fail "the older process is not told"
logs bank '"event":"goodbye".*"wait_ms":60000' || fail "the older process is not told to wait a minute"
LIVENESS=3s job_file alternating 3 3 20s
job=$(submit)
wait_job "$job" 60 || fail "the job does not end: $(control status --json)"
[ "$(job_state "$job")" = done ] || fail "the job is $(job_state "$job")"
[ "$(versions "$job" | cut -d' ' -f2 | tr -d '\n')" = 333 ] || fail "not three sites a round: $(versions "$job")"
grep -q session_superseded "$ROOM/serve.log" || fail "the log does not tell of the second process"
logs twin '"event":"update_accepted".*"job":'"$job,"'"round":3' || fail "it is not the newer one that takes part"
[ "$(times serve session_superseded)" = 1 ] || [ "$(times bank '"event":"connected"')" -gt 1 ] ||
    fail "sessions were superseded $(times serve session_superseded) times"
stop twin KILL
until_true 120 eval '[ "$(times bank "\"event\":\"connected\"")" -ge 2 ]' ||
    fail "the older process does not come back"
# its own clock tells how long it stayed away
at() { date -d "$(grep "$1" "$ROOM/bank.log" | sed -n "$2{s/.*\"ts\":\"\([^\"]*\)\".*/\1/p}")" +%s; }
away=$(($(at '"event":"connected"' 2) - $(at '"event":"goodbye"' 1)))
[ $away -ge 59 ] || fail "it stayed away for $away s only"
no_crash
stop_all
rm -rf "$ROOM"
echo "the newer of two wins, once"
