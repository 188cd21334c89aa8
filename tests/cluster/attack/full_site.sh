#!/bin/bash
# full_site.sh BUILD: a site's disk is full when its delta is to be kept. It says so, the job waits
# for it instead of giving up, and with room again every round has all three. Needs root: else 77.
BUILD=${1:?build folder}
[ -n "${FL_MOUNTED-}" ] || {
    [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null || { echo 'skipped: cannot mount here'; exit 77; }
    FL_MOUNTED=yes exec unshare -m "$0" "$@"
}
. "$(dirname "$0")/lib.sh"
ROOM=$(mktemp -d)
setup "$ROOM"
for name in bank clinic library; do join "$name" "$name"; done
mkdir "$ROOM/small"
mount -t tmpfs -o size=1m none "$ROOM/small" || { echo 'skipped: cannot mount here'; exit 77; }
cp -r "$ROOM/bank/." "$ROOM/small/"
rm -rf "$ROOM/bank"
ln -s "$ROOM/small" "$ROOM/bank"
for name in bank clinic library; do start_site "$name"; done
wait_online bank clinic library
dd if=/dev/zero of="$ROOM/small/fill" bs=4k 2>/dev/null
job_file alternating 2 3 60s
job=$(submit)
told() { control job show "$job" --json | grep -q '"code":"disk"'; }
until_true 60 told || fail "the operator is not told of the full disk"
[ "$(job_state "$job")" = running ] || fail "the job is $(job_state "$job"), not waiting for the site"
rm "$ROOM/small/fill"
wait_job "$job" 90 || fail "the job does not end: $(control status --json)"
[ "$(job_state "$job")" = done ] || fail "the job is $(job_state "$job")"
[ "$(versions "$job" | cut -d' ' -f2 | tr -d '\n')" = 33 ] || fail "not three sites a round: $(versions "$job")"
no_crash
stop_all
umount "$ROOM/small"
rm -rf "$ROOM"
echo "a full disk delays, and loses nothing"
