"""The doctor's checks of Telegram. Nothing here sends a getUpdates: it would take the poll from whoever polls."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import urllib.error
import urllib.request
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cluster_lock.config import Settings
from cluster_lock.driver import Driver
from cluster_lock.errors import BackendRefused, BackendUnavailable, TelegramTokenRefused
from cluster_lock.leadership import Role
from cluster_lock.listening import listen_address
from cluster_lock.masking import masked
from cluster_lock.values import LEADER, Entry, Record, telegram_lock

from .findings import Finding

TIMEOUT = 10.0
HEALTH_TIMEOUT = 2.0
FIRST_PORT = 1024


class _Unreachable(Exception):
    """Telegram gave no answer of its own."""


async def examine_telegram(driver: Driver, settings: Settings) -> list[Finding]:
    if settings.telegram.token is None:
        text = "no token is set, so Telegram was not asked: fine for `cluster-lock run`"
        return [Finding.warning("telegram", text, "a bot needs TELEGRAM_BOT_TOKEN, or telegram.token_file")]
    try:
        status, me = await _ask(settings, "getMe")
        if status in (401, 404):
            text = f"Telegram refuses the token ({status} {me.get('description', '')})"
            advice = "copy it from BotFather again; telegram.test_environment has tokens of its own"
            return [Finding.problem("telegram", text, TelegramTokenRefused.exit_code, advice)]
        if status != 200:
            return [Finding.problem("telegram", f"getMe was answered with {status} {me.get('description', '')}")]
        bot = me["result"]
        findings = [Finding.ok("telegram", f"the token is that of @{bot.get('username')}, id {bot['id']}")]
        status, info = await _ask(settings, "getWebhookInfo")
    except _Unreachable as error:
        return [Finding.problem("telegram", f"{settings.telegram.api} cannot be asked: {error}")]
    if status != 200:
        return [*findings, Finding.warning("webhook", f"not told: {status} {info.get('description', '')}")]
    pending = int(info["result"].get("pending_update_count", 0))
    findings.append(_webhook(info["result"], settings))
    findings.append(await _poller(driver, settings, int(bot["id"]), pending))
    return findings


def _webhook(info: dict[str, Any], settings: Settings) -> Finding:
    if not info.get("url"):
        return Finding.ok("webhook", "none is set")
    # The host only: the path of a webhook is often its secret.
    text = f"one is set, to {urlsplit(info['url']).hostname}: Telegram answers no getUpdates meanwhile"
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
    except (BackendUnavailable, BackendRefused, TimeoutError) as error:
        return Finding.warning("poller", f"who leads {name} is not known: {error or 'no answer in time'}")
    waiting = f"{pending} updates wait at Telegram"
    if entry.lease is None:
        if pending:
            return Finding.ok("poller", f"nobody leads {name}, and nobody else seems to poll: {waiting}")
        text = f"nobody leads {name}; whether somebody polls outside of the lock cannot be told without taking his poll"
        return Finding.warning("poller", text, "the first leader will see it, and say so")
    record = Record.from_bytes(entry.record or b"")
    who = f"{record.instance} on {record.host}" if record else f"lease {entry.lease}"
    health = await _health(record, settings) if record is not None else None
    if health is None:
        text = f"{who} leads {name}, {waiting}; its health page is not reachable from here"
        return Finding.ok("poller", f"{text}: whether somebody polls beside it stands there and in its log only")
    conflicts = health.get("conflicts_60s") or 0
    if conflicts:
        text = f"{who} leads {name} and met {conflicts} conflicts in a minute: somebody polls outside of the lock"
        return Finding.problem("poller", text, 1, "look for another program with this token, or another configuration")
    return Finding.ok("poller", f"{who} leads {name} and met no conflict in the last minute; {waiting}")


async def _health(leader: Record, settings: Settings) -> dict[str, Any] | None:
    """What the leader's own health page says, if it can be had from here."""
    url = page_of(leader, settings.health)
    if url is None:
        return None
    try:
        _, told = await asyncio.to_thread(_get, f"{url}/health", HEALTH_TIMEOUT, "")
    except _Unreachable:
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


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


async def _ask(settings: Settings, method: str) -> tuple[int, dict[str, Any]]:
    token = settings.bot_token().get_secret_value()
    test = "/test" if settings.telegram.test_environment else ""
    url = f"{settings.telegram.api.rstrip('/')}/bot{token}{test}/{method}"
    return await asyncio.to_thread(_get, url, TIMEOUT, token)


def _get(url: str, timeout: float, secret: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON. Raises _Unreachable; without a proxy of the environment, which a bot would not use either, and
    to no other place than `url`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(url, timeout=timeout) as answer:
            status, body = answer.status, answer.read(1_000_000)
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read(1_000_000)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: an address that is none
        raise _Unreachable(masked(str(getattr(error, "reason", error)), [secret] if secret else [])) from None
    try:
        content = json.loads(body)
    except ValueError:
        raise _Unreachable(f"it answered {status} with what is no JSON") from None
    if not isinstance(content, dict):
        raise _Unreachable(f"it answered {status} with what is no object")
    return status, content
