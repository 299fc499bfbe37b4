"""What the bot answers. They run on the leader, so they answer for the leader."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta

from aiogram import Router
from aiogram.filters import Command, CommandStart
from aiogram.types import Message

from cluster_lock import clock
from cluster_lock.election import Term

router = Router(name="commands")


@router.message(CommandStart())
async def start(message: Message) -> None:
    await message.answer("Hello. One of several servers answers you, and another one if that is lost. /help")


@router.message(Command("help"))
async def help_(message: Message) -> None:
    await message.answer("/wholeads - which server leads, in which term, since when\n/help - this")


@router.message(Command("wholeads"))
async def who_leads(message: Message, term: Term, instance: str) -> None:
    """`term` comes from the poller, `instance` from `start`; every handler may ask for them."""
    since = datetime.fromisoformat(clock.utc_text()) - timedelta(seconds=clock.now() - term.since)
    await message.answer(
        f"{instance} on {socket.gethostname()} leads\n"
        f"term {term.fencing_token} (the lock was {term.origin})\n"
        f"since {since:%Y-%m-%d %H:%M:%S} UTC"
    )
