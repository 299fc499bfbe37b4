"""What befalls the wires of a bot's host."""

from __future__ import annotations

from collections.abc import Sequence

from support.hosts import STORES, TELEGRAM

from .faults import WIRES, OnBot


class _Cut(OnBot):
    """The rules of a host's firewall are its own: to flush them ends this fault, and what else was done to the host."""

    far: Sequence[int] = ()

    async def strike(self) -> None:
        self.ground.network.partition([self.bot.host], self.far)

    async def end(self) -> None:
        self.ground.network.hosts[self.bot.host].run("iptables", "-F")
        for peer in self.far:
            self.ground.network.hosts[peer].run("iptables", "-F")


class CutFromStore(_Cut):
    name = "bot cut from store"
    far = STORES
    needs = WIRES


class CutFromTelegram(_Cut):
    name = "bot cut from Telegram"
    far = (TELEGRAM,)


class CutFromAll(_Cut):
    name = "bot cut from store and Telegram"
    far = (*STORES, TELEGRAM)
    needs = WIRES


class _Mute(_Cut):
    async def strike(self) -> None:
        self.ground.network.mute([self.bot.host], self.far)


class MuteToStore(_Mute):
    name = "bot's words do not reach the store"
    far = STORES
    needs = WIRES


class MuteToTelegram(_Mute):
    name = "bot's words do not reach Telegram"
    far = (TELEGRAM,)


class _Deaf(_Cut):
    async def strike(self) -> None:
        self.ground.network.mute(self.far, [self.bot.host])


class DeafToStore(_Deaf):
    name = "store's words do not reach the bot"
    far = STORES
    needs = WIRES


class DeafToTelegram(_Deaf):
    name = "Telegram's words do not reach the bot"
    far = (TELEGRAM,)


class Lossy(_Cut):
    """A fifth of all packets is lost, each way."""

    name = "bot's packets are lost"

    async def strike(self) -> None:
        self.ground.network.lose(self.bot.host, 0.2)


class Refused(_Cut):
    """Each connection is reset."""

    name = "store refuses the bot"
    far = STORES
    needs = WIRES

    async def strike(self) -> None:
        self.ground.network.refuse(self.bot.host, self.far)


class LinkDown(OnBot):
    """The host's own end knows: what is written waits in the kernel."""

    name = "bot's link is down"

    async def strike(self) -> None:
        self.ground.network.unplug(self.bot.host)

    async def end(self) -> None:
        self.ground.network.plug(self.bot.host)


ALL = (
    CutFromStore,
    CutFromTelegram,
    CutFromAll,
    MuteToStore,
    MuteToTelegram,
    DeafToStore,
    DeafToTelegram,
    Lossy,
    Refused,
    LinkDown,
)
