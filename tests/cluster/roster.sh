#!/bin/bash
# What a site knows of its partners by another way than the coordinator: lists that it takes,
# identities that it pins, and what `check`, `status` and the log say of them.
. "$(dirname "$0")/lib.sh"

coordinator_init
coordinator_start
site_join bank
site=$work/bank
authority=$work/authority

# identity NAME: of a partner, whose keys are made here
identity() { "$worker" keys --dir "$work/partner-$1"; }
members() { # NAME...: the lines of a list, with this site
    local name
    printf 'bank %s\n' "$("$worker" keys --dir "$site")"
    for name in "$@"; do printf '%s %s\n' "$name" "$(identity "$name")"; done
}
sign() { # FILE NAME...
    local file=$1
    shift
    members "$@" >"$work/members.txt"
    "$worker" roster sign --dir "$authority" --list "$work/members.txt" --out "$file" >/dev/null
}
trust() { "$worker" status --dir "$site" --json | value secure_aggregation_root; }

# --- without an authority
expect 0 'check of a site without an authority' "$worker" check --dir "$site"
check 'names the mode' said '^roster +ok +roster = first-use'
check 'and whom it protects against' said 'protects against a curious coordinator only'
site_start bank
within 60 online bank || fail 'bank is online'
check 'the log says so at the start' logged bank '"event":"roster".*curious coordinator only'
check 'and so does status' same "$(trust | grep -c 'curious coordinator only')" 1
expect 3 'a list where no authority is pinned' "$worker" roster accept "$work/none.txt" --dir "$site"
check 'is told what to set' complained 'authority = fla1:'

# --- an authority
expect 0 'an authority is made' "$worker" roster init --dir "$authority" --json
key=$(value authority <"$work/out") digits=$(value fingerprint <"$work/out")
stop bank
site_conf bank "authority = $key"
expect 1 'check where the list is missing' "$worker" check --dir "$site"
check 'says what to do' said '^roster +FAILED .*roster accept FILE --dir SITE'
sign "$work/1.txt" clinic library
sign "$work/2.txt" clinic library ward
expect 0 'a list is taken' "$worker" roster accept "$work/2.txt" --dir "$site"
check 'and named with its fingerprint' said "^list 2 of authority $digits: 4 members, 0 revoked"
check 'it is kept as it was signed' cmp -s "$work/2.txt" "$site/roster.txt"
expect 0 'check then' "$worker" check --dir "$site"
check 'shows the fingerprint' said "^roster +ok +roster = authority: authority $digits, list 2: 4 members"
expect 0 'the same list once more' "$worker" roster accept "$work/2.txt" --dir "$site"
expect 4 'an older list' "$worker" roster accept "$work/1.txt" --dir "$site"
check 'is told from the one that was taken' complained 'list 1 is older than list 2'
echo 1 >"$authority/number"
sign "$work/other.txt" library
expect 4 'another list of the same number' "$worker" roster accept "$work/other.txt" --dir "$site"
check 'is named as such' complained 'says something else than the list 2'
"$worker" roster init --dir "$work/impostor" >/dev/null
"$worker" roster sign --dir "$work/impostor" --list "$work/members.txt" --out "$work/false.txt" >/dev/null
expect 4 "another authority's list" "$worker" roster accept "$work/false.txt" --dir "$site"
expect 3 'a list that nobody signed' "$worker" roster accept "$work/members.txt" --dir "$site"
check 'the list in force stays' cmp -s "$work/2.txt" "$site/roster.txt"

# --- beside a running daemon
site_start bank
within 60 online bank || fail 'bank is online'
check 'the log names the list' logged bank "\"event\":\"roster\".*$digits, list 2"
members clinic library ward | sed 's/^clinic .*/& revoked/' >"$work/members.txt"
"$worker" roster sign --dir "$authority" --list "$work/members.txt" --out "$work/3.txt" >/dev/null
expect 0 'a list from standard input' "$worker" roster accept - --dir "$site" --json <"$work/3.txt"
check 'as one object' said '^\{"number":3,'
check 'status knows it at once' same "$(trust)" "authority $digits, list 3: 3 members, 1 revoked"
stop bank

# --- taken whole or not at all
for ((n = 4; n < 24; n++)); do
    "$worker" roster sign --dir "$authority" --list "$work/members.txt" --out "$work/n.txt" >/dev/null
    "$worker" roster accept "$work/n.txt" --dir "$site" >/dev/null 2>&1 &
    pids[accept]=$!
    sleep "0.00$((n % 8))"
    kill_now accept
    "$worker" roster verify "$site/roster.txt" --authority "$key" --at-least 3 >/dev/null ||
        fail "a list taken under kill -9 is whole ($n)"
done
expect 0 'after kills the newest list is taken' "$worker" roster accept "$work/n.txt" --dir "$site"
expect 4 'and none before it' "$worker" roster accept "$work/3.txt" --dir "$site"
cp "$work/3.txt" "$site/roster.txt"
expect 1 'an older list put in place by hand' "$worker" check --dir "$site"
check 'is not believed' said '^roster +FAILED .*list 3 is older than list 2[0-9]'

# --- pins
site_conf bank 'roster = pinned'
expect 1 'check without pins' "$worker" check --dir "$site"
check 'says that they are missing' said '^roster +FAILED roster = pinned: 0 pinned partners; a cohort needs 3'
expect 0 'a partner is pinned' "$worker" roster pin clinic "$(identity clinic)" --dir "$site"
check 'and said to be' complained '^clinic is pinned, 1 in all'
expect 0 'another' "$worker" roster pin library "$(identity library)" --dir "$site" --json
check 'with --json as an object' said '^\{"name":"library","state":"pinned","pins":2\}$'
expect 0 'check then' "$worker" check --dir "$site"
check 'counts them' said '^roster +ok +roster = pinned: 2 pinned partners'
expect 4 'another identity for a pinned name' "$worker" roster pin clinic "$(identity ward)" --dir "$site"
check 'is told the way' complained 'roster unpin clinic'
expect 4 'a pinned identity under another name' "$worker" roster pin ward "$(identity clinic)" --dir "$site"
expect 3 'an identity that is none' "$worker" roster pin ward fl1:ward --dir "$site"
expect 0 'a pin is taken away' "$worker" roster unpin clinic --dir "$site"
expect 1 'and is then not there' "$worker" roster unpin clinic --dir "$site"
check 'one line a partner' same "$(cat "$site/pins.txt")" \
    "$(printf 'fedlora-pins-v1\nlibrary %s' "$(identity library)")"
check 'for nobody else to read' same "$(stat -c %a "$site/pins.txt")" 600
exec 9>"$site/state/trust.lock"
flock 9
expect 1 'while another process has the files' "$worker" roster pin ward "$(identity ward)" --dir "$site"
check 'it is said' complained 'held by another process'
exec 9>&-
expect 1 'pins where no site is' "$worker" roster pin ward "$(identity ward)" --dir "$work/nowhere"
check 'make none' test ! -e "$work/nowhere"

# --- partners that are known
site_conf bank 'known_sites = clinic' 'min_known = 2'
expect 3 'more known partners than are named' "$worker" run --dir "$site"
check 'with its line' complained 'worker.conf:[0-9]+: \[policy\] min_known: 2 is more than the 1'
site_conf bank 'roster = authority'
expect 3 'an authority without its key' "$worker" run --dir "$site"
check 'with its line too' complained 'worker.conf:[0-9]+: \[policy\] roster'
"$worker" roster pin clinic "$(identity clinic)" --dir "$site" 2>/dev/null
site_conf bank 'roster = pinned' 'known_sites = library,ward' 'min_known = 2'
expect 1 'known partners that are not pinned' "$worker" check --dir "$site"
check 'are missed' said 'min_known = 2, but 1 of known_sites are there'
"$worker" roster pin ward "$(identity ward)" --dir "$site" 2>/dev/null
expect 0 'and with them all is well' "$worker" check --dir "$site"
the_end
