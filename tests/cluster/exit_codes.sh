#!/bin/bash
# Every exit code of the contract: 0 done, 1 failed, 2 usage, 3 bad input, 4 refused, 5 timed out.
. "$(dirname "$0")/lib.sh"

one_line() { at_most "$(grep -c . "$work/err")" "${1:-2}"; }

# --- init
choose_port
expect 2 'init without a directory' "$coordinator" init
expect 0 'init' "$coordinator" init --dir "$work/coord" --listen "tcp://127.0.0.1:$port"
for file in coordinator.conf; do check "init writes $file" test -s "$work/coord/$file"; done
expect 1 'init where one is' "$coordinator" init --dir "$work/coord"
check 'init binds nothing' eval "! taken $port"
expect 1 'serve without a directory there' "$coordinator" serve --dir "$work/nothing"
expect 2 'serve with an unknown option' "$coordinator" serve --dir "$work/coord" --fast
expect 0 'init on every address' "$coordinator" init --dir "$work/wide" --listen "tcp://0.0.0.0:$port"
expect 2 'invite without a reachable public address' "$coordinator" invite --dir "$work/wide" bank
check 'it says what to set' complained 'public'

# --- words
expect 0 'version' "$coordinator" --version
check 'version on stdout' said '[0-9]+\.[0-9]+'
expect 0 'version of the worker' "$worker" --version
expect 2 'no command' "$coordinator"
expect 2 'an unknown command' "$coordinator" statsu
check 'names the nearest' complained 'status'
expect 2 'an unknown subcommand' "$coordinator" job summit
check 'names it' complained "unknown command 'summit'"
expect 0 'template' "$coordinator" job template
check 'the template has a job section' said '^\[job\]'

# --- job files
job_file "$work/good.conf"
expect 0 'a job is queued without a daemon' "$coordinator" job submit "$work/good.conf" --dir "$work/coord" --json
check 'with --json as an object' said '^\{"job":1\}$'
check 'it says that the job waits for sites' complained 'note: .cohort. min_workers = [0-9]+, but sites that are enrolled: 0'
refuse() { # SENTENCE PATTERN WORDS...
    local sentence=$1 pattern=$2
    shift 2
    job_file "$work/bad.conf" "$@"
    expect 3 "$sentence" "$coordinator" job submit "$work/bad.conf" --dir "$work/coord"
    check "$sentence: $pattern" complained "$pattern"
    check "$sentence: one line" one_line
}
refuse 'an unknown key' 'rounds' job.ronds=3
check 'with its line' complained 'bad.conf:[0-9]+'
refuse 'a value out of range' 'rounds' job.rounds=0
refuse 'a word for a number' 'steps' train.steps=many
refuse 'an unknown strategy' 'strategy' job.strategy=best
refuse 'a broken hash' 'sha256' model.sha256=abc
expect 3 'a job file that is not there' "$coordinator" job submit "$work/nothing.conf" --dir "$work/coord"
job_file "$work/on.conf" privacy.secure_aggregation=on cohort.min_workers=2
expect 4 'secure aggregation over two sites' "$coordinator" job submit "$work/on.conf" --dir "$work/coord"

# --- backup
expect 0 'a backup without a daemon' "$coordinator" backup --dir "$work/coord" --out "$work/copy" --json
check 'it says what it wrote' said '"bytes":[0-9]+,"files":[0-9]+,"jobs":[0-9]+,"versions":0'
expect 1 'a backup over one' "$coordinator" backup --dir "$work/coord" --out "$work/copy"
expect 1 'a backup of nothing' "$coordinator" backup --dir "$work/nothing" --out "$work/copy2"
expect 2 'a backup to nowhere' "$coordinator" backup --dir "$work/coord"
expect 1 'a backup below what is not there' "$coordinator" backup --dir "$work/coord" --out "$work/no/copy"
expect 0 'the copy is a coordinator' "$coordinator" job list --dir "$work/copy"
check 'nothing is left beside it' test -z "$(ls -d "$work"/copy*.tmp.* "$work/copy2" 2>/dev/null)"

# --- things that are not there
expect 1 'an unknown job' "$coordinator" job show 99 --dir "$work/coord"
expect 1 'cancel of an unknown job' "$coordinator" job cancel 99 --dir "$work/coord"
expect 1 'adapters of an unknown job' "$coordinator" adapters list --job 99 --dir "$work/coord"
expect 1 'export of an unknown version' "$coordinator" adapters export --job 1 --version 9 \
    --out "$work/x" --dir "$work/coord"
check 'nothing is written' test ! -e "$work/x"
expect 1 'revoke of an unknown site' "$coordinator" roster revoke nobody --dir "$work/coord"
expect 3 'a broken identity' "$coordinator" roster add bank nonsense --dir "$work/coord"
expect 1 'health without a daemon' "$coordinator" health --dir "$work/coord"
expect 0 'cancel without a daemon' "$coordinator" job cancel 1 --dir "$work/coord"
check 'says what became of the job' complained 'job 1 is cancelled'
expect 0 'status without a daemon' "$coordinator" status --dir "$work/coord" --json
expect 0 'roster list without a daemon' "$coordinator" roster list --dir "$work/coord"

# --- two daemons on one directory
coordinator_start
expect 1 'a second daemon on the same directory' "$coordinator" serve --dir "$work/coord"
expect 1 'another coordinator on the same port' "$coordinator" serve --dir "$work/copy"
check 'it says that the port is taken' complained 'another program has this port'
expect 0 'health with a daemon' "$coordinator" health --dir "$work/coord"
site_join bank
site_start bank
within 60 online bank || fail 'bank is online'
expect 1 'a second daemon at the same site' "$worker" run --dir "$work/bank"
expect 0 'a dry run' "$worker" check --dir "$work/bank"
job_file "$work/other.conf" "model.sha256=$(printf '%064d' 7)" privacy.secure_aggregation=on
expect 1 'a dry run against a job with another model' "$worker" check --dir "$work/bank" --job "$work/other.conf"
check 'names the model' said "^model +FAILED model 'tiny' here has manifest [0-9a-f]{64}, the job wants 0+7$"
check 'and blames no data' test -z "$(grep '^data' "$work/out")"
token=$("$coordinator" invite --dir "$work/coord" late)
stop bank
stop coord
expect 5 'join without a coordinator' "$worker" join "$token" --dir "$work/late"

# --- the site
expect 2 'run without a directory' "$worker" run
expect 1 'run where no site is' "$worker" run --dir "$work/nowhere"
expect 1 'status where no site is' "$worker" status --dir "$work/nowhere"
expect 0 'status of a site' "$worker" status --dir "$work/bank" --json
check 'as one object' same "$(grep -c . "$work/out")" 1
check 'a site that has all it needs is warned of nothing' test -z "$(grep -o '"warnings"' "$work/out")"
check 'nor was its daemon' same "$(events bank '"event":"no_\(models\|data\)')" 0
sed -i '/^tiny = /d; /^path = /d' "$work/bank/worker.conf"
site_start bank
check 'a daemon without a model says so, and where to write it' \
    within 20 logged bank '"level":"warn","event":"no_models","msg":"no model .*every job will be refused.*\[models\].*bank/worker.conf"'
check 'and without data' \
    within 20 logged bank '"level":"warn","event":"no_data","msg":"no training data .*every job will be refused.*\[data\].*bank/worker.conf"'
stop bank
check 'in one line each' same "$(events bank '"event":"no_\(models\|data\)')" 2
expect 0 'status of such a site' "$worker" status --dir "$work/bank"
check 'says it too' same "$(grep -c '^warning  *no .*every job will be refused' "$work/out")" 2
expect 0 'also as JSON' "$worker" status --dir "$work/bank" --json
check 'as a list' said '"warnings":\["no model .*","no training data .*"\]'
site_conf bank
expect 3 'a token from stdin that is none' "$worker" join - --dir "$work/late" <<<'hello'
echo hello >"$work/token"
expect 3 'the name of the file that a token is in' "$worker" join "$work/token" --dir "$work/late"
check 'it says how to give it' complained 'join - --dir .*/late < .*/token'
sed -i 's/^threads = .*/threads = lots/' "$work/bank/worker.conf"
expect 3 'a broken worker.conf' "$worker" run --dir "$work/bank"
check 'with its line' complained 'worker.conf:[0-9]+'
site_conf bank 'max_rnak = 4'
expect 3 'an unknown key in worker.conf' "$worker" run --dir "$work/bank"
check 'with the nearest' complained 'max_rank'
chmod 644 "$work/bank/site.keys"
site_conf bank
expect 4 'keys that others can read' "$worker" run --dir "$work/bank"
check 'it says what to do' complained 'chmod 600'
the_end
