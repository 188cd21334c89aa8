#!/bin/bash
# coordinator.sh BUILD [SCENARIO]: one honest site meets a coordinator that asks for what no site may
# give. The site must refuse with a reason, stay alive and small, and write nothing outside.
BUILD=${1:?build folder}
. "$(dirname "$0")/lib.sh"
ROOM=$(mktemp -d)
trap stop_all EXIT
LIMIT_KIB=${LIMIT_KIB:-$((160 * 1024))}
nm -C "$WORKER" 2>/dev/null | grep -q __asan && LIMIT_KIB=$((1200 * 1024))
PORT=$(free_port)
# the keys and the site's worker.conf as init and join write them; the real daemon then goes away
setup "$ROOM"
join victim bank
stop coord TERM
MANIFEST=$("$WORKER" inspect --json "$MODEL" | sed -n 's/.*"manifest":"\([0-9a-f]*\)".*/\1/p')
start_site victim
"$BUILD/tests/attack_coordinator" "tcp://127.0.0.1:$PORT" "$ROOM/coord/coordinator.key" "$MODEL" \
    "$MANIFEST" ${2:+"$2"} || fail "$(tail -n 8 "$ROOM/victim.log")"
alive victim || fail "the site died: $(tail -n 5 "$ROOM/victim.log")"
rss=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/${PID[victim]}/status")
[ "$rss" -lt "$LIMIT_KIB" ] || fail "the site has grown to $rss KiB"
[ -z "$(find "$ROOM/victim/adapters" -name adapter_config.json)" ] || fail "a false version was kept"
[ -z "$(find "$ROOM" -newer "$ROOM/victim.join" -type f ! -path "$ROOM/victim/*" ! -path "$ROOM/coord/*" ! -name 'victim.*' ! -name 'serve.*')" ] ||
    fail "a file outside the site's directory"
stop victim TERM
no_crash
rm -rf "$ROOM"
echo "withstood; peak $rss KiB"
