"""A server's answer that repeats what it was sent: the part that an error quotes holds no part of a secret."""

from __future__ import annotations

import pytest
from support.echo import Echo

from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.errors import ClusterLockError
from cluster_lock.host.masking import keep_secret, masked

TOKEN = "11111111-2222-3333-4444-555555555555"


async def test_a_secret_is_not_cut_in_two() -> None:
    """Wherever in the answer the token stands, also across the end of what is quoted, not six characters of it show."""
    keep_secret(TOKEN)
    pages = iter(range(255, 305, 2))
    with Echo(page=lambda asked: "x" * next(pages) + TOKEN) as echo:
        driver = ConsulDriver([echo.url], token=TOKEN, request_timeout=5)
        await driver.open()
        texts = []
        for _ in range(20):
            with pytest.raises(ClusterLockError) as refused:
                await driver.read(["leader/x"])
            texts.append(masked(str(refused.value)))
        await driver.close()
        assert [text for text in texts if "xxx" not in text or TOKEN[:6] in text] == []
