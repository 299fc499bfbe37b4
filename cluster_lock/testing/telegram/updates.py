"""Updates as Telegram would make them, and the rules of their kinds: which exist, how long each is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_encoder = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for each update

KINDS = frozenset(
    {
        "message",
        "edited_message",
        "channel_post",
        "edited_channel_post",
        "inline_query",
        "chosen_inline_result",
        "callback_query",
        "custom_event",
        "custom_query",
        "shipping_query",
        "pre_checkout_query",
        "poll",
        "poll_answer",
        "my_chat_member",
        "chat_member",
        "chat_join_request",
        "chat_boost",
        "removed_chat_boost",
        "message_reaction",
        "message_reaction_count",
        "business_connection",
        "business_message",
        "edited_business_message",
        "deleted_business_messages",
        "purchased_paid_media",
    }
)
DEFAULT_ALLOWED = KINDS - {"chat_member", "message_reaction", "message_reaction_count"}  # Client.h:1456

QUERIES = frozenset({"callback_query", "inline_query", "pre_checkout_query", "shipping_query"})
"""Somebody must answer them within seconds, so they may overtake others."""

DAY = 86400.0
_SHORT_LIVED = {  # Client.cpp, the callers of add_update: not everything is kept for a day
    "inline_query": 30.0,
    "chosen_inline_result": 600.0,
    "callback_query": 150.0,
    "shipping_query": 150.0,
    "pre_checkout_query": 150.0,
    "custom_event": 600.0,
}


def time_to_live(kind: str) -> float:
    """Seconds for which the server keeps an unacknowledged update of this kind."""
    return _SHORT_LIVED.get(kind, DAY)


def parse_allowed(text: str) -> frozenset[str] | None:
    """`allowed_updates` as the server reads it: None for "leave it as it is" (Client.cpp, get_allowed_update_types)."""
    try:
        names = json.loads(text) if text else None
    except ValueError:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return frozenset(name.lower() for name in names) & KINDS or DEFAULT_ALLOWED


@dataclass(frozen=True, slots=True)
class Draft:
    """What a new update is about, before it has a shape."""

    bot_id: int
    chat_id: int
    user_id: int
    text: str
    number: int
    """Counts the updates of this chat from 1; serves as message id and in every id that must be unique."""
    date: int


def compose(kind: str, draft: Draft) -> Json:
    """The value of an update of `kind`. ValueError for a kind that has no builder here: push it raw."""
    builder = _BUILDERS.get(kind)
    if builder is None:
        raise ValueError(f"no builder for updates of kind {kind!r} (there are {', '.join(_BUILDERS)}); use push_raw")
    return builder(draft)


def body_of(kind: str, value: Json) -> str:
    """The text that the queue keeps: the update without its id, which only the queue knows."""
    return f'"{kind}":{_encoder.encode(value)}'


def chat_of(value: Json) -> int:
    """The id by which a bot keeps the order of updates: the chat's, else the sender's, else 0."""
    for path in (("chat",), ("message", "chat"), ("from",), ("user",)):
        node: Any = value
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(node.get("id"), int):
            return int(node["id"])
    return 0


def chat_json(chat_id: int) -> Json:
    """A chat by Telegram's number ranges: positive private, -100... supergroup, other negative ones groups."""
    if chat_id > 0:
        return {"id": chat_id, "first_name": f"User {chat_id}", "username": f"user_{chat_id}", "type": "private"}
    kind = "supergroup" if str(chat_id).startswith("-100") else "group"
    return {"id": chat_id, "title": f"Chat {abs(chat_id)}", "type": kind}


def user_json(user_id: int) -> Json:
    return {
        "id": user_id,
        "is_bot": False,
        "first_name": f"User {user_id}",
        "username": f"user_{user_id}",
        "language_code": "en",
    }


def bot_json(bot_id: int) -> Json:
    return {
        "id": bot_id,
        "is_bot": True,
        "first_name": f"Bot {bot_id}",
        "username": f"simulated_{bot_id}_bot",
        "can_join_groups": True,
        "can_read_all_group_messages": False,
        "supports_inline_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }


def message_json(message_id: int, sender: Json, chat: Json, date: int, text: str) -> Json:
    message: Json = {"message_id": message_id, "from": sender, "chat": chat, "date": date, "text": text}
    if text.startswith("/"):
        command = text.split(maxsplit=1)[0]
        message["entities"] = [{"offset": 0, "length": len(command), "type": "bot_command"}]
    return message


def _message(draft: Draft) -> Json:
    return message_json(draft.number, user_json(draft.user_id), chat_json(draft.chat_id), draft.date, draft.text)


def _edited_message(draft: Draft) -> Json:
    return _message(draft) | {"edit_date": draft.date}


def _channel_post(draft: Draft) -> Json:
    channel = {"id": draft.chat_id, "title": f"Channel {abs(draft.chat_id)}", "type": "channel"}
    return {
        "message_id": draft.number,
        "sender_chat": channel,
        "chat": channel,
        "date": draft.date,
        "text": draft.text,
    }


def _edited_channel_post(draft: Draft) -> Json:
    return _channel_post(draft) | {"edit_date": draft.date}


def _callback_query(draft: Draft) -> Json:
    bot = {"id": draft.bot_id, "is_bot": True, "first_name": f"Bot {draft.bot_id}"}
    return {
        "id": str(draft.chat_id * 1_000_000 + draft.number),
        "from": user_json(draft.user_id),
        "message": message_json(draft.number, bot, chat_json(draft.chat_id), draft.date, "Choose"),
        "chat_instance": str(draft.chat_id * 31),
        "data": draft.text,
    }


def _inline_query(draft: Draft) -> Json:
    return {
        "id": str(draft.user_id * 1_000_000 + draft.number),
        "from": user_json(draft.user_id),
        "chat_type": "private",
        "query": draft.text,
        "offset": "",
    }


def _chat_member(draft: Draft) -> Json:
    member = {"user": user_json(draft.user_id)}
    return {
        "chat": chat_json(draft.chat_id),
        "from": user_json(draft.user_id),
        "date": draft.date,
        "old_chat_member": member | {"status": "left"},
        "new_chat_member": member | {"status": "member"},
    }


def _message_reaction(draft: Draft) -> Json:
    return {
        "chat": chat_json(draft.chat_id),
        "message_id": draft.number,
        "user": user_json(draft.user_id),
        "date": draft.date,
        "old_reaction": [],
        "new_reaction": [{"type": "emoji", "emoji": draft.text or "👍"}],
    }


_BUILDERS: dict[str, Callable[[Draft], Json]] = {
    "message": _message,
    "edited_message": _edited_message,
    "channel_post": _channel_post,
    "edited_channel_post": _edited_channel_post,
    "callback_query": _callback_query,
    "inline_query": _inline_query,
    "chat_member": _chat_member,
    "my_chat_member": _chat_member,
    "message_reaction": _message_reaction,
}
