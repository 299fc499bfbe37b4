"""For each safety rule a mutant, and a test that kills it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.mutants import MUTANTS
from support.nursery import Nursery

CORE, DRIVERS, LEADER, POLLER = "tests/test_core", "tests/test_drivers", "tests/test_leader", "tests/test_aiogram"
KEEPER = "tests/test_keeper"

CHECKOUT = Path(__file__).parents[2]
PYTEST = ("-m", "pytest", "-q", "-x", "-p", "support.mutants", "-p", "no:cacheprovider", "--timeout=30")

KILLED_BY = {
    "counts_from_the_reply": f"{CORE}/test_watchdog.py::test_deadline_counts_from_before_the_request",
    "trusts_twice_the_ttl": f"{CORE}/test_watchdog.py::test_deadline_counts_from_before_the_request",
    "revives_after_the_deadline": f"{CORE}/test_watchdog.py::test_what_succeeds_after_the_deadline_revives_nothing",
    "ignores_the_watch": f"{CORE}/test_lock.py::test_a_deleted_key_ends_that_term_only",
    "trusts_the_watch_alone": f"{CORE}/test_lock.py::test_the_watch_is_not_the_only_detector",
    "memory_guards_by_the_lease": f"{DRIVERS}/test_conformance_memory.py -k earlier_term",
    "etcd_guards_by_the_lease": f"{DRIVERS}/test_conformance_etcd.py -k earlier_term",
    "consul_guards_by_the_lease": f"{DRIVERS}/test_conformance_consul.py -k earlier_term",
    "etcd_transfers_unchecked": f"{DRIVERS}/test_conformance_etcd.py -k transfer_refused",
    "consul_transfers_unchecked": f"{DRIVERS}/test_conformance_consul.py -k transfer_refused",
    "etcd_prefers_who_refuses": f"{DRIVERS}/test_etcd_refusals.py -k who_refuses",
    "consul_prefers_who_refuses": f"{DRIVERS}/test_consul_refusals.py -k who_refuses",
    "etcd_reads_no_cluster": f"{DRIVERS}/test_two_clusters.py -k first_contact",
    "etcd_takes_any_answer": f"{DRIVERS}/test_etcd_answers.py -k renewal-renew",
    "etcd_begins_where_somebody_answers": f"{DRIVERS}/test_two_clusters.py -k silent_at_first",
    "consul_knows_a_cluster_by_its_addresses_alone": f"{DRIVERS}/test_two_clusters.py -k twins",
    "consul_ends_a_term_by_any_404": f"{DRIVERS}/test_consul_refusals.py -k does_not_end",
    "etcd_asks_on_behind_an_untrusted_endpoint": f"{DRIVERS}/test_etcd_tls.py -k untrusted_endpoint",
    "consul_asks_on_behind_an_untrusted_agent": f"{DRIVERS}/test_consul_access.py -k untrusted_agent",
    "etcd_never_reads_certificates_again": f"{DRIVERS}/test_certificates.py -k outlives",
    "consul_never_reads_certificates_again": f"{DRIVERS}/test_certificates.py -k outlives",
    "guard_waits_for_a_blocked_loop": f"{LEADER}/test_last_resort.py -k swallows",
    "gives_the_lock_away_while_work_runs": f"{CORE}/test_election.py::test_tasks_of_a_term_end_with_it",
    "hands_over_to_whoever_stands_there": f"{CORE}/test_election.py::test_only_the_dead_contend",
    "keeps_what_nobody_asked_for": f"{CORE}/test_lock.py::test_a_late_acquire_is_released",
    "takes_what_is_being_released": f"{CORE}/test_races.py -k release_is_under_way",
    "says_released_too_early": f"{CORE}/test_lock.py::test_origin_of_a_grant",
    "leads_on_any_token": f"{CORE}/test_lock.py::test_nobody_leads_on_a_token_that_went_back",
    "heeds_requests_of_any_term": f"{CORE}/test_step_down.py::test_a_request_for_another_term_is_void",
    "frees_a_broken_lock_at_once": f"{CORE}/test_quarantine.py::test_a_leader_that_is_cut_off_is_waited_for",
    "believes_a_word_from_before": f"{CORE}/test_quarantine.py::test_what_says_that_a_leader_has_stopped",
    "does_not_settle": f"{CORE}/test_election.py -k body_settles",
    "trusts_any_release": f"{CORE}/test_set_back.py -k released_may",
    "does_not_settle_in_a_block": f"{CORE}/test_lock.py -k block_settles",
    "notices_no_set_back": f"{CORE}/test_set_back.py -k leads_again",
    "believes_a_late_answer": f"{CORE}/test_set_back.py -k question_from_before",
    "leads_on_any_token_that_it_is_given": f"{CORE}/test_set_back.py -k leads_again",
    "writes_its_farewell_before_its_own_token": f"{CORE}/test_lock.py -k own_term",
    "wipes_the_evidence": f"{CORE}/test_lock.py::test_the_last_record_remembers_the_token",
    "never_asks_for_a_second_lease": f"{CORE}/test_lock.py -k is_replaced",
    "forgets_what_it_finished": f"{POLLER}/test_window.py -k not_new_again",
    "begins_at_the_end": f"{POLLER}/test_window.py -k lowest_unfinished_update",
    "confirms_nothing": f"{POLLER}/test_window.py -k heir_goes_on",
    "takes_what_was_cut_off_for_finished": f"{POLLER}/test_step_down.py -k end_of_the_loop",
    "stays_deaf_after_a_failure": f"{POLLER}/test_failures.py -k telegrams_pause --timeout=10",
    "waits_for_an_answer_for_ever": f"{POLLER}/test_failures.py -k never_answered --timeout=10",
    "never_starts_again_what_crashed": f"{KEEPER}/test_worker.py -k slows_down --timeout=15",
    "etcd_promises_less_than_it_asks_for": f"{DRIVERS}/test_conformance_etcd.py -k in_time_and_never",
    "consul_promises_less_than_it_asks_for": f"{DRIVERS}/test_conformance_consul.py -k in_time_and_never",
    "redis_counts_from_one": f"{DRIVERS}/test_redis_faults.py -k without_data",
    "reads_what_is_in_doubt_with_what_it_holds": f"{CORE}/test_trouble.py -k read_apart",
    "forgets_what_nobody_could_look_at": f"{CORE}/test_trouble.py -k nobody_could_look_at",
    "forgets_what_a_release_was_to_leave": f"{CORE}/test_releases.py -k leaves_what_the_first",
    "believes_a_release_that_is_not_confirmed": f"{CORE}/test_releases.py -k not_called_one",
    "looks_no_longer_than_it_follows": f"{CORE}/test_releases.py -k after_ages",
    "stands_by_under_its_name_alone": f"{CORE}/test_contender.py -k both_seen",
    "takes_any_json_for_a_record": f"{CORE}/test_junk.py -k any_key",
    "dispatches_after_the_deadline": f"{POLLER}/test_lease.py -k blocked",
    "offset_is_the_highest": f"{POLLER}/test_acknowledging.py -k slow_handler_holds_back",
    "confirms_what_has_not_started": f"{POLLER}/test_early.py -k not_started",
    "splits_albums": f"{POLLER}/test_window.py -k parts_of_an_album",
    "loses_what_was_cut_off_in_silence": f"{POLLER}/test_early.py -k end_of_a_term",
    "drains_without_what_was_confirmed_early": f"{POLLER}/test_early.py -k end_of_a_term",
    "ids_only_grow": f"{POLLER}/test_window.py -k numbering",
    "frees_the_lock_when_the_command_has_ended": f"{KEEPER}/test_run.py::test_a_lock_is_free_when_nothing_is_left",
    "leaves_everything_to_a_keeper_that_is_gone": f"{KEEPER}/test_run.py::test_nothing_is_left[keeper]",
    "kills_an_init_first": f"{KEEPER}/test_child.py::test_who_is_killed_while_it_kills[upper-stopped]",
    "kills_an_init_that_is_at_work": f"{KEEPER}/test_child.py::test_who_is_killed_while_it_kills[upper]",
    "sleeps_through_the_end_of_its_keeper": f"{KEEPER}/test_run.py::test_inits_that_are_stopped",
    "inits_die_of_a_stop_signal": f"{KEEPER}/test_stop_signals.py::test_a_signal_to_every_process[SIGTERM]",
    "passes_on_what_came_to_everybody": f"{KEEPER}/test_stop_signals.py::test_a_signal_to_every_process[SIGTERM]",
    "leaves_the_deadline_to_the_keeper": f"{KEEPER}/test_run.py::test_process_1_that_is_stopped",
    "lets_a_command_gain_privileges": f"{KEEPER}/test_rights.py::test_programs_of_other_users[usual]",
    "counts_its_own_sleep": f"{KEEPER}/test_frozen.py -k keepers_sleep",
    "counts_copies_of_a_signal": f"{KEEPER}/test_worker.py -k second_signal",
    "leaves_what_a_keeper_left": f"{KEEPER}/test_left_over.py::test_the_next_command_is_alone",
    "works_with_a_keeper_of_any_version": f"{KEEPER}/test_versions.py::test_an_upgrade_under_a_keeper",
    "trusts_the_thread_under_the_loop": f"{KEEPER}/test_run.py::test_a_stopped_keeper_ends_at_its_deadline",
    "reads_the_pipe_in_the_loop": f"{KEEPER}/test_pipe.py::test_a_blocked_loop_delays_no_renewal",
    "leaves_overdue_work_alone": f"{KEEPER}/test_worker.py -k told_of_no_loss",
    "leaves_a_wedged_worker_alone": f"{KEEPER}/test_worker.py -k is_ended[blocks]",
    "believes_that_a_file_is_locked": f"{DRIVERS}/test_file_processes.py -k do_not_exclude",
    "refuses_the_newest_connection": "tests/test_health/test_server.py -k flood",
    "polls_on_an_unknown_connection": f"{POLLER}/test_http_session.py -k not_known",
    "leaves_copies_under_way": f"{POLLER}/test_fetching.py -k left_under_way",
    "writes_after_an_abort": f"{POLLER}/test_http_session.py -k where_it_likes",
    "keeps_what_it_borrowed": f"{POLLER}/test_http_session.py -k as_it_was",
    "trusts_any_session": f"{POLLER}/test_http_session.py -k own_way",
    "believes_the_first_refusal": f"{POLLER}/test_failures.py -k one_refusal",
    "takes_a_restored_lock_for_old_news": f"{CORE}/test_set_back.py -k just_given_away",
    "keeps_the_lock_when_it_is_cancelled_before_a_term": f"{CORE}/test_election.py -k when_it_has_settled",
    "confirms_what_it_was_given": f"{POLLER}/test_acknowledging.py -k holds_back_its_own",
    "starts_the_newest_first": f"{POLLER}/test_order.py -k begin_in_order",
    "takes_the_end_of_the_loop_for_a_failure": f"{POLLER}/test_step_down.py -k end_of_the_loop",
    "hands_nothing_over": f"{POLLER}/test_step_down.py -k heir_confirms",
    "hands_nothing_over_when_it_is_cancelled": f"{POLLER}/test_step_down.py -k cancelled_with_the_lock",
    "forgets_what_it_confirmed": f"{POLLER}/test_window.py -k just_confirmed",
    "lets_an_unreadable_update_hide_the_others": f"{POLLER}/test_fetching.py -k decides",
    "heeds_every_request": f"{CORE}/test_pace.py -k in_a_loop_gets",
    "believes_any_index": f"{DRIVERS}/test_file_junk.py::test_a_junk_index_becomes_no_token",
    "believes_a_half_written_key": f"{DRIVERS}/test_file_disk.py::test_a_write_that_stops_in_the_middle_is_no_write",
    "hears_of_no_replaced_folder": f"{DRIVERS}/test_file_disk.py -k folder_was_replaced[renamed_above]",
    "gives_at_once_in_a_replaced_folder": f"{DRIVERS}/test_file_disk.py -k its_folder_was_replaced[renamed]",
    "takes_what_is_wrong_for_anothers": "tests/test_config/test_problems.py -k never_left_out",
    "lets_a_quote_take_all": "tests/test_config/test_problems.py -k takes_nothing_of_ours",
    "trusts_what_a_program_serves": f"{DRIVERS}/test_file_processes.py -k network_file_systems",
    "releases_what_is_held": "tests/test_process/test_instance_lock.py -k killed_bot_left",
    "trusts_any_way": f"{DRIVERS}/test_file_disk.py -k others_may_replace",
    "waits_for_a_reader_of_the_log": "tests/test_logs/test_log_writer.py -k a_leader_outlives",
    "masks_after_the_cut": f"{DRIVERS}/test_secrets_of_answers.py",
    "counts_the_silence_of_a_start": f"{KEEPER}/test_worker.py::test_a_worker_takes_its_time_to_start",
    "handles_what_restarted_again": f"{POLLER}/test_restarts.py",
    "keeps_what_a_replaced_program_held": f"{KEEPER}/test_worker.py -k becomes_something_else",
    "believes_in_every_exec": f"{KEEPER}/test_worker.py -k right_after",
    "forgets_threads": f"{LEADER}/test_last_resort.py -k thread",
    "names_the_instance_alone": f"{POLLER}/test_slots.py -k two_bots",
    "starts_the_same_bot_twice": f"{POLLER}/test_slots.py -k the_same_bot",
    "leaves_a_deaf_worker_alone": f"{KEEPER}/test_worker.py -k is_ended[deaf]",
    "gives_back_what_a_program_below_a_shell_held": f"{KEEPER}/test_visitors.py -k below_a_shell",
    "takes_a_late_end_for_a_timely_one": f"{POLLER}/test_handling.py -k not_over_while_a_handler_runs_in_a_thread",
    "lets_an_app_poll_while_it_is_loaded": "tests/test_bot/test_app.py -k imported",
    "postgres_judges_before_the_row_lock": f"{DRIVERS}/test_postgres_faults.py -k live_lease_is_not",
    "postgres_judges_by_the_begin_of_the_transaction": f"{DRIVERS}/test_postgres_faults.py -k renewal_that_waited",
    "postgres_releases_without_the_token": f"{DRIVERS}/test_conformance_postgres.py -k earlier_term",
    "postgres_gives_away_at_once": f"{DRIVERS}/test_postgres_faults.py -k started_again",
    "postgres_keeps_a_connection_that_was_cancelled": f"{DRIVERS}/test_postgres_faults.py -k stopped_server_is_given",
    "postgres_asks_for_no_advisory_lock": f"{DRIVERS}/test_postgres_advisory.py -k clock_that_jumps",
    "postgres_keeps_the_advisory_lock_of_a_refused_row": f"{DRIVERS}/test_postgres_advisory.py -k row_that_is_refused",
    "postgres_unlocks_by_the_servers_clock": f"{DRIVERS}/test_postgres_advisory.py -k clock_that_jumps",
    "postgres_says_nothing_of_a_lost_session": f"{DRIVERS}/test_postgres_sessions.py -k had_again",
    "postgres_works_off_what_nobody_waits_for": f"{DRIVERS}/test_postgres_sessions.py -k given_up",
    "redis_releases_without_the_token": f"{DRIVERS}/test_redis_faults.py -k late_release",
    "redis_keeps_a_connection_that_was_cancelled": f"{DRIVERS}/test_redis_faults.py -k verb_that_is_cancelled",
    "redis_gives_away_at_once": f"{DRIVERS}/test_redis_faults.py -k gives_nothing_away",
    "redis_believes_a_silent_subscription": f"{DRIVERS}/test_redis_faults.py -k subscription_that_hears",
    "redis_trusts_an_old_connection": f"{DRIVERS}/test_redis_primaries.py -k replica_for_a_while",
    "redis_believes_the_primary_before": f"{DRIVERS}/test_redis_primaries.py -k answer_of_the_primary_before",
    "redis_shows_what_no_replica_has": f"{DRIVERS}/test_redis_primaries.py -k no_replica_has",
    "redis_leaves_a_change_half_done": f"{DRIVERS}/test_redis_faults.py -k taken_away",
    "believes_whatever_a_driver_says": f"{CORE}/test_contract_broken.py -k another_lock",
    "leaves_the_work_under_a_broken_driver_alone": f"{CORE}/test_contract_broken.py -k before_anybody_else",
}


MARKS = {
    "etcd": pytest.mark.etcd,
    "consul": pytest.mark.consul,
    "redis": pytest.mark.redis,
    "postgres": pytest.mark.postgres,
    "leaves_overdue_work_alone": pytest.mark.etcd,
}
"""By the mutant's name, or the first word of it."""


def marks_of_servers(mutant: str) -> list[pytest.MarkDecorator]:
    return [mark for name, mark in MARKS.items() if name in (mutant, mutant.split("_")[0])]


def marks(mutant: str) -> list[pytest.MarkDecorator]:
    # In two workers of those that share the tests: each has a nursery of its own.
    return marks_of_servers(mutant) or [pytest.mark.xdist_group(f"nursery {list(KILLED_BY).index(mutant) % 2}")]


def test_every_mutant_has_its_test() -> None:
    """No rule is broken in vain: each mutant names the test that kills it."""
    assert set(MUTANTS) == set(KILLED_BY)


@pytest.mark.parametrize("mutant", [pytest.param(name, marks=marks(name)) for name in KILLED_BY])
def test_a_broken_rule_is_noticed(mutant: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """With one safety rule broken, the test of that rule fails."""
    # A folder of its own: sessions that tidy the common one at the same time break each other.
    command = [*PYTEST, f"--basetemp={tmp_path / 'pytest'}", *KILLED_BY[mutant].split()]
    environ = os.environ | {"CLUSTER_LOCK_MUTANT": mutant, "PYTHONPATH": str(Path(__file__).parents[1])}
    log = tmp_path / "log"
    if not marks_of_servers(mutant):
        # One import of aiogram for all of them.
        nursery: Nursery = request.getfixturevalue("nursery")
        child = nursery.start(command, environ, log=log, folder=CHECKOUT)
        try:
            code = child.wait(300)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # pytest's faulthandler writes down where it stands
            code = child.wait(60)
    else:
        with log.open("wb") as output:
            code = subprocess.call(
                [sys.executable, *command], stdout=output, stderr=output, timeout=300, cwd=CHECKOUT, env=environ
            )
    said = log.read_text()
    assert code == 1, said[-4000:]
    assert re.search(r"^\d+ failed", said, re.MULTILINE), said[-4000:]
