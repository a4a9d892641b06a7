"""How one host is asked for images: few at a time, and not too often."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from membench.fetching.image_request import Limits, Outcome

SILENT = 3  # failures in a row after which a host is given up


class Host:
    """How one host is asked: few at a time, with a pause between the beginnings, and no
    more once it has failed to answer.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.slots, self.lock = (
            limits,
            threading.Semaphore(limits.per_host),
            threading.Lock(),
        )
        self.ready = 0.0  # monotonic s, before which nobody may ask it
        self.silent = 0  # failures in a row

    @property
    def given_up(self) -> bool:
        return self.silent >= SILENT

    @contextlib.contextmanager
    def turn(self, stopped: threading.Event) -> Iterator[None]:
        """Waits for a free slot and the pause; ends early if all work is to stop."""
        with self.slots:
            while not self.given_up:
                with self.lock:
                    pause = self.ready - time.monotonic()
                    if pause <= 0:
                        self.ready = time.monotonic() + self.limits.delay
                        break
                if stopped.wait(pause):  # looks again: the host may have been put off meanwhile
                    break
            yield

    def note(self, outcome: Outcome, hold: float) -> None:
        """hold: s for which the host is left alone."""
        with self.lock:
            self.silent = 0 if outcome.answered else self.silent + 1
            self.ready = max(self.ready, time.monotonic() + hold)
