"""What handlers, filters, middlewares and hooks may ask for by name. The user's own data of the same name stands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aiogram import Bot, Dispatcher

from cluster_lock.election import Leadership, Term

log = logging.getLogger("cluster_lock.aiogram")

OURS = ("leadership", "term", "lease", "fencing_token", "redelivered")
"""The names that aiogram's own `start_polling` does not have."""


def of_process(
    dispatcher: Dispatcher, bots: tuple[Bot, ...], leadership: Leadership, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What is the same in every term: aiogram's own names, our `leadership`, and what the user has `given` here. What
    the user has put into the Dispatcher comes before ours, as with aiogram, and comes from there."""
    own = dispatcher.workflow_data
    if taken := [name for name in OURS if name in given or name in own]:
        log.warning("handlers get your own data as %s, and not what cluster-lock gives by that name", ", ".join(taken))
    ours = {"dispatcher": dispatcher, "bots": bots, "leadership": leadership}
    return {**{name: value for name, value in ours.items() if name not in own}, **given}


def of_term(dispatcher: Dispatcher, data: Mapping[str, Any], term: Term) -> dict[str, Any]:
    """The same, and the term; `lease` is its name of before."""
    own = dispatcher.workflow_data
    ours = {"term": term, "lease": term, "fencing_token": term.fencing_token}
    kept = {"redelivered": own["redelivered"]} if "redelivered" in own else {}
    return {**{name: value for name, value in ours.items() if name not in own}, **kept, **data}
