"""Downloads the pictures of a list of web addresses, politely and at leisure; what did not come is a status, never a stand-in.

A folder holds ``status.parquet`` (one row an id) and ``images/``, where each picture lies in its original bytes. Nothing here follows an
address into a private network (:mod:`membench.fetching.public_http`), and nothing is kept that does not decode to its end.
"""

from __future__ import annotations

import hashlib
import http.client
import queue
import socket
import ssl
import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm import tqdm

from membench.errors import UserError
from membench.fetching.download_queue import Job, Turns, Watch
from membench.fetching.download_status import PICTURES, TRANSIENT, Row, StatusTable, replace_file
from membench.fetching.net import offline
from membench.fetching.public_http import Refused, Target, get, parse_url
from membench.storage.files import locked
from membench.storage.images import EXTENSIONS, MAX_PIXELS, NotAnImage, TooManyPixels, decode

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that are worth a second try at once


REDIRECTS = frozenset({301, 302, 303, 307, 308})


UNNAMED = frozenset({"", "application/octet-stream", "binary/octet-stream"})  # content types of servers that do not know


SAVE_EVERY = 10.0  # seconds


BLOCK = 1 << 16


LONGEST_HOLD = 60.0  # seconds of Retry-After that are waited


_DECODING = threading.BoundedSemaphore(2)  # a picture of MAX_PIXELS takes some 500 MB while it is decoded


@dataclass(frozen=True)
class Link:
    """A picture to fetch. id: the key of its prompt (LAION index or example id), or ``key/anything`` where a prompt has several."""

    id: str
    url: str


@dataclass(frozen=True)
class Limits:
    """How hard to try. workers: requests at once, at most ``per_host`` to one host, whose beginnings lie ``delay`` s apart.

    tries: for one picture in one call, ``pause`` s apart, then twice that ... connect_timeout: s for each address; read_timeout: s
    without a byte; total_timeout: s for a response. max_bytes, max_pixels: of one picture. max_redirects: hops of a try.
    placeholder_urls: see :func:`download_images`; 0: the same bytes never make a placeholder.
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


def check_links(links: Sequence[Link]) -> None:
    """Refuses a list that asks for what is not on the web. No name is resolved here: one that leads to a private address is refused later.

    Raises :class:`UserError`, which names the row (from 1), for an address of this machine or of a private network, for another scheme than
    http and https (``file:``, ``ftp:``), for an empty id, and for an id with two addresses. Other malformed ones become rows "refused".
    """
    known: dict[str, str] = {}
    for row, link in enumerate(links, 1):
        where = f"row {row} of the URL list ({link.id[:40]!r}, {link.url[:200]!r})"
        if not link.id:
            raise UserError(f"{where} has no id; give each picture one")
        if known.setdefault(link.id, link.url) != link.url:
            raise UserError(f"{where}: the id stands there before with another address; name this one {link.id[:40]}/2")
        try:
            parse_url(link.url)
        except Refused as error:
            if error.local:
                raise UserError(f"{where} is not fetched: {error}; remove the row") from None


def to_fetch(links: Sequence[Link], folder: str | Path, *, retry: bool = False) -> list[Link]:
    """The links that :func:`download_images` would ask for. Raises :class:`UserError` for a damaged table. Touches no network."""
    table = StatusTable(Path(folder))
    return [link for link in dict.fromkeys(links) if not _is_done(table, link, retry)]


def download_images(
    links: Sequence[Link],
    folder: str | Path,
    *,
    limits: Limits = Limits(),
    retry: bool = False,
    progress: bool = False,
    _hosts: Mapping[str, tuple[str, int]] | None = None,
) -> pd.DataFrame:
    """Fetches the pictures that are not yet in the folder; the rows of ``links``, in their order (equal links once).

    Columns: id, url, status, file (below the folder; "" without a picture), width and height (pixels, as shown), bytes, sha256, detail (why
    not), attempts (tries so far), final_url (what served the bytes, after redirects). Status:

    - ok: a whole picture;
    - gone (HTTP 404, 410), refused (by the rules of :mod:`membench.fetching.public_http`, here or after a redirect), not_an_image
      (another content type than image/* and octet-stream, SVG, or bytes that do not decode to their end), too_big, too_many_pixels: not
      asked for again unless ``retry``;
    - placeholder?: one host served the same bytes for ``limits.placeholder_urls`` or more different addresses of this folder, or a side is
      below 16 pixels (spacers, counting pixels): most likely "no longer available". The file is kept, but is no ground truth.
      The rule is applied anew at each call; asked for again with ``retry`` only;
    - http_error (any other HTTP status, or too many redirects), timeout, unreachable: asked for again by the next call.

    An address that several ids share is asked once. A host that fails to answer three times in a row is left alone for the rest of the
    call. The table is written every ten seconds, at the end and on Ctrl-C: what is done is kept, and a picture that is there
    with its size and SHA-256 is never asked for again. A second process on the same folder waits. _hosts: for tests.

    Raises :class:`UserError` as :func:`check_links`, if the network is forbidden and there is something to ask for, for a damaged table,
    and if the disk refuses.
    """
    folder = Path(folder)
    check_links(links)
    links = list(dict.fromkeys(links))
    try:
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder / PICTURES}: {error.strerror or error}; choose another folder") from error
    with locked(folder / "status", progress), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
        table = StatusTable(folder)
        missing = [link for link in links if not _is_done(table, link, retry)]
        if missing and offline():
            raise UserError(f"{len(missing)} of {len(links)} pictures are not in {folder}, and --offline forbids to ask for them")
        try:
            if missing:
                _Download(missing, table, limits, _hosts).run(progress)
        finally:
            table.mark_placeholders(limits.placeholder_urls)
            table.save()
        return table.frame(link.id for link in links)


def status_line(table: pd.DataFrame) -> str:
    """How many rows have which status: "480 ok, 12 gone, 8 timeout"."""
    counts = Counter(table["status"])
    return ", ".join(f"{counts[s]} {s}" for s in sorted(counts, key=lambda s: (s != "ok", -counts[s], s))) or "no pictures"


def _is_done(table: StatusTable, link: Link, retry: bool) -> bool:
    row = table.rows.get(link.id)
    if row is None or row.url != link.url or row.status in TRANSIENT or (retry and row.status != "ok"):
        return False
    return not row.file or table.is_intact(row)


@dataclass(frozen=True)
class _Outcome:
    """What a request came to. next: where it leads; answered: whether the host said anything; again: worth a try, ``after`` s later."""

    status: str
    detail: str = ""
    next: Target | None = None
    answered: bool = True
    again: bool = False
    after: float = 0.0
    data: bytes = b""
    extension: str = ""
    size: tuple[int, int] = (0, 0)


class _Download:
    """One call's requests: workers take turns, the main thread keeps the table and the watch."""

    def __init__(self, links: list[Link], table: StatusTable, limits: Limits, hosts: Mapping[str, tuple[str, int]] | None) -> None:
        self.table, self.limits, self.hosts = table, limits, hosts
        self.turns, self.watch = Turns(limits.per_host, limits.delay), Watch(limits.total_timeout)
        self.finished: queue.SimpleQueue[Row] = queue.SimpleQueue()
        self.ids: dict[str, list[str]] = {}  # of each address
        for link in links:
            self.ids.setdefault(link.url, []).append(link.id)

    def run(self, progress: bool) -> None:
        for url in self.ids:
            try:
                self.turns.put(Job(url, parse_url(url)))
            except Refused as error:
                self.finish(url, _Outcome("refused", str(error)), None, 0)
        workers = min(self.limits.workers, len(self.ids))
        pool = ThreadPoolExecutor(workers, "download")
        futures = [pool.submit(self.work) for _ in range(workers)]
        saved = time.monotonic()
        with tqdm(total=sum(map(len, self.ids.values())), desc="pictures", unit="", disable=not progress, delay=1) as bar:
            try:
                while not all(future.done() for future in futures):
                    bar.update(self.collect(0.2))
                    self.watch.sweep()
                    for future in futures:
                        if future.done():
                            future.result()  # raises what the worker raised
                    if time.monotonic() > saved + SAVE_EVERY:
                        self.table.save()
                        saved = time.monotonic()
                for future in futures:
                    future.result()
            finally:  # also on Ctrl-C: what is on its way is let go
                self.turns.stop()
                self.watch.sweep(everything=True)
                pool.shutdown()
                bar.update(self.collect(0.0))

    def collect(self, seconds: float) -> int:
        """Enters what is finished into the table, waiting for the first of it; how many."""
        n = 0
        try:
            while True:
                self.table.enter(self.finished.get(timeout=seconds) if seconds and not n else self.finished.get_nowait())
                n += 1
        except queue.Empty:
            return n

    def work(self) -> None:
        while job := self.turns.take():
            if self.turns.given_up(job):
                outcome, tries = _Outcome("unreachable", f"{job.target.host} does not answer", answered=False), job.tries
            else:
                outcome, tries = self.ask(job), job.tries + 1
            if self.turns.stopped:  # the connection may have been cut off by ourselves
                return
            hold = 0.0
            if outcome.next and job.hops < self.limits.max_redirects:
                self.turns.put(replace(job, target=outcome.next, hops=job.hops + 1))
            elif outcome.again and tries < self.limits.tries:
                hold = max(outcome.after, self.limits.pause * 2**job.tries)
                self.turns.put(Job(job.url, parse_url(job.url), tries=tries))
            else:
                if outcome.next:
                    outcome = _Outcome("http_error", f"more than {self.limits.max_redirects} redirects")
                self.finish(job.url, outcome, job.target, tries)
            self.turns.release(job, answered=outcome.answered, hold=hold)

    def finish(self, url: str, outcome: _Outcome, target: Target | None, tries: int) -> None:
        """Writes the picture, and gives a row for each id of the address to the main thread."""
        sha256 = hashlib.sha256(outcome.data).hexdigest() if outcome.data else ""
        for name in self.ids[url]:
            file = ""
            if outcome.data:
                file = f"{PICTURES}/{hashlib.sha256(name.encode()).hexdigest()[:16]}{outcome.extension}"
                replace_file(self.table.folder / file, lambda path: path.write_bytes(outcome.data))
            detail = " ".join(outcome.detail.split())[:300]
            final = target.url if target and outcome.data else ""
            self.finished.put(Row(name, url, outcome.status, file, *outcome.size, len(outcome.data), sha256, detail, tries, final))

    def ask(self, job: Job) -> _Outcome:
        """One request. What a server or the way to it does wrong is an outcome; anything else passes through."""
        self.watch.begin()
        try:
            times = {"connect_timeout": self.limits.connect_timeout, "read_timeout": self.limits.read_timeout}
            with get(job.target, **times, opened=self.watch.opened, _hosts=self.hosts) as response:
                read = self.judge(job.target, response)
                late = self.watch.overdue()
        except Refused as error:
            return _Outcome("refused", str(error))
        except (OSError, http.client.HTTPException) as error:
            if self.watch.overdue():
                return _Outcome("timeout", f"not done after {self.limits.total_timeout:g} s", again=True)
            if isinstance(error, TimeoutError):
                return _Outcome("timeout", "no answer in time", answered=False, again=True)
            # A wrong name or certificate will not mend itself within seconds.
            lasting = isinstance(error, ssl.SSLCertVerificationError | socket.gaierror)
            return _Outcome("unreachable", f"{type(error).__name__}: {error}", answered=False, again=not lasting)
        finally:
            self.watch.end()
        if late:  # a body without a length that the watch has cut off looks whole
            return _Outcome("timeout", f"not done after {self.limits.total_timeout:g} s", again=True)
        return self.picture(read) if isinstance(read, bytes) else read

    def judge(self, target: Target, response: http.client.HTTPResponse) -> _Outcome | bytes:
        """The body of a response that may be a picture; else what it is."""
        status, headers = response.status, response.headers
        if status in REDIRECTS and (location := headers.get("Location")):
            try:
                return _Outcome("http_error", next=target.redirect(location))
            except Refused as error:
                return _Outcome("refused", f"leads to {location[:100]}: {error}")
        if status != 200:
            asked = headers.get("Retry-After", "")
            after = min(float(asked), LONGEST_HOLD) if asked.isdecimal() else 0.0
            name = "gone" if status in (404, 410) else "http_error"
            return _Outcome(name, f"HTTP {status} {response.reason}", again=status in AGAIN, after=after)
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in UNNAMED and not kind.startswith("image/"):
            return _Outcome("not_an_image", f"content type {kind}")
        body = bytearray()
        if (response.length or 0) <= self.limits.max_bytes:
            while len(body) <= self.limits.max_bytes and (block := response.read1(BLOCK)):
                body += block
        else:
            return _Outcome("too_big", f"{response.length:,} bytes, more than {self.limits.max_bytes:,}")
        if len(body) > self.limits.max_bytes:
            return _Outcome("too_big", f"more than {self.limits.max_bytes:,} bytes")
        if response.length:  # what is left of the announced length
            raise http.client.IncompleteRead(bytes(body), response.length)
        return bytes(body)

    def picture(self, data: bytes) -> _Outcome:
        try:
            with _DECODING:
                image, kind = decode(data, self.limits.max_pixels)
        except TooManyPixels as error:
            return _Outcome("too_many_pixels", str(error))
        except NotAnImage as error:
            return _Outcome("not_an_image", str(error))
        return _Outcome("ok", data=data, extension=EXTENSIONS[kind], size=image.size)
