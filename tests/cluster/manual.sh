#!/bin/bash
# The manual pages and --help name the same commands and options; the README names every command, and
# the tests that SECURITY.md names exist.
# usage: manual.sh BUILD_DIR SOURCE_DIR
set -u
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

names() { "$build/$1" ${2+"$2"} --help 2>/dev/null | awk '/^  [a-z]/ { print $1 }'; }

# "COMMAND" and "COMMAND --option" lines of one program, from --help
options_of() { # PROGRAM WORDS...
    local program=$1
    shift
    echo "$*"
    "$build/$program" "$@" --help | awk -v words="$*" '/^  --/ { print words " " $1 }'
}

for program in fedlora-coordinator fedlora-worker; do
    page=$source/deploy/man/$program.8
    for command in $(names $program); do
        if "$build/$program" "$command" --help 2>/dev/null | head -n 1 | grep -q ' COMMAND'; then
            for sub in $(names $program "$command"); do options_of $program "$command" "$sub"; done
        else
            options_of $program "$command"
        fi
        grep -Eq "\`($program )?$command" "$source/README.md" || fail "README.md does not name '$program $command'"
    done | tee "$work/all" | grep -v '^FAILED' | sort >"$work/help"
    grep '^FAILED' "$work/all" && failures=$((failures + 1))
    sed 's/\\-/-/g' "$page" | awk '
        /^\.Ss / { sub(/^\.Ss /, ""); words = $0; print words }
        /^\.It Fl / { print words " -" $3 }
        /^\.Sh FILES/ { exit }' | sort >"$work/page"
    [ -s "$work/help" ] || fail "$program --help names no command"
    diff "$work/help" "$work/page" >"$work/diff" ||
        fail "$page and --help differ (deploy/man/make writes it anew): $(head -n 5 "$work/diff")"
    if command -v mandoc >/dev/null; then
        mandoc -Tlint -W error "$page" || fail "$page is not sound"
    fi
done

# A promise in SECURITY.md that names a test names one that exists.
promised=0
for test in $(grep -o '`[a-z0-9]*\(_[a-z0-9]*\)\{3,\}`\|`[a-z_][a-z_]*\.sh`' "$source/SECURITY.md" | tr -d '`' | sort -u); do
    promised=$((promised + 1))
    case $test in
    *.sh) [ -x "$source/tests/cluster/$test" ] ;;
    *) grep -rqw "START_TEST($test)" "$source/tests/unit" ;;
    esac || fail "SECURITY.md names a test that is not there: $test"
done
[ "$promised" -gt 20 ] || fail 'SECURITY.md names hardly any test'
[ "$failures" = 0 ] && echo 'manual pages, --help and README agree'
exit $((failures > 0))
