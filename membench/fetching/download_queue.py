"""Whose turn it is: jobs for many hosts, few at a time to each, with a pause between; and a watch over slow connections."""

from __future__ import annotations

import contextlib
import heapq
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from membench.fetching.public_http import Target

SILENT = 3  # failures in a row after which a host is given up


@dataclass(frozen=True)
class Job:
    """One picture. url: as it stands in the list; target: what to ask now, after ``hops`` redirects; tries: requests for it before this."""

    url: str
    target: Target
    hops: int = 0
    tries: int = 0


@dataclass
class _Host:
    waiting: deque[Job] = field(default_factory=deque)
    active: int = 0
    ready: float = 0.0  # monotonic s, before which nobody may ask it
    offered: bool = False  # stands in the heap
    silent: int = 0  # failures in a row


class Turns:
    """A queue for many threads. per_host: jobs of one host out at once; delay: s between the beginnings of two."""

    def __init__(self, per_host: int, delay: float) -> None:
        self._per_host, self._delay = per_host, delay
        self._hosts: dict[str, _Host] = {}
        self._heap: list[tuple[float, str]] = []
        self._active = 0
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, job: Job) -> None:
        """Before :meth:`release` of the job that it follows from: else the others may take the work for done."""
        with self._changed:
            self._hosts.setdefault(job.target.host, _Host()).waiting.append(job)
            self._offer(job.target.host)

    def take(self) -> Job | None:
        """The next job, when its time has come; None if all are done, or after :meth:`stop`."""
        with self._changed:
            while not self._stopped:
                if not self._heap:
                    if not self._active:
                        return None
                    self._changed.wait()
                    continue
                ready, name = self._heap[0]
                host, now = self._hosts[name], time.monotonic()
                if host.ready > ready:  # put off since it was offered
                    heapq.heapreplace(self._heap, (host.ready, name))
                elif ready > now:
                    self._changed.wait(ready - now)
                else:
                    heapq.heappop(self._heap)
                    host.offered = False
                    host.active += 1
                    self._active += 1
                    host.ready = now + (0.0 if self._silent(host) else self._delay)
                    job = host.waiting.popleft()
                    self._offer(name)
                    return job
            return None

    def release(self, job: Job, *, answered: bool, hold: float = 0.0) -> None:
        """Ends a job. answered: whether the host said anything at all; hold: s for which it is left alone."""
        with self._changed:
            host = self._hosts[job.target.host]
            host.active -= 1
            self._active -= 1
            host.silent = 0 if answered else host.silent + 1
            if hold and not self._silent(host):
                host.ready = max(host.ready, time.monotonic() + hold)
            self._offer(job.target.host)
            self._changed.notify_all()

    def given_up(self, job: Job) -> bool:
        """Whether the job's host has failed to answer so often that it need not be asked."""
        with self._changed:
            return self._silent(self._hosts[job.target.host])

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        return self._stopped

    @staticmethod
    def _silent(host: _Host) -> bool:
        return host.silent >= SILENT

    def _offer(self, name: str) -> None:
        host = self._hosts[name]
        if host.waiting and host.active < self._per_host and not host.offered:
            host.offered = True
            heapq.heappush(self._heap, (host.ready, name))
            self._changed.notify_all()


class Watch:
    """Ends connections that last too long: a server that sends a byte now and then never runs into a socket's own timeout."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}  # by thread: each has one request at a time
        self._sockets: dict[int, socket.socket] = {}

    def begin(self) -> None:
        with self._lock:
            self._deadlines[threading.get_ident()] = time.monotonic() + self._seconds

    def opened(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets[threading.get_ident()] = sock

    def overdue(self) -> bool:
        """Whether this thread's request has lasted too long."""
        with self._lock:
            return time.monotonic() > self._deadlines[threading.get_ident()]

    def end(self) -> None:
        with self._lock:
            self._deadlines.pop(threading.get_ident(), None)
            self._sockets.pop(threading.get_ident(), None)

    def sweep(self, *, everything: bool = False) -> None:
        """Shuts down what is overdue, or all: their threads read an end or an error."""
        with self._lock:
            now = time.monotonic()
            for thread, sock in self._sockets.items():
                if everything or now > self._deadlines[thread]:
                    with contextlib.suppress(OSError):  # closed by its own thread meanwhile
                        # Of the plain socket below TLS too: ssl's own shutdown would take the session from under the reader.
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)
