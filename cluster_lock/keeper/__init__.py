"""The host-local parent that owns the session of a worker process.

The worker does the work, the keeper holds the lock for it: a worker that crashes costs milliseconds, one that is wedged
is killed before its lease could end, and nothing that it started outlives the lock. POSIX only; nothing of a worker
that left its process group is found elsewhere than on Linux.
"""
