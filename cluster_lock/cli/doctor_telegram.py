"""The doctor's checks of Telegram. Nothing here sends a getUpdates: it would take the poll from the bot that runs."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cluster_lock.admin.overview import foreign_value
from cluster_lock.config import Settings
from cluster_lock.driver import Driver
from cluster_lock.election import Role
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.host.listen_address import listen_address
from cluster_lock.telegram.errors import TelegramTokenRefused
from cluster_lock.telegram.locks import telegram_lock
from cluster_lock.values import LEADER, Entry, Record

from .findings import Finding
from .pages import Answer, Unreachable, ask, words

TIMEOUT = 10.0
"""Seconds for the whole of an answer."""
HEALTH_TIMEOUT = 2.0
FIRST_PORT = 1024


async def examine_telegram(driver: Driver, settings: Settings) -> list[Finding]:
    if settings.telegram.token is None:
        text = "no token is set, so Telegram was not asked: fine for `cluster-lock run`"
        return [Finding.warning("telegram", text, "a bot needs TELEGRAM_BOT_TOKEN, or telegram.token_file")]
    try:
        status, me = await _ask(settings, "getMe")
        if status in (401, 404):
            text = f"Telegram refuses the token ({status} {words(me.get('description'))})"
            advice = "copy it from BotFather again; telegram.test_environment has tokens of its own"
            return [Finding.problem("telegram", text, TelegramTokenRefused.exit_code, advice)]
        if status != 200:
            return [Finding.problem("telegram", f"getMe was answered with {status} {words(me.get('description'))}")]
        bot = _result("getMe", me, id=0, username="")
        if not 0 < bot["id"] < 2**63:
            raise Unreachable("getMe was answered without the id of a bot")
        findings = [Finding.ok("telegram", f"the token is that of @{words(bot['username'])}, id {bot['id']}")]
        status, info = await _ask(settings, "getWebhookInfo")
        webhook = _result("getWebhookInfo", info, url="", pending_update_count=0) if status == 200 else {}
    except Unreachable as error:
        return [Finding.problem("telegram", f"{settings.telegram.api} cannot be asked: {error}")]
    if status != 200:
        return [*findings, Finding.warning("webhook", f"not told: {status} {words(info.get('description'))}")]
    findings.append(_webhook(webhook["url"], settings))
    findings.append(await _poller(driver, settings, bot["id"], webhook["pending_update_count"]))
    return findings


def _result(method: str, answer: dict[str, Any], **defaults: object) -> dict[str, Any]:
    """These of what the method has for an answer. Raises Unreachable if one is of another type than its default: it is
    not Telegram that says so."""
    result = answer.get("result")
    if not isinstance(result, dict):
        raise Unreachable(f"{method} was answered with a result that is no object")
    found = {name: result.get(name, default) for name, default in defaults.items()}
    for name, value in found.items():
        if type(value) is not type(defaults[name]):
            raise Unreachable(f"{method} was answered with a result whose {name} is of another type")
    return found


def _webhook(url: str, settings: Settings) -> Finding:
    if not url:
        return Finding.ok("webhook", "none is set")
    try:
        # The host only: the path of a webhook is often its secret.
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    text = f"one is set, to {words(host) or 'an address that is none'}: Telegram answers no getUpdates meanwhile"
    if settings.telegram.delete_webhook == "on_conflict":
        return Finding.warning("webhook", text, "the leader will delete it (telegram.delete_webhook: on_conflict)")
    advice = "call deleteWebhook, or set telegram.delete_webhook: on_conflict"
    return Finding.problem("webhook", text, 1, advice)


async def _poller(driver: Driver, settings: Settings, bot: int, pending: int) -> Finding:
    """Is somebody polling outside of the lock? Telegram tells that to those alone who poll themselves."""
    name = telegram_lock(bot, test=settings.telegram.test_environment)
    try:
        async with asyncio.timeout(settings.timing.request):
            entry: Entry = (await driver.read([LEADER + name])).entries[LEADER + name]
            foreign = await foreign_value(driver, name, request=settings.timing.request)
    except (BackendUnavailable, BackendRefused, TimeoutError) as error:
        return Finding.warning("poller", f"who leads {name} is not known: {error or 'no answer in time'}")
    waiting = f"{pending} updates wait at Telegram"
    if entry.lease is None and foreign is not None:
        text = f"nobody can lead {name}, though it is free: under its key stands what no leader wrote"
        advice = "look at it (`cluster-lock status`), then delete the key with the backend's own tool"
        return Finding.problem("poller", text, BackendRefused.exit_code, advice)
    if entry.lease is None:
        if pending:
            return Finding.ok("poller", f"nobody leads {name}, and nobody else seems to poll: {waiting}")
        text = f"nobody leads {name}; whether a stranger polls cannot be told without taking the poll away"
        return Finding.warning("poller", text, "the first leader will see it, and say so")
    record = Record.from_bytes(entry.record or b"")
    who = f"{record.instance} on {record.host}" if record else f"lease {entry.lease}"
    health = await _health(record, settings) if record is not None else None
    if health is None:
        text = f"{who} leads {name}, {waiting}; its health page is not reachable from here"
        return Finding.ok("poller", f"{text}: whether somebody polls beside it stands there and in its log only")
    conflicts = health.get("conflicts_60s")
    if isinstance(conflicts, int) and conflicts:
        text = f"{who} leads {name} and met {conflicts} conflicts in a minute: somebody polls outside of the lock"
        return Finding.problem("poller", text, 1, "look for another program with this token, or another configuration")
    return Finding.ok("poller", f"{who} leads {name} and met no conflict in the last minute; {waiting}")


async def _health(leader: Record, settings: Settings) -> dict[str, Any] | None:
    """What the leader's own health page says, if it can be had from here."""
    url = page_of(leader, settings.health)
    if url is None:
        return None
    try:
        _, told = await asyncio.to_thread(ask, f"{url}/health", HEALTH_TIMEOUT)
    except Unreachable:
        return None
    return told if (told.get("pid"), told.get("role")) == (leader.pid, Role.LEADER) else None


def page_of(leader: Record, health: str) -> str | None:
    """Where to ask the leader how it is; None if that is not to be done. Anybody who may write to the backend can name
    an address in a record, so it is asked on this host only: on loopback, or where the settings have such a page
    (`health`), and at no port of the system."""
    try:
        given = leader.health or ""
        address = urlsplit(given if "://" in given else f"http://{given}")
        host, port = (address.hostname or "").lower(), address.port or 0
        own = listen_address(health)
    except (ValueError, AttributeError, TypeError):
        return None
    if address.scheme != "http" or address.username is not None or port < FIRST_PORT:
        return None
    if leader.host != socket.gethostname() or not (_is_loopback(host) or (own is not None and host == own.host)):
        return None
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:  # a name
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


async def _ask(settings: Settings, method: str) -> Answer:
    token = settings.bot_token().get_secret_value()
    test = "/test" if settings.telegram.test_environment else ""
    url = f"{settings.telegram.api.rstrip('/')}/bot{token}{test}/{method}"
    return await asyncio.to_thread(ask, url, TIMEOUT, token)
