"""Safety rules, each broken on purpose. `CLUSTER_LOCK_MUTANT=name pytest -p support.mutants ...` runs tests on broken
code; `tests/test_mutants` expects that they fail. A process that a test starts is broken by `module`."""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster_lock import clock, values

CHOSEN = "CLUSTER_LOCK_MUTANT"
"""The name of the mutant, in the environment."""


def module(name: str) -> tuple[str, ...]:
    """Python's arguments that run this module, broken if this process is."""
    return ("-m", "support.mutants", name) if CHOSEN in os.environ else ("-m", name)


def _driver_part(name: str) -> Any:
    return import_module(f"cluster_lock.drivers.{name}")


def counts_from_the_reply() -> None:
    from cluster_lock.lease import watchdog

    watchdog.deadline_after = lambda sent, timing: clock.now() + timing.ttl - timing.margin


def trusts_twice_the_ttl() -> None:
    from cluster_lock.lease import watchdog

    watchdog.deadline_after = lambda sent, timing: sent + 2 * timing.ttl - timing.margin


def revives_after_the_deadline() -> None:
    from cluster_lock.lease.watchdog import Watchdog

    renew = Watchdog._renew

    async def believing(self: Watchdog) -> bool:
        look, self._look = self._look, lambda: None  # type: ignore[method-assign]
        try:
            return await renew(self)
        finally:
            self._look = look  # type: ignore[method-assign]

    Watchdog._renew = believing  # type: ignore[method-assign]


def ignores_the_watch() -> None:
    from cluster_lock.session.watch import Watch

    async def deaf(self: Watch) -> None:
        await asyncio.Event().wait()

    Watch.run = deaf  # type: ignore[method-assign]


def trusts_the_watch_alone() -> None:
    from cluster_lock.session.upkeep import Upkeep

    async def no_read(self: Upkeep, epoch: int) -> None:
        return None

    Upkeep.confirm = no_read  # type: ignore[method-assign]


def does_not_settle() -> None:
    from cluster_lock.election import Election

    async def at_once(self: Election, held: Any, stop: asyncio.Event) -> None:
        return None

    Election._settle = at_once  # type: ignore[method-assign]


def trusts_any_release() -> None:
    values.Origin.settles = property(lambda self: self is values.Origin.FOUND_FREE)  # type: ignore[assignment,method-assign]


def does_not_settle_in_a_block() -> None:
    values.Timing.settle_left = lambda self, origin, since: 0.0  # type: ignore[method-assign]


def notices_no_set_back() -> None:
    """An answer that shows an older state is old news, whenever it was asked for."""
    from cluster_lock.session.watch import Watch

    take = Watch.take
    Watch.take = lambda self, entries, asked=-1: take(self, entries)  # type: ignore[method-assign]


def believes_a_late_answer() -> None:
    """What is older than what is known proves a set-back, also if it was asked for before."""
    from cluster_lock.session.watch import Watch

    take = Watch.take
    Watch.take = lambda self, entries, asked=-1: take(self, entries, 2**60)  # type: ignore[method-assign]


def leads_on_any_token_that_it_is_given() -> None:
    """What was found under our lease is not compared with what is known."""
    from cluster_lock.session.found import Found

    evidence = Found.evidence

    def of_what_was_acquired(self: Found, name: str, token: int, known: Any) -> Any:
        return None if self.was_there else evidence(self, name, token, known)

    Found.evidence = of_what_was_acquired  # type: ignore[method-assign]


def writes_its_farewell_before_its_own_token() -> None:
    from cluster_lock.session import Hold
    from cluster_lock.session.tokens import Tokens

    release, note = Hold._release, Tokens.note
    Tokens.note = lambda self, name, token: None  # type: ignore[method-assign]

    async def too_late(self: Hold, handover: Any) -> Any:
        ended = await release(self, handover)
        note(self._context.identity.tokens, self.name, self.fencing_token)
        return ended

    Hold._release = too_late  # type: ignore[method-assign]


def wipes_the_evidence() -> None:
    from cluster_lock.session import Lock

    farewell = Lock._farewell
    Lock._farewell = lambda self, found, evidence=None: farewell(self, found)  # type: ignore[method-assign]


def believes_a_release_that_is_not_confirmed() -> None:
    from cluster_lock.session.touched import Touched

    Touched.note_unreleased = lambda self, grant, farewell: None  # type: ignore[method-assign]


def forgets_what_a_release_was_to_leave() -> None:
    from cluster_lock.session.touched import Touched

    Touched.farewell = lambda self, grant: None  # type: ignore[method-assign]


def reads_what_is_in_doubt_with_what_it_holds() -> None:
    from cluster_lock.session.upkeep import Upkeep

    confirm = Upkeep.confirm

    async def of_all(self: Upkeep, epoch: int) -> None:
        await self._context.watch.read(self._context.touched.unsure)
        await confirm(self, epoch)

    Upkeep.confirm = of_all  # type: ignore[method-assign]


def forgets_what_nobody_could_look_at() -> None:
    from cluster_lock.session.touched import Touched

    def in_doubt(self: Touched, key: str) -> None:
        self.unsure.add(key)

    Touched._note_doubt = in_doubt  # type: ignore[method-assign]


def looks_no_longer_than_it_follows() -> None:
    from cluster_lock.session.reconcile import Reconciler

    async def no_sweep(self: Reconciler) -> None:
        return None

    Reconciler.sweep = no_sweep  # type: ignore[method-assign]


def stands_by_under_its_name_alone() -> None:
    from cluster_lock.session import contender

    contender.contender_key = lambda record: values.STANDBY + record.instance  # type: ignore[attr-defined]


def takes_any_json_for_a_record() -> None:
    from cluster_lock.values import record

    for name in record._CHECKS:
        record._CHECKS[name] = lambda value: True


def dispatches_after_the_deadline() -> None:
    from cluster_lock.aiogram import feeding, handling, term_work

    term_work.may_dispatch = lambda term: True  # type: ignore[attr-defined]
    handling.may_start = feeding.may_start = lambda term: True  # type: ignore[attr-defined]


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
    from cluster_lock.drivers.etcd.requests import Requests

    Requests.stands = lambda self, grant: [self.held(grant.name, grant.lease.id)]  # type: ignore[method-assign]


def consul_guards_by_the_lease() -> None:
    _without("check-index")


def etcd_transfers_unchecked() -> None:
    from cluster_lock.drivers.etcd.requests import Requests

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
    from cluster_lock.drivers.consul.link import ConsulLink

    transact = ConsulLink.transact

    async def loose(self: ConsulLink, client: Any, *operations: Any) -> Any:
        kept = [one for one in operations if one["Verb"] != verb]
        return await transact(self, client, *kept)

    ConsulLink.transact = loose  # type: ignore[method-assign]


def guard_waits_for_a_blocked_loop() -> None:
    """The guard looks at the loop, not at the work: anybody who swallows a cancellation goes on."""
    from cluster_lock.session import Hold

    lose = Hold.lose

    def trusting(self: Hold, reason: values.EndReason) -> None:
        lose(self, reason)
        self._guard.done()  # the loop runs, or we were not here

    Hold.lose = trusting  # type: ignore[method-assign]


def gives_the_lock_away_while_work_runs() -> None:
    from cluster_lock.election import election

    async def hasty(self: Any, term: Any, held: Any, work: Any) -> None:
        self._terms.pop(held.name, None)
        await held.end(term.handover)

    election.Election._finish = hasty  # type: ignore[method-assign]


def hands_over_to_whoever_stands_there() -> None:
    """No invitation: the oldest contender gets the lock, dead or alive."""
    from cluster_lock.session import hold, invitation

    async def oldest(context: Any, name: str, grant: Any, willing: Any = None, to: str | None = None) -> Any:
        contenders = await invitation._contenders(context, name, grant, to)
        return contenders[0] if contenders else None

    hold.invite = oldest  # type: ignore[attr-defined]


def keeps_what_nobody_asked_for() -> None:
    from cluster_lock.session.reconcile import Reconciler

    async def keep(self: Reconciler, entry: values.Entry) -> None:
        return None

    Reconciler.release = keep  # type: ignore[method-assign]


def takes_what_is_being_released() -> None:
    from cluster_lock.session.touched import Touched

    Touched.is_over = lambda self, grant: False  # type: ignore[method-assign]


def takes_a_restored_lock_for_old_news() -> None:
    from cluster_lock.session.touched import Touched

    Touched.is_back = lambda self, entry, asked: False  # type: ignore[method-assign]


def keeps_the_lock_when_it_is_cancelled_before_a_term() -> None:
    from cluster_lock.election.election import Election

    settle = Election._settle

    async def and_keep(self: Election, held: Any, stop: asyncio.Event) -> None:
        try:
            await settle(self, held, stop)
        except asyncio.CancelledError:
            held.end = lambda contents: asyncio.sleep(0)
            raise

    Election._settle = and_keep  # type: ignore[method-assign]


def says_released_too_early() -> None:
    from cluster_lock.session import Hold

    Hold._settled = property(lambda self: True)  # type: ignore[assignment]


def leads_on_any_token() -> None:
    from cluster_lock.session.tokens import Tokens

    Tokens.note = lambda self, name, token: None  # type: ignore[method-assign]


def heeds_requests_of_any_term() -> None:
    from cluster_lock.session import Hold
    from cluster_lock.session.requests import Ask

    def heed(self: Hold, entry: Any) -> None:
        self._ask = Ask.of(entry)
        if self._ask is not None:
            self._asked.set()

    Hold.asked = heed  # type: ignore[method-assign]


def frees_a_broken_lock_at_once() -> None:
    from cluster_lock.admin import quarantine

    async def no_wait(*_: Any) -> bool:
        return True

    quarantine._wait = no_wait  # type: ignore[assignment]


def believes_a_word_from_before() -> None:
    """A contender record says "stopped", however old it is."""
    from cluster_lock.admin import quarantine

    def stopped(breaking: quarantine.Breaking, moved: values.Entry, standby: values.Entry) -> bool:
        record = values.Record.from_bytes(standby.record or b"")
        return record is not None and standby.lease == breaking.entry.lease and breaking.name in record.names

    quarantine.has_stopped = stopped


def frees_the_lock_when_the_command_has_ended() -> None:
    """However much of what it started is left."""
    from cluster_lock.keeper import child

    _another_init("            sweep()\n            return statuses", "            return statuses")
    child.sweep = lambda *_: True  # type: ignore[attr-defined]


def leaves_everything_to_a_keeper_that_is_gone() -> None:
    _another_init("over = not said or", "if not said:\n                os._exit(1)\n            over =")


def kills_an_init_first() -> None:
    _another_init("in reversed(found)", "in found")


def kills_an_init_that_is_at_work() -> None:
    _another_init("leave=0.0 if listens else LEAVE", "leave=0.0")


def sleeps_through_the_end_of_its_keeper() -> None:
    _another_init("_prctl(PR_SET_PDEATHSIG, signal.SIGCONT)", "pass")


def inits_die_of_a_stop_signal() -> None:
    _another_init("    signals = ignore()\n", "    signals = []\n")


def passes_on_what_came_to_everybody() -> None:
    _another_init("    came[number] = _now()", "    pass")


def leaves_the_deadline_to_the_keeper() -> None:
    _another_init("            until = float(line", "            float(line")


def lets_a_command_gain_privileges() -> None:
    _another_init("_prctl(PR_SET_NO_NEW_PRIVS, 1)", "pass")


def counts_its_own_sleep() -> None:
    from cluster_lock.host import patience

    patience.MOST = float("inf")


def counts_copies_of_a_signal() -> None:
    from cluster_lock.keeper import stopping

    stopping.COPIES = 0.0


def leaves_what_a_keeper_left() -> None:
    from cluster_lock.keeper import left_over

    left_over._left_over = lambda scope: iter(())


def works_with_a_keeper_of_any_version() -> None:
    from cluster_lock.keeper.worker_process import WorkerProcess

    WorkerProcess._hello = lambda self, version: self.link.tell("hello", version=version)  # type: ignore[method-assign]


def _another_init(what: str, instead: str) -> None:
    from cluster_lock.keeper import child

    assert what in child.INIT
    child.INIT = child.INIT.replace(what, instead)


def trusts_the_thread_under_the_loop() -> None:
    """There is no kernel timer under the guard's thread."""
    from cluster_lock.lease import guard

    setattr(guard, "open_timer", lambda: None)  # noqa: B010


def reads_the_pipe_in_the_loop() -> None:
    from cluster_lock.keeper.worker import PipeLockSource

    look = PipeLockSource._look
    PipeLockSource._look = lambda self, line: self._tell_loop(look, self, line)  # type: ignore[method-assign]


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


def etcd_prefers_who_refuses() -> None:
    from cluster_lock.errors import BackendRefused

    async def believing(self: Any, node: Any, doing: str, until: float) -> None:
        return None

    link = _driver_part("etcd.link")
    link.IS_THE_ANSWER = (*link.IS_THE_ANSWER, BackendRefused)
    link.EtcdLink._identify = believing


def consul_prefers_who_refuses() -> None:
    _driver_part("consul.transport").is_the_answer = lambda answer: True


def etcd_reads_no_cluster() -> None:
    from cluster_lock.drivers.etcd.link import EtcdLink

    EtcdLink._check = lambda self, node, request, answer: None  # type: ignore[method-assign]


def etcd_takes_any_answer() -> None:
    _driver_part("etcd.link").check = lambda request, answer: None


def etcd_begins_where_somebody_answers() -> None:
    """The first lease waits for nobody who is silent."""
    from cluster_lock.drivers.shared.one_cluster import OneCluster

    def judge(self: OneCluster[Any], since: float, ttl: float, members: Any) -> None:
        self.ttl = max(self.ttl, ttl)
        self.agree()

    OneCluster.judge = judge  # type: ignore[method-assign]


def consul_knows_a_cluster_by_its_addresses_alone() -> None:
    _driver_part("consul.cluster").AgentsCluster.made = lambda self, session, ttl: None


def consul_ends_a_term_by_any_404() -> None:
    transport = _driver_part("consul.transport")
    is_the_answer = transport.is_the_answer
    transport.is_the_answer = lambda answer: answer.status == 404 or is_the_answer(answer)
    _driver_part("consul.driver").lease_is_gone = lambda answer: answer.status == 404


def etcd_asks_on_behind_an_untrusted_endpoint() -> None:
    _driver_part("etcd.link").EtcdUntrusted = _Never


def consul_asks_on_behind_an_untrusted_agent() -> None:
    _driver_part("consul.transport").ConsulUntrusted = _Never


class _Never(Exception):
    """What nobody raises."""


def consul_never_reads_certificates_again() -> None:
    etcd_never_reads_certificates_again()


def etcd_never_reads_certificates_again() -> None:
    from cluster_lock.drivers.shared.tls_files import TLSFiles

    TLSFiles.look = lambda self: None  # type: ignore[method-assign]


def believes_that_a_file_is_locked() -> None:
    """No second look at the file that the system says is locked."""
    from cluster_lock.host.flock import Flock

    def believing(self: Flock) -> bool:
        found = os.fstat(self.descriptor)
        self._identity = (found.st_dev, found.st_ino)
        return self.stands()

    Flock._holds = believing  # type: ignore[method-assign]


def refuses_the_newest_connection() -> None:
    from cluster_lock.health import connections

    came = connections.Connections.came

    def full(self: Any, connection: Any, transport: Any) -> None:
        if len(self._open) < connections.CONNECTIONS:
            came(self, connection, transport)
        else:
            connection.drop()

    connections.Connections.came = full  # type: ignore[method-assign]


def polls_on_an_unknown_connection() -> None:
    from cluster_lock.aiogram import connection

    connection.Borrowed.__init__ = lambda self, transport, time_left: self.__dict__.update(  # type: ignore[method-assign]
        _transport=None, _before=[]
    )


def leaves_copies_under_way() -> None:
    from cluster_lock.aiogram.fetching import Fetcher
    from cluster_lock.aiogram.http_session import GuardedRequest

    def abort(self: Fetcher) -> None:
        if self._request is not None:
            reset(self._request)

    reset = GuardedRequest.abort
    Fetcher.abort = abort  # type: ignore[method-assign]
    GuardedRequest.abort = lambda self: None  # type: ignore[method-assign]


def writes_after_an_abort() -> None:
    from cluster_lock.aiogram.http_session import GuardedRequest

    GuardedRequest._may_write = lambda self: self._check()  # type: ignore[method-assign]


def keeps_what_it_borrowed() -> None:
    from cluster_lock.aiogram import connection

    connection.Borrowed.undo = lambda self: None  # type: ignore[method-assign]


def trusts_any_session() -> None:
    from cluster_lock.aiogram import http_session

    http_session.why_not_followed = lambda session: None
    http_session.followed = lambda session: session  # type: ignore[return-value, assignment]


def believes_the_first_refusal() -> None:
    from cluster_lock.aiogram import recovery
    from cluster_lock.telegram.errors import TelegramTokenRefused

    async def at_once(bot: Any) -> None:
        raise TelegramTokenRefused("refused")

    recovery.refused_again = at_once


def forgets_what_it_confirmed() -> None:
    from cluster_lock.aiogram import window

    window.REMEMBERED = 0


def lets_an_unreadable_update_hide_the_others() -> None:
    from cluster_lock.aiogram import http_session

    http_session.updates_in = lambda session, text: None


def heeds_every_request() -> None:
    from cluster_lock.session.request_pace import RequestPace

    RequestPace.wait = lambda self, name, lease: 0.0  # type: ignore[method-assign]


def believes_any_index() -> None:
    """What stands in a key file is counted on from, whatever it is."""
    from cluster_lock.drivers.file import counter, keyfile, store

    keyfile._counts = lambda value: isinstance(value, int)
    for room in (store, keyfile, counter):
        room.LARGEST_NUMBER = 10**40  # type: ignore[attr-defined]
    store._AHEAD = 10**40


def believes_a_half_written_key() -> None:
    """A key is written in its place, and a part of it is enough."""
    from cluster_lock.drivers.file import store

    def in_place(path: Path, content: bytes, *, by_way_of: Path, whole: bool = False) -> None:
        with path.open("wb") as file:
            file.write(content)

    store.write_private = in_place  # type: ignore[attr-defined]


def hears_of_no_replaced_folder() -> None:
    from cluster_lock.host import inotify

    inotify._way_to = lambda path: ()


def gives_at_once_in_a_replaced_folder() -> None:
    from cluster_lock.drivers.file.store import Store

    Store.is_young = lambda self: False  # type: ignore[method-assign]


def trusts_any_way() -> None:
    """Others may write to the folders above ours."""
    from cluster_lock.host import private_files as private

    private.check_way_to = lambda path: None  # type: ignore[attr-defined]


def waits_for_a_reader_of_the_log() -> None:
    import logging

    from cluster_lock.host import logs

    logs.LogWriter = logging.StreamHandler  # type: ignore[attr-defined,assignment]


def masks_after_the_cut() -> None:
    from cluster_lock.drivers.consul import words
    from cluster_lock.host import masking

    words.shortened = lambda text, limit: masking.masked(text[:limit])  # type: ignore[attr-defined]


def handles_what_restarted_again() -> None:
    from cluster_lock.aiogram.crashes import CrashNotes

    CrashNotes.current = lambda self: None  # type: ignore[method-assign]


def keeps_what_a_replaced_program_held() -> None:
    from cluster_lock.keeper.worker_process import WorkerProcess

    WorkerProcess._execs = lambda self, handovers: None  # type: ignore[method-assign]


def believes_in_every_exec() -> None:
    from cluster_lock.keeper import worker_process

    worker_process.is_ending = lambda pid: False  # type: ignore[attr-defined]


def forgets_threads() -> None:
    from cluster_lock.lease.threads import Threads

    Threads.note = lambda self, work: None  # type: ignore[method-assign]


def names_the_instance_alone() -> None:
    from cluster_lock.keeper import slots

    slots._name = lambda instance, lock: instance


def confirms_what_has_not_started() -> None:
    from cluster_lock.aiogram import early

    early.has_run_for = lambda delivered: 3600.0


def splits_albums() -> None:
    from cluster_lock.aiogram.window import Window

    Window.join = lambda self, delivered, album: None  # type: ignore[method-assign]


def loses_what_was_cut_off_in_silence() -> None:
    from cluster_lock.aiogram.feeding import Feeder

    async def silent(self: Feeder, job: Any, error: BaseException) -> None: ...

    Feeder._cut_off = silent  # type: ignore[method-assign]


def drains_without_what_was_confirmed_early() -> None:
    from cluster_lock.aiogram.handling import Handling

    async def idle(self: Handling, timeout: float | None = None) -> bool:
        while self._running:
            self._one_ended.clear()
            await self._one_ended.wait()
        return True

    Handling.idle = idle  # type: ignore[method-assign]


def confirms_what_it_was_given() -> None:
    from cluster_lock.aiogram.window import Delivered, Window

    take = Window.take

    def at_once(self: Window, update_ids: Iterable[int]) -> list[Delivered]:
        new = take(self, update_ids)
        for delivered in new:
            self.finish(delivered)
        return new

    Window.take = at_once  # type: ignore[method-assign]


def starts_the_newest_first() -> None:
    from cluster_lock.aiogram.handling import Handling

    submit = Handling.submit
    Handling.submit = lambda self, jobs: submit(self, list(jobs)[::-1])  # type: ignore[method-assign]


def takes_the_end_of_the_loop_for_a_failure() -> None:
    from cluster_lock.aiogram.handling import Handling

    Handling.end_with = lambda self, poller: None  # type: ignore[method-assign]


def hands_nothing_over() -> None:
    from cluster_lock.aiogram.draining import Draining

    Draining.left_over = lambda self, held, *, is_unsure: {}  # type: ignore[method-assign]


def hands_nothing_over_when_it_is_cancelled() -> None:
    from cluster_lock.aiogram.draining import Draining

    left_over = Draining.left_over

    def unless_cancelled(self: Draining, held: Any, *, is_unsure: bool) -> dict[str, Any]:
        task = asyncio.current_task()
        assert task is not None
        return {} if task.cancelling() else left_over(self, held, is_unsure=is_unsure)

    Draining.left_over = unless_cancelled  # type: ignore[method-assign]


def starts_the_same_bot_twice() -> None:
    from cluster_lock.aiogram import start

    start._hold_slots = lambda stack, settings, bots: []


def takes_what_is_wrong_for_anothers() -> None:
    from cluster_lock.config import recognising

    recognising._is_ours = lambda keys: "backend" in keys


def lets_a_quote_take_all() -> None:
    import re

    from cluster_lock.config import reading

    reading._OURS = re.compile("(?!)")


def trusts_what_a_program_serves() -> None:
    from cluster_lock.host import private_files as private

    private._FUSE_NEAR = type("Any", (), {"__contains__": lambda self, kind: True})()


def releases_what_is_held() -> None:
    from cluster_lock.process.bot_lock import BotLock

    BotLock.__enter__ = lambda self: self  # type: ignore[method-assign]
    BotLock.__exit__ = lambda self, *_: self._info.unlink(missing_ok=True)  # type: ignore[method-assign]


def gives_back_what_a_program_below_a_shell_held() -> None:
    from cluster_lock.keeper import visitors

    def left(self: visitors.Visitor, pipe: object) -> None:
        self._hang_up("the program is gone")
        self._visitors.left(self)

    visitors.Visitor._left = left  # type: ignore[method-assign]


def takes_a_late_end_for_a_timely_one() -> None:
    from cluster_lock.aiogram import threads

    class Always:
        stepping_down = True

        def is_valid(self) -> bool:
            return True

    setattr(threads, "current_work", lambda: (Always(), None))  # noqa: B010


def lets_an_app_poll_while_it_is_loaded() -> None:
    from cluster_lock.aiogram import loading

    setattr(loading, "_POLLS", ())  # noqa: B010


def redis_releases_without_the_token() -> None:
    scripts = _driver_part("redis.scripts")
    kept = scripts.RELEASE.body.replace(" or stands.index ~= index", "")
    assert kept != scripts.RELEASE.body
    scripts.RELEASE = scripts.Script("release", kept)


def redis_keeps_a_connection_that_was_cancelled() -> None:
    link = _driver_part("redis.link").RedisLink
    given = link._with, link._bounded
    last: list[Any] = []

    async def remembering(self: Any, connection: Any, exchange: Any, doing: str) -> Any:
        last[:] = [connection]
        return await given[0](self, connection, exchange, doing)

    async def keeping(self: Any, exchange: Any, *how: Any) -> Any:
        try:
            return await given[1](self, exchange, *how)
        except asyncio.CancelledError:
            self._idle += last
            raise

    async def nothing(self: Any, connection: Any) -> None:
        pass

    link._with, link._bounded, link.drop = remembering, keeping, nothing


def redis_gives_away_at_once() -> None:
    _driver_part("redis.server").KnownServer._left = lambda self: 0.0


def _redis_scripts(old: str, new: str) -> None:
    script = _driver_part("redis.script")
    for common in ("_COMMON", "_WRITING"):
        setattr(script, common, getattr(script, common).replace(old, new))
    for part in ("redis.scripts", "redis.looking"):
        for one in vars(_driver_part(part)).values():
            if isinstance(one, script.Script):
                one.__post_init__()  # its text and sum, of what is common now


def redis_trusts_an_old_connection() -> None:
    _redis_scripts("if not (string.find(said, 'role:master', 1, true) and", "if false and (")


def redis_believes_the_primary_before() -> None:
    _driver_part("redis.link").RedisLink._check_known = lambda self, server, doing: None


def redis_shows_what_no_replica_has() -> None:
    _driver_part("redis.driver")._locks = lambda names, rows: {}


def redis_leaves_a_change_half_done() -> None:
    _redis_scripts("if redis.acl_check_cmd and", "if false and")


def redis_believes_a_silent_subscription() -> None:
    async def trusting(self: Any) -> None:
        pass

    _driver_part("redis.subscription").Subscription.check = trusting


def _postgres_schema(old: str, new: str) -> None:
    schema = _driver_part("postgres.schema")
    script = schema.ddl()
    assert old in script, old
    schema.ddl = lambda: script.replace(old, new)


def postgres_judges_before_the_row_lock() -> None:
    _postgres_schema(
        "    SELECT expires_at INTO ends FROM cluster_lock.lease WHERE id = a_lease FOR UPDATE;\n    IF NOT FOUND THEN",
        "    SELECT expires_at INTO ends FROM cluster_lock.lease WHERE id = a_lease;\n    IF NOT FOUND THEN",
    )


def postgres_judges_by_the_begin_of_the_transaction() -> None:
    _postgres_schema("IF ends > clock_timestamp() THEN", "IF ends > now() THEN")


def postgres_releases_without_the_token() -> None:
    _postgres_schema("AND lease = a_lease AND index = a_index;", "AND lease = a_lease;")


def postgres_gives_away_at_once() -> None:
    _postgres_schema("RETURN greatest(0, extract", "RETURN 0 * greatest(0, extract")


def postgres_keeps_a_connection_that_was_cancelled() -> None:
    _driver_part("postgres.connection").Connection.close = lambda self: None
    link = _driver_part("postgres.link").Link
    take = link._take
    connect = link.connect
    kept: list[Any] = []

    async def keeping(self: Any, until: float) -> Any:
        kept.append(await connect(self, until))
        return kept[-1]

    link.connect = keeping
    link._take = lambda self: take(self) or (kept[-1] if kept else None)


def postgres_asks_for_no_advisory_lock() -> None:
    session = _driver_part("postgres.advisory_session")
    told = session._TRY.replace("pg_try_advisory_lock($4)", "$4::bigint IS NOT NULL")
    assert told != session._TRY
    session._TRY = told


def postgres_keeps_the_advisory_lock_of_a_refused_row() -> None:
    session = _driver_part("postgres.advisory_session").AdvisorySession
    give_back = session.give_back

    async def granted_ones(self: Any, holdings: Any) -> None:
        await give_back(self, [holding for holding in holdings if holding.index])

    session.give_back = granted_ones


def postgres_unlocks_by_the_servers_clock() -> None:
    """As soon as the server says that the lease is over, which its work may not have heard yet."""

    def gone(self: Any, lease: Any) -> None:
        self._session.giving_back(self._under(lease.id))

    _driver_part("postgres.advisory").Advisory.gone = gone


def postgres_says_nothing_of_a_lost_session() -> None:
    _driver_part("postgres.advisory_session").tell_lost = lambda holdings, why: None


def postgres_works_off_what_nobody_waits_for() -> None:
    _driver_part("postgres.advisory_session").AdvisorySession._call_off = lambda self, work: False


def believes_whatever_a_driver_says() -> None:
    from cluster_lock.drivers.checked import CheckedDriver

    setattr(CheckedDriver, "_broken", lambda *said: None)  # noqa: B010


def leaves_the_work_under_a_broken_driver_alone() -> None:
    from cluster_lock.session.session_lease import SessionLease

    def only_noting(self: SessionLease, error: Any) -> None:
        self.failure = self.failure or error

    setattr(SessionLease, "fail", only_noting)  # noqa: B010


def never_asks_for_a_second_lease() -> None:
    from cluster_lock.session.session_lease import SessionLease

    async def only_once(self: SessionLease, lease: Any, until: float) -> None:
        await asyncio.Event().wait()

    SessionLease.give_up = only_once  # type: ignore[method-assign]


def forgets_what_it_finished() -> None:
    """Until it is confirmed: what is delivered again is handled again."""
    from cluster_lock.aiogram.window import Window

    take = Window.take

    def forgetful(self: Window, update_ids: Iterable[int]) -> Any:
        for known in [known for known in self._order if known.finished]:
            self._order.remove(known)
            del self._by_id[known.update_id]
        return take(self, update_ids)

    Window.take = forgetful  # type: ignore[method-assign]


def begins_at_the_end() -> None:
    """A new leader drops what waits for it."""
    from cluster_lock.aiogram.window import Window

    ask = Window.ask

    def last_only(self: Window) -> int | None:
        is_first, offset = self.sent is None, ask(self)
        return -1 if is_first else offset

    Window.ask = last_only  # type: ignore[method-assign]


def confirms_nothing() -> None:
    from cluster_lock.aiogram.window import Window

    ask = Window.ask

    def from_the_first(self: Window) -> int | None:
        ask(self)
        return None

    Window.ask = from_the_first  # type: ignore[method-assign]


def takes_what_was_cut_off_for_finished() -> None:
    from cluster_lock.aiogram.handling import Handling

    ended = Handling._ended

    def finished(self: Handling, job: Any, task: Any) -> None:
        if job.started:
            self._finished(job.delivered)
        ended(self, job, task)

    Handling._ended = finished  # type: ignore[method-assign]


def stays_deaf_after_a_failure() -> None:
    from cluster_lock.aiogram.recovery import Recovery

    async def for_ever(self: Recovery, failure: Any, pause: float, what: str) -> None:
        await asyncio.Event().wait()

    Recovery._wait = for_ever  # type: ignore[method-assign]


def waits_for_an_answer_for_ever() -> None:
    from cluster_lock.aiogram import fetching
    from cluster_lock.aiogram.http_session import GuardedRequest

    ask, long = GuardedRequest.ask, 100_000

    async def patient(self: GuardedRequest, bot: Any, method: Any, limit: int | None) -> Any:
        return await ask(self, bot, method, long)

    setattr(GuardedRequest, "ask", patient)  # noqa: B010
    fetching.DEAF_AFTER = long  # type: ignore[attr-defined]


def never_starts_again_what_crashed() -> None:
    from cluster_lock.keeper.again import StartBackoff

    StartBackoff.after = lambda self, ran: 100_000.0  # type: ignore[method-assign]


def _promises_less_than_it_asks_for(driver: Any) -> None:
    """The server keeps the lease of who died ten times as long."""
    from dataclasses import replace

    grant_lease = driver.grant_lease

    async def of_ten_ttl(self: Any, holder: str, ttl: float) -> Any:
        return replace(await grant_lease(self, holder, 10 * ttl), ttl=ttl)

    driver.grant_lease = of_ten_ttl


def etcd_promises_less_than_it_asks_for() -> None:
    _promises_less_than_it_asks_for(_driver_part("etcd.driver").EtcdDriver)


def consul_promises_less_than_it_asks_for() -> None:
    _promises_less_than_it_asks_for(_driver_part("consul.driver").ConsulDriver)


def redis_counts_from_one() -> None:
    """Tokens are no times: a store that lost its data gives the first ones again."""
    scripts = _driver_part("redis.scripts")
    _redis_scripts("time[1] * 1000000 + time[2]", "0 * time[1]")
    assert "0 * time[1]" in scripts.ACQUIRE.text.decode()


MUTANTS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in list(globals().values())
    if callable(made) and getattr(made, "__module__", "") == __name__ and not made.__name__.startswith("_")
    if made is not module
}


def pytest_configure() -> None:
    MUTANTS[os.environ[CHOSEN]]()


def _break_what_this_becomes() -> None:
    """A command that becomes a keeper is broken as that, too."""
    become, keeper = os.execve, "cluster_lock.keeper"

    def execve(program: str, arguments: Any, environ: Any) -> None:
        if keeper in arguments:
            at = arguments.index(keeper)
            arguments = [*arguments[:at], "support.mutants", *arguments[at:]]
        become(program, arguments, environ)

    os.execve = execve  # type: ignore[assignment]


if __name__ == "__main__":
    pytest_configure()
    _break_what_this_becomes()
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
