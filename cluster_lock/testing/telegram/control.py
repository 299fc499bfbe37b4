"""The simulator's own methods for other processes: POST /__sim/{verb} with a JSON object of keyword arguments."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from math import inf
from typing import Any

from .answers import Answer, ok
from .engine import Call, Engine
from .faults import Fault
from .judge import SeenPoll
from .oracle import Report, as_json

PREFIX = "/__sim/"
_OF_ENGINE = (
    "push push_many push_raw traffic_on traffic_off revoke restore restarting set_webhook reseed jump set_modes"
    " rogue_on rogue_off state"
)
_OF_ORACLE = "frozen thawed dead started term_ended handled handled_many clear"

Method = Callable[..., Any]


class Control:
    """Each verb is a method of the simulator or of its oracle under the same name, with the same arguments."""

    def __init__(self, engine: Engine) -> None:
        oracle = engine.oracle
        methods: list[Method] = [getattr(engine, name) for name in _OF_ENGINE.split()]
        methods += [getattr(oracle, name) for name in _OF_ORACLE.split()]
        # What is called with the arguments, and what makes JSON of the result.
        self._verbs: dict[str, tuple[Method, Method]] = {
            **{method.__name__: (method, lambda result: result) for method in methods},
            "inject": (Fault, engine.inject),
            "clear_faults": (engine.faults.clear, lambda result: result),
            "report": (oracle.report, Report.as_json),
            "polls": (oracle.polls, lambda polls: [poll_json(item) for item in polls]),
            "changes": (oracle.changes, lambda changes: [asdict(change) for change in changes]),
            "updates": (oracle.updates, lambda updates: [as_json(update) for update in updates]),
            "calls": (engine.calls, lambda calls: [_call_json(call) for call in calls]),
            "help": (self.help, lambda result: result),
        }

    def help(self) -> dict[str, str]:
        """Each verb, with its arguments and what it does."""
        return {verb: _described(method) for verb, (method, _) in sorted(self._verbs.items())}

    async def answer(self, verb: str, body: str) -> Answer:
        """Carry out `verb`. 404 for one that does not exist, 400 with a sentence for arguments that do not fit."""
        if verb not in self._verbs:
            return _refusal(404, f"no such verb: {verb}; {PREFIX}help has them all")
        method, as_result = self._verbs[verb]
        try:
            call = inspect.signature(method).bind(**(json.loads(body) if body else {}))
        except (TypeError, ValueError) as problem:
            return _refusal(400, f"{verb}: {problem}")
        try:
            result = method(*call.args, **call.kwargs)
            if inspect.isawaitable(result):
                result = await result
        except (ValueError, KeyError) as problem:
            return _refusal(400, f"{verb}: {problem}")
        return ok(as_result(result))


def poll_json(item: SeenPoll) -> dict[str, Any]:
    """A poll as a plain object; a span that is still open ends with null, because JSON has no infinity."""
    spans = [[start, None if end == inf else end] for start, end in item.spans]
    return as_json(item.poll) | {"spans": spans, "late": item.late}


def _call_json(call: Call) -> dict[str, Any]:
    return asdict(call) | {"bot": str(call.bot)}


def _described(method: Method) -> str:
    taken = inspect.signature(method).parameters.values()
    arguments = [
        each.name if each.default is each.empty else f"{each.name}={json.dumps(each.default)}" for each in taken
    ]
    does = " ".join((inspect.getdoc(method) or "").partition("\n\n")[0].split())
    return " ".join(filter(None, [f"({', '.join(arguments)})", does]))


def _refusal(status: int, description: str) -> Answer:
    return Answer(status, json.dumps({"ok": False, "description": description}))
