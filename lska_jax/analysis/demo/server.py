"""The page's server: Python's own, one model, one look at a time.

What a browser sends is an image file and three words; nothing of it is kept, and no path is read.
A page elsewhere cannot use the server: requests that name another host or come from another origin
are refused, so that neither a foreign site nor a rebound name reaches a model on loopback.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lska_jax.analysis.demo.looking import Looking

LOOPBACK = "127.0.0.1"
MAX_BYTES = 64 * 2**20
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def make_server(looking: Looking, *, host: str = LOOPBACK, port: int = 0) -> _Server:
    """Return a server that listens and is not yet serving.

    Args:
      looking: the model.
      host: address to listen on.
      port: 0 takes any free one.

    Raises:
      OSError: the address cannot be listened on.
    """
    kind = _Server6 if ":" in host else _Server
    return kind((host, port), looking)


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    """What handlers share, one of which is made for each connection."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], looking: Looking):
        super().__init__(address, _Handler)
        self.looking, self.lock = looking, threading.Lock()
        self.is_open = not is_loopback(address[0])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless a browser only went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"
    # A browser that stops sending does not hold a thread for ever.
    timeout = 60

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        path = urlsplit(self.path).path
        if path == "/":
            page = resources.files("lska_jax.analysis.demo").joinpath("page.html").read_bytes()
            self._send(HTTPStatus.OK, page, "text/html; charset=utf-8")
        elif path == "/about":
            self._send_json(HTTPStatus.OK, self.server.looking.about())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        address = urlsplit(self.path)
        length = self.headers.get("Content-Length", "")
        if address.path != "/look" or not length.isdecimal():
            self._refuse(HTTPStatus.BAD_REQUEST, "Send an image to /look.")
            return
        if int(length) > MAX_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The file has {int(length):,} bytes; at most {MAX_BYTES:,} are taken.",
            )
            return
        image = self.rfile.read(int(length))
        asked = {name: values[-1] for name, values in parse_qs(address.query).items()}
        severity = asked.get("severity", "0")
        try:
            if not severity.isdecimal():
                raise ValueError(f"severity={severity!r} must be a whole number.")
            with self.server.lock:
                found = self.server.looking.look(
                    image,
                    over=asked.get("over", "gradcam"),
                    corruption=asked.get("corruption", ""),
                    severity=int(severity),
                )
        except ValueError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            return
        self._send_json(HTTPStatus.OK, found)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet: what people look at is not written down."""

    def _is_ours(self) -> bool:
        """Tell whether the page of this server asks; answer whoever else does."""
        host = self.headers.get("Host", "")
        name = urlsplit(f"//{host}").hostname or ""
        origin = self.headers.get("Origin")
        is_named_right = self.server.is_open or is_loopback(name)
        if is_named_right and origin in (None, f"http://{host}"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "This server answers its own page only.")
        return False

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        # What was not read would be taken for the next request.
        self.close_connection = True
        self._send_json(status, {"error": message})

    def _send_json(self, status: HTTPStatus, content: Any) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)
