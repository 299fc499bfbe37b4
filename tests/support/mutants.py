"""Safety rules, each broken on purpose. `CLUSTER_LOCK_MUTANT=name pytest -p support.mutants ...` runs tests on broken
code; `tests/test_mutants` expects that they fail. A process that a test starts is broken by `module`."""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster_lock import clock, values

CHOSEN = "CLUSTER_LOCK_MUTANT"
"""The name of the mutant, in the environment."""


def module(name: str) -> tuple[str, ...]:
    """Python's arguments that run this module, broken if this process is."""
    return ("-m", "support.mutants", name) if CHOSEN in os.environ else ("-m", name)


def counts_from_the_reply() -> None:
    from cluster_lock import watchdog

    watchdog.deadline_after = lambda sent, timing: clock.now() + timing.ttl - timing.margin


def trusts_twice_the_ttl() -> None:
    from cluster_lock import watchdog

    watchdog.deadline_after = lambda sent, timing: sent + 2 * timing.ttl - timing.margin


def revives_after_the_deadline() -> None:
    from cluster_lock.watchdog import Watchdog

    renew = Watchdog._renew

    async def believing(self: Watchdog) -> bool:
        look, self._look = self._look, lambda: None  # type: ignore[method-assign]
        try:
            return await renew(self)
        finally:
            self._look = look  # type: ignore[method-assign]

    Watchdog._renew = believing  # type: ignore[method-assign]


def ignores_the_watch() -> None:
    from cluster_lock.watch import Watch

    async def deaf(self: Watch) -> None:
        await asyncio.Event().wait()

    Watch.run = deaf  # type: ignore[method-assign]


def trusts_the_watch_alone() -> None:
    from cluster_lock.session import Session

    async def no_read(self: Session, epoch: int) -> None:
        return None

    Session._confirm = no_read  # type: ignore[method-assign]


def does_not_settle() -> None:
    from cluster_lock.aiogram import term_work

    term_work.settle_time = lambda term, timing: 0.0  # type: ignore[attr-defined]


def starts_a_command_without_settling() -> None:
    from cluster_lock.keeper import job

    job.settle_time = lambda term, timing: 0.0  # type: ignore[attr-defined]


def dispatches_after_the_deadline() -> None:
    from cluster_lock.aiogram import handling, term_work

    term_work.may_dispatch = lambda term: True
    handling.may_start = lambda term: True


def offset_is_the_highest() -> None:
    from cluster_lock.aiogram import window

    def highest(settled: Any, order: Any, otherwise: int | None) -> int | None:
        return max((known.update_id + 1 for known in (*settled, *order) if known.finished), default=otherwise)

    window.lowest_unfinished = highest


def ids_only_grow() -> None:
    from cluster_lock.aiogram import window

    window.is_new_numbering = lambda update_ids, sent: False


def memory_guards_by_the_lease() -> None:
    from cluster_lock.drivers.memory import MemoryBackend

    def by_lease(self: MemoryBackend, grant: values.Grant, key: str) -> bool:
        stands = self._keys.get(key)
        return stands is not None and stands.lease == grant.lease.id

    MemoryBackend._stands = by_lease  # type: ignore[method-assign]


def etcd_guards_by_the_lease() -> None:
    from cluster_lock.drivers._etcd_requests import Requests

    Requests.stands = lambda self, grant: [self.held(grant.name, grant.lease.id)]  # type: ignore[method-assign]


def consul_guards_by_the_lease() -> None:
    _without("check-index")


def etcd_transfers_unchecked() -> None:
    from cluster_lock.drivers._etcd_requests import Requests

    held = Requests.held

    def unchecked(self: Requests, name: str, lease_id: str) -> Any:
        if name.startswith(values.STANDBY):
            kind = self.rpc.Compare
            return kind(result=kind.GREATER, target=kind.MOD, key=self.key("no such key"), mod_revision=-1)
        return held(self, name, lease_id)

    Requests.held = unchecked  # type: ignore[method-assign]


def consul_transfers_unchecked() -> None:
    _without("check-session")


def _without(verb: str) -> None:
    from cluster_lock.drivers._consul_link import Link

    transact = Link.transact

    async def loose(self: Link, client: Any, *operations: Any) -> Any:
        kept = [one for one in operations if one["Verb"] != verb]
        return await transact(self, client, *kept)

    Link.transact = loose  # type: ignore[method-assign]


def guard_waits_for_a_blocked_loop() -> None:
    """The guard looks at the loop, not at the work: whoever swallows a cancellation goes on."""
    from cluster_lock.hold import Hold

    lose = Hold.lose

    def trusting(self: Hold, reason: str) -> None:
        lose(self, reason)
        self._guard.done()  # the loop runs, or we were not here

    Hold.lose = trusting  # type: ignore[method-assign]


def gives_the_lock_away_while_work_runs() -> None:
    from cluster_lock import election

    async def hasty(self: Any, term: Any, held: Any, work: Any) -> None:
        self._terms.pop(held.name, None)
        await held.end(term.handover)

    election.Election._finish = hasty  # type: ignore[method-assign]


def hands_over_to_whoever_stands_there() -> None:
    """No invitation: the oldest contender gets the lock, dead or alive."""
    from cluster_lock import contest, invitation

    async def oldest(session: Any, hold: Any, willing: Any = None, to: str | None = None) -> Any:
        contenders = await invitation._contenders(session, hold)
        return contenders[0] if contenders else None

    contest.invite = oldest  # type: ignore[attr-defined]


def keeps_what_nobody_asked_for() -> None:
    from cluster_lock.reconcile import Reconciler

    async def keep(self: Reconciler, entry: values.Entry) -> None:
        return None

    Reconciler.release = keep  # type: ignore[method-assign]


def takes_what_is_being_released() -> None:
    from cluster_lock.reconcile import Reconciler

    Reconciler.is_over = lambda self, grant: False  # type: ignore[method-assign]


def says_released_too_early() -> None:
    from cluster_lock.hold import Hold

    Hold._settled = property(lambda self: True)  # type: ignore[assignment]


def leads_on_any_token() -> None:
    from cluster_lock.session import Session

    Session.saw = lambda self, fencing_token: None  # type: ignore[method-assign]


def heeds_requests_of_any_term() -> None:
    from cluster_lock.asking import Ask
    from cluster_lock.hold import Hold

    def heed(self: Hold, entry: Any) -> None:
        self._ask = Ask.of(entry)
        if self._ask is not None:
            self._asked.set()

    Hold.asked = heed  # type: ignore[method-assign]


def frees_a_broken_lock_at_once() -> None:
    from cluster_lock import quarantine

    async def no_wait(*_: Any) -> bool:
        return True

    quarantine._wait = no_wait  # type: ignore[assignment]


def believes_a_word_from_before() -> None:
    """A contender record says "stopped", however old it is."""
    from cluster_lock import quarantine

    def stopped(breaking: quarantine.Breaking, moved: values.Entry, standby: values.Entry) -> bool:
        record = values.Record.from_bytes(standby.record or b"")
        return record is not None and standby.lease == breaking.entry.lease and breaking.name in record.names

    quarantine.has_stopped = stopped


def frees_the_lock_when_the_command_has_ended() -> None:
    """However much of what it started is left."""
    from cluster_lock.keeper import child

    _another_init("            sweep()\n            return statuses", "            return statuses")
    child.sweep = lambda: None  # type: ignore[attr-defined]


def leaves_everything_to_a_keeper_that_is_gone() -> None:
    _another_init('if not said or b"kill" in lines:', 'if not said: os._exit(1)\n        if b"kill" in lines:')


def _another_init(what: str, instead: str) -> None:
    from cluster_lock.keeper import child

    source = child.INIT.read_text()
    assert what in source
    child.INIT = Path(tempfile.mkdtemp(prefix="cluster-lock-")) / "keeper" / "init.py"
    child.INIT.parent.mkdir()
    child.INIT.write_text(source.replace(what, instead))


def trusts_the_thread_under_the_loop() -> None:
    """There is no kernel timer under the guard's thread."""
    from cluster_lock import guard

    setattr(guard, "open_timer", lambda: None)  # noqa: B010


def reads_the_pipe_in_the_loop() -> None:
    from cluster_lock.keeper.worker import PipeContest

    look = PipeContest._look
    PipeContest._look = lambda self, line: self._tell_loop(look, self, line)  # type: ignore[method-assign]


def leaves_overdue_work_alone() -> None:
    from cluster_lock.keeper.worker_process import WorkerProcess

    WorkerProcess._overdue = lambda self, name: None  # type: ignore[method-assign]


def leaves_a_wedged_worker_alone() -> None:
    from cluster_lock.keeper.worker_process import WorkerProcess

    WorkerProcess.is_silent = lambda self, limit: False  # type: ignore[method-assign]


def counts_the_silence_of_a_start() -> None:
    from cluster_lock.keeper.worker_process import WorkerProcess

    WorkerProcess.asks = property(lambda self: True, lambda self, asks: None)  # type: ignore[assignment]


def leaves_a_deaf_worker_alone() -> None:
    from cluster_lock.keeper.worker_process import WorkerProcess

    WorkerProcess.deaf = None  # type: ignore[assignment]


def handles_what_restarted_again() -> None:
    from cluster_lock.aiogram.crashes import CrashNotes

    CrashNotes.current = lambda self: None  # type: ignore[method-assign]


def keeps_what_a_replaced_program_held() -> None:
    from cluster_lock.keeper.worker_process import WorkerProcess

    WorkerProcess._execs = lambda self, handovers: None  # type: ignore[method-assign]


def forgets_threads() -> None:
    from cluster_lock.threads import Threads

    Threads.note = lambda self, work: None  # type: ignore[method-assign]


def names_the_instance_alone() -> None:
    from cluster_lock.keeper import slots

    slots._name = lambda instance, lock: instance


def starts_the_same_bot_twice() -> None:
    from cluster_lock.aiogram import start

    start._hold_slots = lambda stack, settings, bots: []


MUTANTS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in list(globals().values())
    if callable(made) and getattr(made, "__module__", "") == __name__ and not made.__name__.startswith("_")
    if made is not module
}


def pytest_configure() -> None:
    MUTANTS[os.environ[CHOSEN]]()


if __name__ == "__main__":
    pytest_configure()
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
