"""What handlers may ask for by name, and what `start_polling` takes that aiogram takes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from support.leadership_double import LeadershipDouble, TermDouble
from support.polling import QUICK_TIMES

from cluster_lock.aiogram.arguments import of_process, of_term
from cluster_lock.aiogram.start import _with_poll_timeout


async def _asked(dispatcher: Dispatcher, given: dict[str, Any]) -> dict[str, Any]:
    """What a handler can ask for, by name, as aiogram puts it together."""
    data = of_process(dispatcher, (Bot("42:TOKEN"),), LeadershipDouble(), given)
    return {**dispatcher.workflow_data, **of_term(dispatcher, data, TermDouble(token=7).term)}


def asked(dispatcher: Dispatcher, **given: Any) -> dict[str, Any]:
    return asyncio.run(_asked(dispatcher, given))


def test_what_there_is() -> None:
    """Handlers get the term, also by its name of before, its token, the leadership, and what aiogram gives them:
    `dispatcher` and `bots`, whatever aiogram it is."""
    dispatcher = Dispatcher()
    found = asked(dispatcher, mine=1)
    assert found["dispatcher"] is dispatcher
    assert [bot.id for bot in found["bots"]] == [42]
    assert found["term"] is found["lease"]
    assert (found["term"].fencing_token, found["fencing_token"], found["mine"]) == (7, 7, 1)
    assert isinstance(found["leadership"], LeadershipDouble)


@pytest.mark.parametrize("where", ["the dispatcher", "the call"])
def test_data_of_the_users_own_stands(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the user calls by a name of ours stays his; one line names what he does not get therefore. For aiogram's own
    names, which may be replaced there too, none."""
    mine = {"lease": "of a flat", "leadership": "of a party", "bots": "mine", "fencing_token": 1}
    dispatcher = Dispatcher()
    with caplog.at_level(logging.WARNING, "cluster_lock"):
        if where == "the call":
            found = asked(dispatcher, **mine)
        else:
            dispatcher.workflow_data.update(mine)
            found = asked(dispatcher)
    assert {name: found[name] for name in mine} == mine
    assert found["term"].fencing_token == 7
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("handlers get your own data as leadership, lease, fencing_token, and not")


def test_the_call_comes_before_the_dispatcher() -> None:
    """Of two of the user's own that of the call counts, as with aiogram."""
    dispatcher = Dispatcher()
    dispatcher["lease"] = "older"
    assert asked(dispatcher, lease="newer")["lease"] == "newer"


@pytest.mark.parametrize(("given", "seconds"), [(60, 50), (50, 50), (1, 1), (0, 1), (None, QUICK_TIMES.poll_timeout)])
def test_a_polling_timeout_that_aiogram_takes(
    given: int | None, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A timeout beyond what Telegram does, or of nothing, is cut to what there is, with a line."""
    assert _with_poll_timeout(QUICK_TIMES, given).poll_timeout == seconds
    assert bool(caplog.records) == (given not in (None, seconds))
