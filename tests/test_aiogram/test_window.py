"""What goes out as offset, and what is recognised when it comes again."""

from __future__ import annotations

import random

from cluster_lock.aiogram.window import LIMIT, Delivered, Window, inherited_window


def taken(window: Window, *update_ids: int) -> dict[int, Delivered]:
    return {delivered.update_id: delivered for delivered in window.take(update_ids)}


def test_the_offset_is_the_lowest_unfinished_update_and_never_the_highest_finished_one() -> None:
    """An update above a slow one is not confirmed before the slow one is finished."""
    window = Window()
    assert window.ask() is None
    new = taken(window, 10, 11, 12)
    window.finish(new[12])
    window.finish(new[11])
    assert window.offset == 10
    window.finish(new[10])
    assert window.offset == 13


def test_finishing_the_lowest_says_that_the_offset_moves() -> None:
    """The one that waits for the offset to move is told by the update that holds it back, and by no other."""
    window = Window()
    window.ask()
    new = taken(window, 10, 11, 12)
    assert not window.finish(new[11])
    assert window.finish(new[10])
    assert window.offset == 12
    assert window.finish(new[12])
    assert not window.finish(new[12]), "twice finished moves nothing"
    assert window.pending == 0


def test_what_was_delivered_is_not_new_again() -> None:
    """Every answer repeats what is unconfirmed, and none of it is handled twice; finished ones are counted once."""
    window = Window()
    window.ask()
    new = taken(window, 10, 11)
    window.finish(new[11])
    for offset in (10, 9, 10):  # below the offset nothing is left, so that is the same
        assert window.ask() == offset
        assert window.sent == 10
        assert list(taken(window, 10, 11, 12)) in ([12], [])
    assert window.repeated == 1
    assert window.pending == 2


def test_an_update_that_finishes_while_a_getupdates_is_under_way_is_recognised_in_its_answer() -> None:
    """The answer to a getUpdates repeats from its own offset on, however far we have come meanwhile."""
    window = Window()
    window.ask()
    new = taken(window, 10, 11)
    assert window.ask() == 10
    window.finish(new[10])
    window.finish(new[11])
    assert taken(window, 10, 11) == {}
    assert window.ask() == 12
    assert len(window) == 0, "confirmed updates are forgotten"


def test_no_offset_goes_out_twice_in_a_row() -> None:
    """While something is unfinished Telegram is never asked with the offset of the getUpdates before, which would bring
    a single update; nor with one that confirms what is not finished."""
    window = Window()
    window.ask()
    new = taken(window, 10, 11)
    asked = []
    for _ in range(4):
        asked.append(window.ask())
        taken(window, 10, 11)
    window.finish(new[10])
    for _ in range(2):
        asked.append(window.ask())
        taken(window, 11)
    assert asked == [10, 9, 10, 9, 11, 10]
    window.finish(new[11])
    assert [window.ask(), window.ask()] == [12, 12], "a long poll, which is not answered at once"


def test_the_parts_of_an_album_are_one() -> None:
    """No part is confirmed or handed over as finished while another one is unfinished; then all are."""
    window = Window()
    window.ask()
    new = taken(window, *range(10, 16))
    for part in (10, 11, 13):
        window.join(new[part], "album")
    for finished in (10, 12, 13, 14):
        window.finish(new[finished])
    assert window.handover() == {"offset": 10, "done": [12, 14]}
    assert window.ask() == 10
    assert window.finish(new[11])
    assert window.handover() == {"offset": 15, "done": []}


def test_a_lower_id_is_a_new_numbering() -> None:
    """An id below the offset that was sent makes everything known about ids void, running handlers included."""
    window = Window()
    window.ask()
    old = taken(window, 900, 901)
    window.finish(old[900])
    assert window.ask() == 901
    new = taken(window, 5, 6)
    assert list(new) == [5, 6]
    assert window.pending == 2
    assert not window.finish(old[901]), "an old handler has no say in the new numbering"
    assert window.offset == 5
    window.finish(new[5])
    window.finish(new[6])
    assert window.ask() == 7


def test_the_heir_goes_on_at_the_offset_and_skips_what_is_finished() -> None:
    """What one window hands over, the next one needs neither to handle again nor to ask for."""
    window = Window()
    window.ask()
    new = taken(window, 10, 11, 12, 13)
    for update_id in (10, 12, 13):
        window.finish(new[update_id])
    assert window.handover() == {"offset": 11, "done": [12, 13]}
    heir = inherited_window(window.handover())
    assert heir.ask() == 11
    assert heir.handover() == {"offset": 11, "done": [12, 13]}, "and hands it on if it learns nothing"
    assert list(taken(heir, 11, 12, 13, 14)) == [11, 14]
    assert heir.repeated == 2
    assert heir.handover() == {"offset": 11, "done": [12, 13]}


def test_what_was_just_confirmed_is_no_new_numbering() -> None:
    """Who heeds no offset delivers again what is finished and confirmed: it is not handled again, and what is new
    beside it is."""
    window = Window()
    for delivered in window.take([900, 901, 902]):
        window.finish(delivered)
    assert window.ask() == 903
    assert window.take([900, 901, 902]) == []
    (new,) = window.take([900, 901, 902, 903])
    assert (new.update_id, window.offset) == (903, 903)
    window.finish(new)
    assert window.ask() == 904
    assert [delivered.update_id for delivered in window.take([900, 5])] == [5], "that is one"


def test_an_inherited_offset_of_an_older_numbering_is_forgotten() -> None:
    """If ids began anew between two leaders, the inherited ones mean nothing."""
    heir = inherited_window({"offset": 900, "done": [901]})
    assert heir.ask() == 900
    assert list(taken(heir, 5)) == [5]
    assert heir.offset == 5
    assert heir.handover() == {"offset": 5, "done": []}


def test_nonsense_is_not_inherited() -> None:
    """A record that is not one of ours confirms nothing."""
    for inherited in ({}, {"offset": "9"}, {"offset": -3, "done": []}, {"offset": 5, "done": "x"}, {"done": [1]}):
        assert inherited_window(inherited).ask() is None, inherited


def test_a_hundred_unconfirmed_updates_fill_the_window() -> None:
    """Behind one unfinished update Telegram shows ninety-nine more, finished or not."""
    window = Window()
    window.ask()
    new = taken(window, *range(1, LIMIT + 1))
    for update_id in range(2, LIMIT + 1):
        window.finish(new[update_id])
    assert window.is_full
    window.finish(new[1])
    assert not window.is_full


def test_any_order_of_finishing_confirms_everything_once_and_nothing_early() -> None:
    """Whatever the order of handlers, and whatever requests and answers are lost, no offset passes an unfinished
    update, nothing is new twice, and in the end all is confirmed."""
    source = random.Random(7)
    for _ in range(200):
        window, queue, known = Window(), list(range(50, 50 + source.randint(1, 150))), set[int]()
        pending: dict[int, Delivered] = {}
        while queue or pending:
            offset = window.ask()
            assert offset is None or all(offset <= update_id for update_id in pending)
            request, answer = source.random() < 0.8, source.random() < 0.8
            if request:
                queue = [update_id for update_id in queue if offset is None or update_id >= offset]
            shown = [update_id for update_id in queue if offset is None or update_id >= offset][:LIMIT]
            if not (request and answer):
                continue
            for delivered in window.take(shown):
                assert delivered.update_id not in known
                known.add(delivered.update_id)
                pending[delivered.update_id] = delivered
            for update_id in source.sample(sorted(pending), min(len(pending), source.randint(0, 20))):
                window.finish(pending.pop(update_id))
        assert window.pending == 0
