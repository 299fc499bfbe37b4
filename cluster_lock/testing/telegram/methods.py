"""The Bot API's methods other than getUpdates: those that touch the poll, and enough of the rest for handlers."""

from __future__ import annotations

import math
from collections.abc import Callable

from . import updates
from .answers import Answer, error, ok, too_many_requests
from .bot_state import BotState
from .query import Query

CLOSE_ALLOWED_AFTER = 600.0  # Client.cpp:12641-12645
ALREADY_CLOSED = "Bad Request: the bot has already been closed"
_NAMED_CHANNEL = -1001000000001  # where messages to "@somebody" go

_SENDING = frozenset(
    {
        "sendmessage",
        "sendphoto",
        "sendaudio",
        "senddocument",
        "sendvideo",
        "sendanimation",
        "sendvoice",
        "sendvideonote",
        "sendlocation",
        "sendvenue",
        "sendcontact",
        "sendpoll",
        "senddice",
        "sendsticker",
        "sendinvoice",
        "sendgame",
        "forwardmessage",
        "editmessagetext",
        "editmessagecaption",
        "editmessagemedia",
        "editmessagereplymarkup",
        "editmessagelivelocation",
        "stopmessagelivelocation",
    }
)
_SAYING_TRUE = frozenset(
    {
        "answercallbackquery",
        "answerinlinequery",
        "answerprecheckoutquery",
        "answershippingquery",
        "refundstarpayment",
        "sendchataction",
        "setmessagereaction",
        "deletemessage",
        "deletemessages",
        "pinchatmessage",
        "unpinchatmessage",
        "unpinallchatmessages",
        "setmycommands",
        "deletemycommands",
        "setmyname",
        "setmydescription",
        "setmyshortdescription",
        "setchatmenubutton",
        "banchatmember",
        "unbanchatmember",
        "restrictchatmember",
        "promotechatmember",
        "approvechatjoinrequest",
        "declinechatjoinrequest",
        "leavechat",
    }
)


class Methods:
    """Answers one bot's requests. Counts the messages it pretends to send: every one has its own id."""

    def __init__(self, unix_time: Callable[[], int]) -> None:
        self._unix_time = unix_time
        self._sent = 0

    def answer(self, bot: BotState, query: Query) -> None:
        """Answer `query`, now or (a parked getUpdates, a delayed conflict) later."""
        refusal = bot.refusal(query)
        if refusal is None and query.method == "close" and bot.opened_at is None:
            refusal = error(400, ALREADY_CLOSED)
        if refusal is not None:
            query.reply(refusal)
            return
        bot.open()
        if query.method == "getupdates":
            bot.get_updates(query)
        elif query.method in _SENDING:
            query.reply(self._send(bot, query))
        elif query.method in _SAYING_TRUE:
            query.reply(ok(True))
        else:
            method = _METHODS.get(query.method)
            query.reply(error(404, "Not Found: method not found") if method is None else method(bot, query))

    def _send(self, bot: BotState, query: Query) -> Answer:
        if query.argument("inline_message_id"):
            return ok(True)
        chat, text = query.argument("chat_id"), query.argument("text")
        if not chat:
            return error(400, "Bad Request: chat_id is empty")
        if query.method in {"sendmessage", "editmessagetext"} and not text:
            return error(400, "Bad Request: message text is empty")
        self._sent += 1
        message_id = query.integer("message_id", 1_000_000 + self._sent)
        sender = {"id": bot.key.bot_id, "is_bot": True, "first_name": f"Bot {bot.key.bot_id}"}
        where = updates.chat_json(_chat_id(chat) or _NAMED_CHANNEL)
        return ok(updates.message_json(message_id, sender, where, self._unix_time(), text))


def _get_me(bot: BotState, query: Query) -> Answer:
    return ok(updates.bot_json(bot.key.bot_id))


def _set_webhook(bot: BotState, query: Query) -> Answer:
    url = query.argument("url") if query.method == "setwebhook" else ""
    now = bot.clock.now()
    if url:
        if now < bot.next_webhook_change:
            return too_many_requests(1)  # 15733-15738
        bot.next_webhook_change = now + 1.0
    if url == bot.webhook and not query.flag("drop_pending_updates"):
        bot.allow(query.argument("allowed_updates"))
        return ok(True, "Webhook is already set" if url else "Webhook is already deleted")
    if url:
        bot.terminate_for_webhook()  # deleteWebhook does not touch the parked poll (15779-15781)
    was_set, bot.webhook = bool(bot.webhook), url
    if query.flag("drop_pending_updates"):
        bot.clear(query)
    if not url:
        return ok(True, "Webhook was deleted" if was_set else "Webhook is already deleted")
    bot.allow(query.argument("allowed_updates"))
    return ok(True, "Webhook was set")


def _get_webhook_info(bot: BotState, query: Query) -> Answer:
    """Never touches the poll, so anybody may ask (the count includes what is delivered and not acknowledged)."""
    info = {"url": bot.webhook, "has_custom_certificate": False, "pending_update_count": len(bot.queue)}
    if bot.webhook:
        info["max_connections"] = 40
    if bot.allowed != updates.DEFAULT_ALLOWED:
        info["allowed_updates"] = sorted(bot.allowed)
    return ok(info)


def _close(bot: BotState, query: Query) -> Answer:
    assert bot.opened_at is not None
    remaining = bot.opened_at + CLOSE_ALLOWED_AFTER - bot.clock.now()
    if remaining > 0:
        return too_many_requests(math.ceil(remaining))
    bot.close()
    return ok(True)


def _log_out(bot: BotState, query: Query) -> Answer:
    bot.logged_out = True
    bot.clear(query)
    bot.close()
    return ok(True)


def _get_chat(bot: BotState, query: Query) -> Answer:
    chat = _chat_id(query.argument("chat_id"))
    return error(400, "Bad Request: chat not found") if chat is None else ok(updates.chat_json(chat))


def _chat_id(text: str) -> int | None:
    return int(text) if text.removeprefix("-").isdecimal() else None


def _get_my_commands(bot: BotState, query: Query) -> Answer:
    return ok([])


_METHODS: dict[str, Callable[[BotState, Query], Answer]] = {
    "getme": _get_me,
    "setwebhook": _set_webhook,
    "deletewebhook": _set_webhook,
    "getwebhookinfo": _get_webhook_info,
    "close": _close,
    "logout": _log_out,
    "getchat": _get_chat,
    "getmycommands": _get_my_commands,
}
