"""What befalls the wires of a bot's host."""

from __future__ import annotations

from collections.abc import Sequence

from support.hosts import STORES, TELEGRAM
from support.netns import Network, Rules

from .faults import WIRES, OnBot


class _Cut(OnBot):
    far: Sequence[int] = ()

    async def strike(self) -> None:
        self.rules = self.rule(self.ground.network, self.bot.host)

    def rule(self, network: Network, host: int) -> Rules:
        return network.partition([host], self.far)

    async def end(self) -> None:
        self.rules.take_back()


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
    def rule(self, network: Network, host: int) -> Rules:
        return network.mute([host], self.far)


class MuteToStore(_Mute):
    name = "bot's words do not reach the store"
    far = STORES
    needs = WIRES


class MuteToTelegram(_Mute):
    name = "bot's words do not reach Telegram"
    far = (TELEGRAM,)


class _Deaf(_Cut):
    def rule(self, network: Network, host: int) -> Rules:
        return network.mute(self.far, [host])


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

    def rule(self, network: Network, host: int) -> Rules:
        return network.lose(host, 0.2)


class Refused(_Cut):
    """Each connection is reset."""

    name = "store refuses the bot"
    far = STORES
    needs = WIRES

    def rule(self, network: Network, host: int) -> Rules:
        return network.refuse(host, self.far)


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
