"""A server that gives each request one answer, whatever it asks."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.serving import Serving


class Answering(Serving):
    """`with Answering(b"[]") as server:` ... `server.url`. `pages`: other answers, by path."""

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        pages: Mapping[str, bytes] | None = None,
    ) -> None:
        more = {"X-Consul-Index": "5", **(headers or {})}

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                content = (pages or {}).get(self.path.partition("?")[0], body)
                self.send_response(status)
                for name, value in {**more, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(content)
                except OSError:  # who asked has heard enough
                    self.close_connection = True

            do_GET = do_PUT = answer  # noqa: N815 - as the standard library asks for

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
                pass

        super().__init__(Handler)
