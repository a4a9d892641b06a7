"""One request for an image: what the server's answer comes to, within limits of time
and size.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException

from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from membench.fetching import net
from membench.fetching.public_http import Refused, Target, get, is_timeout
from membench.storage.images import EXTENSIONS, MAX_PIXELS, NotAnImage, TooManyPixels, decode

REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Content types of servers that do not know
UNNAMED = frozenset({"", "application/octet-stream", "binary/octet-stream"})
BLOCK = 1 << 16

# An image of MAX_PIXELS takes some 500 MB while it is decoded
_DECODING = threading.BoundedSemaphore(2)


@dataclass(frozen=True)
class Limits:
    """How hard to try. workers: requests at once, at most ``per_host`` to one host,
    whose beginnings lie ``delay`` s apart.

    tries: for one image in one call, ``pause`` s apart, then twice that ...
    connect_timeout: s for each address; read_timeout: s without a byte; total_timeout:
    s for a response. max_bytes, max_pixels: of one image. max_redirects: hops of a
    try. placeholder_urls: see :func:`download_images`; 0: the same bytes never make a
    placeholder.
    """

    workers: int = 16
    per_host: int = 2
    delay: float = 0.25
    tries: int = 2
    pause: float = 1.0
    connect_timeout: float = 10.0
    read_timeout: float = 15.0
    total_timeout: float = 90.0
    max_bytes: int = 32 << 20
    max_pixels: int = MAX_PIXELS
    max_redirects: int = 5
    placeholder_urls: int = 3


@dataclass(frozen=True)
class Outcome:
    """What a request came to. next: where it leads; answered: whether the host said
    anything; again: worth a try, ``after`` s later.
    """

    status: str
    detail: str = ""
    next: Target | None = None
    answered: bool = True
    again: bool = False
    after: float = 0.0
    data: bytes = b""
    extension: str = ""
    size: tuple[int, int] = (0, 0)


class Requests:
    """Requests of many threads, which another thread cuts off where they last too long,
    or all of them.
    """

    def __init__(self, limits: Limits, hosts: Mapping[str, tuple[str, int]] | None = None) -> None:
        self.limits, self.hosts, self.stopped = limits, hosts, threading.Event()
        self._open: dict[socket.socket, float] = {}  # the monotonic s at which each is cut off

    def stop(self) -> None:
        self.stopped.set()
        self._shut(float("inf"))

    def cut(self) -> None:
        """To be called now and then: a server that sends a byte now and then never runs
        into a read timeout.
        """
        self._shut(time.monotonic())

    def _shut(self, now: float) -> None:
        for sock, deadline in list(self._open.items()):
            if now > deadline:
                with contextlib.suppress(OSError):  # closed by its own thread meanwhile
                    # Of the plain socket below TLS too: ssl's own shutdown would take
                    # the session from under the reader.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def ask(self, target: Target) -> Outcome:
        """One GET.

        What a server or the way to it does wrong is an outcome; anything else passes
        through.

        The outcome means nothing once :meth:`stop` was called: the connection may have
        been cut off.
        """
        deadline, mine = time.monotonic() + self.limits.total_timeout, list[socket.socket]()

        def opened(sock: socket.socket) -> None:
            mine.append(sock)
            self._open[sock] = deadline
            if self.stopped.is_set():  # too late for the last round of cuts
                raise ConnectionAbortedError

        times = {
            "connect_timeout": self.limits.connect_timeout,
            "read_timeout": self.limits.read_timeout,
            "deadline": deadline,
        }
        late = Outcome("timeout", f"not done after {self.limits.total_timeout:g} s", again=True)
        if self.stopped.is_set():
            return Outcome("unreachable", "stopped")
        try:
            with get(target, **times, opened=opened, _hosts=self.hosts) as response:
                read = self._judge(target, response)
        except Refused as error:
            return Outcome("refused", str(error))
        except (OSError, HTTPException, HTTPError) as error:
            if time.monotonic() > deadline:
                return late
            if is_timeout(error):
                return Outcome("timeout", "no answer in time", answered=False, again=True)
            # A wrong name or certificate will not mend itself within seconds.
            lasting = isinstance(error, ssl.SSLCertVerificationError | socket.gaierror)
            return Outcome(
                "unreachable", f"{type(error).__name__}: {error}", answered=False, again=not lasting
            )
        finally:
            for sock in mine:
                self._open.pop(sock, None)
        if time.monotonic() > deadline:  # a body without a length that was cut off looks whole
            return late
        return self._image(read) if isinstance(read, bytes) else read

    def _judge(self, target: Target, response: HTTPResponse) -> Outcome | bytes:
        """The body of a response that may be an image; else what it is."""
        status, headers = response.status, response.headers
        if status in REDIRECTS and (location := headers.get("Location")):
            try:
                return Outcome("http_error", next=target.redirect(location))
            except Refused as error:
                return Outcome("refused", f"leads to {location[:100]}: {error}")
        if status != 200:
            name = "gone" if status in (404, 410) else "http_error"
            again = status in net.TRANSIENT
            after = min(net.retry_after(response), net.LONGEST_PAUSE) if again else 0.0
            return Outcome(name, f"HTTP {status} {response.reason}", again=again, after=after)
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in UNNAMED and not kind.startswith("image/"):
            return Outcome("not_an_image", f"content type {kind}")
        if (length := response.length_remaining or 0) > self.limits.max_bytes:
            return Outcome("too_big", f"{length:,} bytes, more than {self.limits.max_bytes:,}")
        body = bytearray()
        # Raises if less comes than was announced
        for block in response.stream(BLOCK, decode_content=False):
            body += block
            if len(body) > self.limits.max_bytes:
                return Outcome("too_big", f"more than {self.limits.max_bytes:,} bytes")
        return bytes(body)

    def _image(self, data: bytes) -> Outcome:
        try:
            with _DECODING:
                image, kind = decode(data, self.limits.max_pixels)
        except TooManyPixels as error:
            return Outcome("too_many_pixels", str(error))
        except NotAnImage as error:
            return Outcome("not_an_image", str(error))
        return Outcome("ok", data=data, extension=EXTENSIONS[kind], size=image.size)
