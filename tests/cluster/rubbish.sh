#!/bin/bash
# Peers that speak rubbish at both ports, before and while a job runs: it is done all the same.
. "$(dirname "$0")/lib.sh"

federation bank clinic library

# pour PORT: bytes that are no handshake, from several connections at once
pour() {
    local i
    for ((i = 0; i < 8; i++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1" && head -c 65536 /dev/urandom >&3) 2>/dev/null &
        (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET / HTTP/1.1\r\n\r\n' >&3 && sleep 1) 2>/dev/null &
        # a ZMTP greeting that never goes on
        (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf '\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE' >&3 && sleep 2) 2>/dev/null &
    done
}

submit job.rounds=6 job.strategy=alternating train.steps=20
for ((turn = 0; turn < 5; turn++)); do
    pour $port
    pour $((port + 1))
    sleep 0.3
done
check 'the job is done' job_ends "$job" done
check 'with all sites' same "$(version "$job" 6 | value workers)" 3
check 'the coordinator is alive' healthy
check 'its log is not flooded' at_most "$(grep -c . "$work/coord.log")" 400
token=$("$coordinator" invite --dir "$work/coord" ward)
expect 0 'a site can still enrol' "$worker" join "$token" --dir "$work/ward"
the_end
