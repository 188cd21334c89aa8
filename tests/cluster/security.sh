#!/bin/bash
# Who gets in: tokens, unknown keys, revocation and return.
. "$(dirname "$0")/lib.sh"

federation bank clinic library

# --- tokens
token=$("$coordinator" invite --dir "$work/coord" ward)
expect 0 'a token enrols a site' "$worker" join "$token" --dir "$work/ward"
check 'join writes worker.conf' test -s "$work/ward/worker.conf"
check 'the keys are private' same "$(stat -c %a "$work/ward/site.keys")" 600
expect 4 'a token works once' "$worker" join "$token" --dir "$work/again"
check 'and says so' complained '.'
short=$("$coordinator" invite --dir "$work/coord" late --ttl 1s)
sleep 1.2
expect 4 'an expired token is refused' "$worker" join "$short" --dir "$work/late"
check 'and says so' complained 'expired'
expect 3 'rubbish is no token' "$worker" join fljoin1:abc --dir "$work/late"
expect 3 'a token with a wrong letter is a typing error' \
    "$worker" join "${token:0:30}$([ "${token:30:1}" = A ] && echo B || echo A)${token:31}" --dir "$work/late"
check 'a refused join leaves no worker.conf' test ! -e "$work/late/worker.conf"
expect 2 'invite without a name is a usage error' "$coordinator" invite --dir "$work/coord"
site_conf ward
site_start ward
check 'the new site comes online' within 60 online ward

# --- a key that was never enrolled
cp -r "$work/bank" "$work/stranger"
rm -rf "$work/stranger/site.keys" "$work/stranger/lock" "$work/stranger"/audit.* "$work/stranger/state" "$work/stranger/adapters"
expect 0 'a stranger makes keys' "$worker" keys --dir "$work/stranger"
identity=$(grep -o 'fl1:[A-Za-z0-9+/=]*' "$work/out")
site_start stranger
check 'the stranger is denied' within 60 logged stranger 'denied\|refused'

# --- revocation, while the stranger still tries
expect 0 'revoke' "$coordinator" roster revoke ward --dir "$work/coord"
check 'the live session of a revoked site ends' within 30 offline ward
check 'status says revoked' grep -q '"name":"ward","state":"revoked"' \
    <("$coordinator" status --dir "$work/coord" --json)
check 'the stranger ends by itself' await_end stranger 180
check 'with 4' same "$code" 4
check 'the coordinator knows no such site' same \
    "$("$coordinator" roster list --dir "$work/coord" --json | grep -c .)" 4
check 'the daemon of the revoked site ends by itself' await_end ward 180
check 'with 4' same "$code" 4
check 'and says that it was revoked' logged ward 'revoked\|refused\|denied'

# --- the same keys, once they are enrolled by hand: no restart of the coordinator
expect 0 'roster add takes its identity' "$coordinator" roster add stranger "$identity" --dir "$work/coord"
site_start stranger
check 'then it comes online' within 60 online stranger
stop stranger
identity=$("$worker" keys --dir "$work/ward" | grep -o 'fl1:[A-Za-z0-9+/=]*')
expect 0 'a revoked site is allowed again' "$coordinator" roster add ward "$identity" --dir "$work/coord"
site_start ward
check 'it comes online without a restart of the coordinator' within 60 online ward

# --- a site that is revoked while it trains; four are enough without it
# bank is held meanwhile: the round cannot have ended by then
steps=400
while :; do
    submit job.strategy=fedit job.rounds=1 train.steps=$steps cohort.select_timeout=60s \
        cohort.liveness_timeout=600s
    within 120 logged coord "\"msg\":\"train\",\"job\":$job," || fail 'the round trains'
    suspend bank
    logged bank "\"event\":\"trained\".*\"job\":$job," || break
    wake bank # it was faster than we
    job_ends "$job" done || fail 'the job that was too fast is done'
    steps=$((steps * 4))
done
expect 0 'revoke while it trains' "$coordinator" roster revoke ward --dir "$work/coord"
wake bank
check 'the job goes on without it' job_ends "$job" done
check 'three sites are in the version' same "$(version "$job" 1 | value workers)" 3
expect 1 'an unknown site cannot be revoked' "$coordinator" roster revoke nobody --dir "$work/coord"
expect 3 'a broken identity is refused' "$coordinator" roster add x fl1:abc --dir "$work/coord"
the_end
