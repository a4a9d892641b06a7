"""The end of a download that lasts too long."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests import Response


class Clock:
    """Hangs up after ``longest`` seconds: a server that sends a byte now and then is
    never silent for long.
    """

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self.late, self.socket = False, None

    def watch(self, response: Response, **_: Any) -> None:
        """Takes the connection of a response."""
        connection: Any = getattr(response.raw, "_connection", None)
        self.socket = getattr(connection, "sock", None)

    def __enter__(self) -> None:
        self.timer = threading.Timer(self.longest, self.hang_up)
        self.timer.daemon = True
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()

    def hang_up(self) -> None:
        self.late = True
        if self.socket is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                # Of the plain socket below TLS too: ssl's own shutdown would take the
                # session from under the reader, who would take what is encrypted for the
                # file.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
