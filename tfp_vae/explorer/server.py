"""The explorer's server: Bokeh's, which answers this machine's own page and nothing else.

Bokeh checks the origin of a websocket. Added here: the ``Host`` of every request, since a foreign
name may be made to point to this machine (DNS rebinding); which addresses there are at all; how
large a message may be; and what a page may change. The last matters because Bokeh's documents
take any of its models from a client, some of whose properties read files of the server.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.doc_handler import DocHandler
from bokeh.server.views.ws import WSHandler
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from tfp_vae.explorer import uploads
from tfp_vae.explorer.explored import Explored
from tfp_vae.explorer.page import Page

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Of a websocket's message: an image file in base64, and the words around it.
_MAX_MESSAGE = uploads.MAX_BYTES * 4 // 3 + 2**16
_MAX_REQUEST = 2**16  # bytes of headers, and of a body: none is looked at
_CLOSES_WITHIN = 2.0  # seconds


def serve(
    explored: Explored, host: str, port: int, ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        explored: what it shows.
        host: the address to listen on, and a name by which a browser may ask for it.
        port: 0 for any that is free.
        ready: called with the page's address as soon as it answers.

    Raises:
        OSError: the port is in use, or the address is not of this machine.
    """

    async def run() -> None:
        async with serving(explored, host, port) as url:
            ready(url)
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


@contextlib.asynccontextmanager
async def serving(explored: Explored, host: str, port: int) -> AsyncIterator[str]:
    """The server within a running loop; gives its address. See `serve`."""
    listening = _listening(host, port)
    application = _Guarded(explored, host)
    http = HTTPServer(application, max_header_size=_MAX_REQUEST, max_body_size=_MAX_REQUEST)
    http.add_sockets([listening])
    server = BaseServer(IOLoop.current(), application, http)
    server.start()
    try:
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{listening.getsockname()[1]}/"
    finally:
        server.stop(wait=False)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(http.close_all_connections(), _CLOSES_WITHIN)


def check_address(host: str, port: int) -> None:
    """Ask before the work whether `serve` could listen there.

    Raises:
        OSError: as `serve`.
    """
    _listening(host, port).close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """`host`, if it is an address and no name."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"port: expected a free one, got {port}, which is in use on {host}. Give another, "
                "or 0 for any that is free."
            ) from error
        if isinstance(error, PermissionError):
            raise OSError(f"port: expected one that you may open, got {port}: {error}") from error
        raise OSError(
            f"host: expected an address of this machine, got {host!r}: {error}"
        ) from error
    found.setblocking(False)
    return found


class _Guarded(BokehTornado):
    """Bokeh's application behind a look at who asks, and for what."""

    def __init__(self, explored: Explored, host: str) -> None:
        address = _address(host)
        self._any_address = address is not None and address.is_unspecified
        self._names = _LOOPBACK | {host.lower()}
        super().__init__(
            Application(FunctionHandler(lambda document: Page(explored).fill(document))),
            extra_websocket_origins=["*"],  # looked at here, where it must be the page's own
            websocket_max_message_size_bytes=_MAX_MESSAGE,
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        refusal = self._refusal(request)
        if refusal is not None:
            status, reason = refusal
            return self.get_handler_delegate(
                request, _Refused, {"status": status, "reason": reason}
            )
        found = super().find_handler(request, **kwargs)
        ours = {WSHandler: _Socket, DocHandler: _Document}
        if getattr(found, "handler_class", None) in ours:
            found.handler_class = ours[found.handler_class]
        return found

    def _refusal(self, request: HTTPServerRequest) -> tuple[int, str] | None:
        name = _name(request.host)
        # A foreign name may be made to point here, an address may not.
        if name not in self._names and not (self._any_address and _address(name)):
            names = ", ".join(sorted(self._names))
            if self._any_address:
                names += ", or an address of this machine in digits"
            return 403, f"Host: expected one of {names}, as --host said."
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() != f"{request.protocol}://{request.host}".lower():
            return 403, "Origin: expected this page."
        headers = request.headers
        if (
            # "same-site" is another port of this machine.
            headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
            # A link to this page may be followed; no foreign page may show it in a frame.
            and headers.get("Sec-Fetch-Dest") != "document"
        ):
            return 403, "Sec-Fetch-Site: expected this page."
        # Not Bokeh's other addresses, one of which lends a session to any site.
        if request.path not in ("/", "/ws", "/favicon.ico") and not request.path.startswith(
            "/static/"
        ):
            return 404, "there is no such page."
        return None


class _Refused(RequestHandler):
    def initialize(self, status: int, reason: str) -> None:
        self._status, self._said = status, reason

    def prepare(self) -> None:
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self._status}: {self._said}\n")


# Types of the numbers in an array.
_NUMBERS = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"}


class _Document(DocHandler):
    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("X-Frame-Options", "DENY")


class _Socket(WSHandler):
    """A connection through which a page may change what its models say, and nothing else."""

    _pending = 0  # bytes of the message that has begun

    async def _receive(self, fragment: str | bytes) -> Any:
        # Bokeh bounds each part of a message; how many there are, its sender says.
        self._pending += len(fragment)
        if self._pending > _MAX_MESSAGE:
            self.close(1009, "message too big")
            return None
        message = await super()._receive(fragment)
        if message is not None:
            self._pending = 0
        return message

    async def _handle(self, message: Any) -> Any:
        if message.msgtype == "PATCH-DOC":
            document = self.connection.session.document
            given = message.content.get("events", [])
            events = [event for event in given if _may(document, event)]
            if not events:
                return self.connection.ok(message)
            message.content["events"] = events
        elif message.msgtype not in ("PULL-DOC-REQ", "SERVER-INFO-REQ"):
            return self.connection.error(message, f"{message.msgtype} is not taken")
        return await super()._handle(message)


def _may(document: Any, event: Any) -> bool:
    """Whether an event sets a property, or presses a button, that `Page` has marked for it.

    What else Bokeh's scripts report, such as the sizes of what they drew, is not needed here.
    """
    if not isinstance(event, dict) or not _plain(event):
        return False
    if event.get("kind") == "ModelChanged":
        reference, name = event.get("model"), event.get("attr")
    elif event.get("kind") == "MessageSent" and event.get("msg_type") == "bokeh_event":
        try:
            data = event["msg_data"]
            reference = dict(data["values"]["entries"])["model"]
            name = data["name"]
        except (KeyError, TypeError, ValueError):
            return False
    else:
        return False
    if not isinstance(reference, dict) or not isinstance(reference.get("id"), str):
        return False
    model = document.models.get_by_id(reference["id"])
    return model is not None and name in model.tags


def _plain(value: Any) -> bool:
    """Whether it is made of text, numbers and arrays, so that no class is named in it."""
    if isinstance(value, dict):
        kinds = {None, "map", "ndarray", "typed_array", "bytes", "number", "event"}
        # Of texts of a length that the sender names, a short message makes gigabytes.
        return (
            value.get("type") in kinds
            and value.get("dtype", "float32") in _NUMBERS
            and all(map(_plain, value.values()))
        )
    return not isinstance(value, list) or all(map(_plain, value))


def _name(host: str) -> str:
    with contextlib.suppress(ValueError):
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    return ""
