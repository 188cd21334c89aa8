#!/bin/bash
# The coordinator's disk fills while updates are spooled: a clear error, and once there is room
# again the job is done. Needs root and the right to mount; skipped (77) without.
[ -n "${FL_MOUNTED-}" ] || {
    [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null || { echo 'skipped: cannot mount here'; exit 77; }
    FL_MOUNTED=yes exec unshare -m "$0" "$@"
}
. "$(dirname "$0")/lib.sh"

mkdir "$work/disk"
mount -t tmpfs -o size=24m none "$work/disk" || { echo 'skipped: cannot mount here'; exit 77; }
mkdir "$work/disk/coord"
ln -s "$work/disk/coord" "$work/coord.link"
choose_port
rmdir "$work/disk/coord"
"$coordinator" init --dir "$work/disk/coord" --listen "tcp://127.0.0.1:$port" || exit 1
ln -s "$work/disk/coord" "$work/coord"
coordinator_start
for name in bank clinic library; do site_join $name; done
site_start bank clinic library
for name in bank clinic library; do within 60 online $name || fail "$name is online"; done

submit job.rounds=2 job.strategy=fedit lora.targets=all-linear ranks.default=16
check 'a job with room on the disk is done' job_ends "$job" done
expected=$(sha_of "$job" 2)

submit job.rounds=2 job.strategy=fedit lora.targets=all-linear ranks.default=16 train.steps=60 job.seed=8
within 120 logged coord "\"msg\":\"train\",\"job\":$job,\"round\":1," || fail 'round 1 trains'
dd if=/dev/zero of="$work/disk/fill" bs=64k 2>/dev/null
check 'the coordinator says that the disk is full' within 60 logged coord 'No space left\|disk is full'
check 'the coordinator is alive' runs coord
kill_now coord
"$coordinator" serve --dir "$work/coord" >>"$work/coord.log" 2>&1 &
pids[coord]=$!
sleep 2
check 'one that starts on a full disk serves, or waits for room' runs coord
sleep 2
rm "$work/disk/fill"
check 'with room again the job goes on' within 240 job_over "$job"
job_is "$job" paused && "$coordinator" job resume "$job" --dir "$work/coord" >/dev/null 2>&1
check 'and is done' job_ends "$job" done
check 'with all sites' same "$(version "$job" 2 | value workers)" 3
expect 0 'the audit log holds' "$coordinator" audit verify --dir "$work/coord"

submit job.rounds=2 job.strategy=fedit lora.targets=all-linear ranks.default=16
check 'the first job again is done' job_ends "$job" done
check 'with the bytes of before' same "$(sha_of "$job" 2)" "$expected"
kill_now coord
the_end
