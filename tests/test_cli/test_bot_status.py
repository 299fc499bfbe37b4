"""`bot status` by what the health page of the instance says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster_lock.cli import main
from cluster_lock.keeper.slots import slot


@contextmanager
def page(status: str) -> Iterator[str]:
    """A health page that says so; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"status": status, "role": "standby"}).encode()
            self.send_response(503 if status in ("failing", "stuck") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "code"), [("running", 0), ("starting", 0), ("stopping", 0), ("failing", 1), ("stuck", 1)]
)
def test_the_code_is_that_of_the_page(
    status: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An instance that runs and does not work ends it with 1, as documented, whatever the reason."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "42:SECRETSECRET")
    with page(status) as url, slot("web-1", "telegram/42", tmp_path / "state") as held:
        held.say(health=url)
        assert main(["bot", "status", "--json", "--instance", "web-1"]) == code
    assert json.loads(capsys.readouterr().out)["status"] == status
