"""The other methods, in stepped time: webhooks, close, logOut, tokens, messages."""

from __future__ import annotations

from typing import Any

import pytest
from support.botapi import TEXT_WEBHOOK, Desk, refusal, result

URL = "https://example.org/hook"


def test_a_webhook_refuses_polls() -> None:
    """While a webhook is set getUpdates is answered 409 with its own text, through the same throttle."""
    desk = Desk()
    desk.ask("setWebhook", url=URL)
    assert refusal(desk.poll()) == (409, TEXT_WEBHOOK)
    held = desk.poll(client="b")
    assert held.answer is None
    desk.wait(3.0)
    assert refusal(held) == (409, TEXT_WEBHOOK)


def test_setting_a_webhook_ends_the_parked_poll() -> None:
    """The parked poll gets a 409 that names setWebhook; deleting the webhook ends nothing."""
    desk = Desk()
    parked = desk.poll(timeout=50)
    desk.ask("setWebhook", url=URL)
    assert refusal(parked) == (409, "Conflict: terminated by setWebhook request")
    assert desk.ask("deleteWebhook").answer is not None
    parked = desk.poll(timeout=50)
    desk.ask("deleteWebhook")
    assert parked.answer is None


def test_webhook_answers_say_what_changed() -> None:
    """Descriptions tell set, already set, deleted and already deleted apart."""
    desk = Desk()

    def say(method: str, **arguments: str) -> str:
        desk.wait(1.0)
        answer = desk.ask(method, **arguments).answer
        assert answer is not None
        return str(answer.json()["description"])

    assert say("deleteWebhook") == "Webhook is already deleted"
    assert say("setWebhook", url=URL) == "Webhook was set"
    assert say("setWebhook", url=URL) == "Webhook is already set"
    assert say("setWebhook", url="") == "Webhook was deleted"


def test_set_webhook_is_limited_to_one_a_second() -> None:
    """A second setWebhook within a second is told to come back after one."""
    desk = Desk()
    desk.ask("setWebhook", url=URL)
    assert refusal(desk.ask("setWebhook", url=URL)) == (429, "Too Many Requests: retry after 1")
    desk.wait(1.0)
    assert result(desk.ask("setWebhook", url=URL)) is True


def test_updates_pile_up_behind_a_webhook_and_can_be_dropped() -> None:
    """getWebhookInfo counts what is queued; drop_pending_updates clears it, also when no webhook was set."""
    desk = Desk()
    desk.ask("setWebhook", url=URL)
    desk.push(3)
    info = result(desk.ask("getWebhookInfo"))
    assert (info["url"], info["pending_update_count"]) == (URL, 3)
    desk.ask("deleteWebhook")
    desk.ask("deleteWebhook", drop_pending_updates="True")
    assert desk.pending == 0
    assert desk.simulator.oracle.report().lost == 3


def test_get_webhook_info_does_not_touch_the_poll() -> None:
    """Anybody may ask while somebody polls; the count includes what is delivered and not acknowledged."""
    desk = Desk()
    parked = desk.poll(timeout=50)
    assert result(desk.ask("getWebhookInfo", client="doctor"))["pending_update_count"] == 0
    assert parked.answer is None
    desk.push()
    desk.wait(0.01)
    assert result(desk.ask("getWebhookInfo"))["pending_update_count"] == 1


def test_get_webhook_info_names_only_unusual_allowed_updates() -> None:
    """allowed_updates is there only when it differs from the default."""
    desk = Desk()
    assert "allowed_updates" not in result(desk.ask("getWebhookInfo"))
    desk.poll(allowed_updates='["message"]')
    assert result(desk.ask("getWebhookInfo"))["allowed_updates"] == ["message"]


def test_close_is_refused_for_ten_minutes_and_then_happens_once() -> None:
    """429 with what is left of the ten minutes, then true with the parked poll answered, then 400."""
    desk = Desk()
    desk.poll()
    desk.wait(100)
    assert refusal(desk.ask("close")) == (429, "Too Many Requests: retry after 500")
    desk.wait(500)
    parked = desk.poll(timeout=50)
    assert result(desk.ask("close")) is True
    assert result(parked) == []
    assert refusal(desk.ask("close")) == (400, "Bad Request: the bot has already been closed")
    assert result(desk.poll()) == []
    assert refusal(desk.ask("close"))[0] == 429


def test_logging_out_empties_the_queue_and_refuses_everything() -> None:
    """After logOut every method is answered 400 "Logged out" and the updates are gone."""
    desk = Desk()
    parked = desk.poll(timeout=50, offset=7)
    desk.push()
    assert result(desk.ask("logOut")) is True
    assert result(parked) == []
    assert refusal(desk.poll()) == (400, "Logged out")
    desk.simulator.restore(42)
    assert result(desk.poll()) == []


def test_a_revoked_token_is_unauthorized_and_a_new_one_is_not() -> None:
    """Revoking a token refuses that token only; revoking the bot refuses all of them."""
    desk = Desk()
    parked = desk.poll(timeout=50, token="42:old-token-not-real")
    desk.simulator.revoke("42:old-token-not-real")
    assert result(parked) == []
    assert refusal(desk.poll(token="42:old-token-not-real")) == (401, "Unauthorized")
    assert result(desk.ask("getMe", token="42:new-token-not-real"))["id"] == 42
    desk.simulator.revoke(42)
    assert refusal(desk.ask("getMe", token="42:new-token-not-real")) == (401, "Unauthorized")


def test_a_restarting_server_says_so() -> None:
    """500 "Internal Server Error: restart" until it is back, and the parked poll is answered with nothing."""
    desk = Desk()
    parked = desk.poll(timeout=50)
    desk.simulator.restarting(42)
    assert result(parked) == []
    assert refusal(desk.poll()) == (500, "Internal Server Error: restart")
    desk.simulator.restore(42)
    assert result(desk.poll()) == []


def test_messages_that_bots_send_have_ids_and_are_kept() -> None:
    """sendMessage answers with a message of the chat, each with its own id, and calls() shows who sent what."""
    desk = Desk()
    first = result(desk.ask("sendMessage", chat_id=-1001234567890123, text="one"))
    second = result(desk.ask("sendMessage", chat_id=7, text="two", client="b"))
    assert first["chat"] == {"id": -1001234567890123, "title": "Chat 1001234567890123", "type": "supergroup"}
    assert first["message_id"] != second["message_id"]
    assert [(call.client, call.arguments["text"]) for call in desk.simulator.calls("sendmessage")] == [
        ("a", "one"),
        ("b", "two"),
    ]


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("sendMessage", {"text": "x"}, (400, "Bad Request: chat_id is empty")),
        ("sendMessage", {"chat_id": 1}, (400, "Bad Request: message text is empty")),
        ("getChat", {"chat_id": "nobody"}, (400, "Bad Request: chat not found")),
        ("inventMethod", {}, (404, "Not Found: method not found")),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    method: str, arguments: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Each gets the status and the words of the real server."""
    assert refusal(Desk().ask(method, **arguments)) == expected


@pytest.mark.parametrize("method", ["answerCallbackQuery", "sendChatAction", "setMyCommands", "deleteMessage"])
def test_what_handlers_usually_call_is_answered_true(method: str) -> None:
    """Handlers run against the simulator without being changed."""
    assert result(Desk().ask(method)) is True
