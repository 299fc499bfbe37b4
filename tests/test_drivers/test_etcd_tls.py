"""etcd over TLS: who is trusted, who is refused, and what is said about it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.aio import run
from support.certs import Authority
from support.etcd import LOCK, opened, taken
from support.wiretap import Wiretap

from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused
from cluster_lock.testing.servers import EtcdServer, ServerTLS
from cluster_lock.testing.servers.base import free_ports

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def server(etcd_release: str, tls: ServerTLS) -> Iterator[EtcdServer]:
    """Demands a client certificate."""
    with EtcdServer(release=etcd_release, tls=tls) as server:
        yield server


@pytest.fixture
def access(tls: ServerTLS) -> dict[str, Any]:
    return {"ca": tls.ca, "cert": tls.client_cert, "key": tls.client_key}


def refusal(endpoints: list[str], kind: type[Exception], **access: Any) -> str:
    """What each of two verbs, a request and a stream, is refused with: first when connecting, then in back-off."""

    async def main() -> str:
        async with opened(endpoints, request_timeout=3.0, **access) as driver:
            for verb in (partial(driver.read, [LOCK]), partial(driver.wait_changed, [LOCK], 1, 5.0)):
                with pytest.raises(kind) as caught:
                    await verb()
                assert type(caught.value) is not BackendUnavailable
            return str(caught.value)

    return run(main())


async def test_right_ca_and_certificate(server: EtcdServer, access: dict[str, Any]) -> None:
    """With the CA and a client certificate that it signed everything works, by address or by name, watches too."""
    for endpoint in (server.endpoint, server.endpoint.replace("127.0.0.1", "localhost")):
        async with opened([endpoint], **access) as driver:
            lease = await driver.grant_lease("a", 30)
            grant = await taken(driver, lease)
            position = (await driver.read([LOCK])).position
            await driver.renew(lease)
            await driver.release(grant, b"farewell")
            assert (await driver.wait_changed([LOCK], position, 5.0)).entries[LOCK].lease is None


async def test_ca_alone_where_no_certificate_is_wanted(etcd_release: str, tls: ServerTLS) -> None:
    """A server that asks for no client certificate is reached with the CA alone, and without a scheme."""
    plain = ServerTLS(tls.ca, tls.cert, tls.key)
    with EtcdServer(release=etcd_release, tls=plain) as server:
        async with opened([server.endpoint.removeprefix("https://")], ca=tls.ca) as driver:
            await taken(driver, await driver.grant_lease("a", 30))


def test_wrong_ca(server: EtcdServer, access: dict[str, Any], tmp_path: Path) -> None:
    """A server whose certificate another CA signed is not spoken to, and the text names our CA's file."""
    other = Authority(tmp_path, "other").ca
    assert str(other) in refusal(server.endpoints, BackendRefused, **access | {"ca": other})


def test_public_authorities_do_not_vouch_for_it(server: EtcdServer, access: dict[str, Any]) -> None:
    """Without a CA of one's own a private certificate is not trusted."""
    refusal(server.endpoints, BackendRefused, **access | {"ca": None})


def test_certificate_of_another_host(etcd_release: str, tmp_path: Path) -> None:
    """A certificate that the right CA signed for another host is not trusted."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("elsewhere", "elsewhere.example")
    with EtcdServer(release=etcd_release, tls=ServerTLS(authority.ca, cert, key)) as server:
        refusal(server.endpoints, BackendRefused, ca=authority.ca)


def test_no_client_certificate(server: EtcdServer, tls: ServerTLS) -> None:
    """Coming without the certificate that the server demands is refused as a matter of permission."""
    assert "or wants one" in refusal(server.endpoints, PermissionRefused, ca=tls.ca)


def test_client_certificate_of_another_ca(server: EtcdServer, tls: ServerTLS, tmp_path: Path) -> None:
    """A client certificate that another CA signed is refused as a matter of permission, and its file is named."""
    cert, key = Authority(tmp_path).issue("stranger")
    assert str(cert) in refusal(server.endpoints, PermissionRefused, ca=tls.ca, cert=cert, key=key)


async def test_an_untrusted_endpoint_ends_the_request(
    etcd_release: str, access: dict[str, Any], tmp_path: Path
) -> None:
    """Behind an endpoint whose certificate is not trusted no other one is asked, now or later, so that no password goes
    there; the text names the endpoint. Beside one that is down it may pass."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("server", "127.0.0.1")
    with EtcdServer(release=etcd_release, tls=ServerTLS(authority.ca, cert, key)) as untrusted:
        async with Wiretap() as wiretap:
            endpoints = [untrusted.endpoint, wiretap.url]
            async with opened(endpoints, user="me", password="pa55word", **access) as driver:
                for verb in (partial(driver.read, [LOCK]), partial(driver.wait_changed, [LOCK], 1, 5.0)) * 2:
                    with pytest.raises(BackendRefused, match=untrusted.endpoint):
                        await verb()
            assert wiretap.heard == b""
        dead = f"https://127.0.0.1:{next(free_ports())}"
        async with opened([dead, untrusted.endpoint], **access) as driver:
            with pytest.raises(BackendUnavailable, match=untrusted.endpoint):
                await driver.read([LOCK])


async def test_tls_asked_of_a_plain_server(etcd_server: EtcdServer, tls: ServerTLS) -> None:
    """https to a server that speaks http gets no answer, and nothing is sent in the clear instead."""
    async with opened([etcd_server.endpoint.replace("http", "https")], ca=tls.ca) as driver:
        with pytest.raises(BackendUnavailable):
            await driver.read([LOCK])


async def test_plain_request_to_a_tls_server(server: EtcdServer) -> None:
    """http to a server that speaks https gets no answer, and the text says what may be the reason."""
    async with opened([server.endpoint.replace("https", "http")], request_timeout=2.0) as driver:
        with pytest.raises(BackendUnavailable, match="it may want https"):
            await driver.read([LOCK])
