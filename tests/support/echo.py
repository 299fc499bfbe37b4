"""A server that answers each request with what it was asked, headers and all, as a proxy's error page may."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.serving import Serving


class Echo(Serving):
    """`with Echo() as echo:` ... `echo.url`. `page`: what is made of the request's own text."""

    def __init__(self, status: int = 500, page: Callable[[str], str] = lambda asked: f"<html>{asked}</html>") -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = page(f"{self.command} {self.path} {dict(self.headers)}").encode()
                self.send_response(status, f"no {self.path[:100]}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - as the standard library asks for

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
                pass

        super().__init__(Handler)
