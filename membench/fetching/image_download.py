"""Downloads the images of a list of web addresses, politely and at leisure; what did
not come is a status, never a stand-in.

A folder holds ``status.parquet`` (one row an id) and ``images/``, where each image
lies in its original bytes. Nothing here follows an address into a private network
(:mod:`membench.fetching.public_http`), and nothing is kept that does not decode to its
end.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.fetching import net
from membench.fetching.download_status import KEPT, PICTURES, TRANSIENT, Row, StatusTable
from membench.fetching.host_turns import Host
from membench.fetching.image_request import Limits, Outcome, Requests
from membench.fetching.public_http import Refused, Target, parse_url
from membench.storage.files import atomic_write, disk_errors, locked

SAVE_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Link:
    """An image to fetch. id: the key of its prompt (LAION index or example id), or
    ``key/anything`` where a prompt has several.
    """

    id: str
    url: str


def check_links(links: Sequence[Link]) -> None:
    """Refuses a list that asks for what is not on the web.

    No name is resolved here: one that leads to a private address is refused later.

    Raises :class:`UserError`, which names the row (from 1), for an address of this
    machine or of a private network, for another scheme than http and https (``file:``,
    ``ftp:``), for an empty id, and for an id with two addresses. Other malformed ones
    become rows "refused".
    """
    known: dict[str, str] = {}
    for row, link in enumerate(links, 1):
        where = f"row {row} of the URL list ({link.id[:40]!r}, {link.url[:200]!r})"
        if not link.id:
            raise UserError(f"{where} has no id; give each image one")
        if known.setdefault(link.id, link.url) != link.url:
            raise UserError(
                f"{where}: the id stands there before with another address; name this one"
                f" {link.id[:40]}/2"
            )
        try:
            parse_url(link.url)
        except Refused as error:
            if error.local:
                raise UserError(f"{where} is not fetched: {error}; remove the row") from None


def to_fetch(links: Sequence[Link], folder: str | Path, *, retry: bool = False) -> list[Link]:
    """The links that :func:`download_images` would ask for.

    Raises :class:`UserError` for a damaged table. Touches no network.
    """
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
    """Fetches the images that are not yet in the folder; the rows of ``links``, in
    their order (equal links once).

    Columns: id, url, status, file (below the folder; "" without an image), width and
    height (pixels, as shown), bytes, sha256, detail (why not), attempts (tries so far),
    final_url (what served the bytes, after redirects). Status:

    - ok: a whole image;
    - gone (HTTP 404, 410), refused (by the rules of
      :mod:`membench.fetching.public_http`, here or after a redirect), not_an_image
      (another content type than image/* and octet-stream, SVG, or bytes that do not
      decode to their end), too_big, too_many_pixels: not asked for again unless
      ``retry``;
    - placeholder?: one host served the same bytes for ``limits.placeholder_urls`` or
      more different addresses of this folder, or a side is below 16 pixels (spacers,
      counting pixels): most likely "no longer available". The file is kept, but is no
      ground truth. The rule is applied anew at each call; asked for again with
      ``retry`` only;
    - http_error (any other HTTP status, or too many redirects), timeout, unreachable:
      asked for again by the next call.

    An address that several ids share is asked once. A host that fails to answer three
    times in a row is left alone for the rest of the call. The table is written every
    ten seconds, at the end and on Ctrl-C: what is done is kept, and an image that is
    there with its size and SHA-256 is never asked for again. A second process on the
    same folder waits. _hosts: for tests.

    Raises :class:`UserError` as :func:`check_links`, if the network is forbidden and
    there is something to ask for, for a damaged table, and if the disk refuses.
    """
    folder = Path(folder)
    check_links(links)
    links = list(dict.fromkeys(links))
    with disk_errors(folder, what=PICTURES, advice="choose another folder"):
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    with locked(folder / "status", progress), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
        table = StatusTable(folder)
        missing = [link for link in links if not _is_done(table, link, retry)]
        if missing and net.offline():
            raise UserError(
                f"{len(missing)} of {len(links)} images are not in {folder}, and --offline"
                " forbids to ask for them"
            )
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
    return (
        ", ".join(
            f"{counts[s]} {s}" for s in sorted(counts, key=lambda s: (s != "ok", -counts[s], s))
        )
        or "no images"
    )


def _is_done(table: StatusTable, link: Link, retry: bool) -> bool:
    row = table.rows.get(link.id)
    if (
        row is None
        or row.url != link.url
        or row.status in TRANSIENT
        or (retry and row.status != "ok")
    ):
        return False
    return not row.file or table.is_intact(row)


class _Download:
    """One call's requests: workers ask, the main thread keeps the table and cuts off
    what lasts too long.
    """

    def __init__(
        self,
        links: list[Link],
        table: StatusTable,
        limits: Limits,
        hosts: Mapping[str, tuple[str, int]] | None,
    ) -> None:
        self.table, self.limits, self.requests = table, limits, Requests(limits, hosts)
        self.turns: dict[str, Host] = {}
        self.ids: dict[str, list[str]] = {}  # of each address
        for link in links:
            self.ids.setdefault(link.url, []).append(link.id)

    def run(self, progress: bool) -> None:
        waiting: dict[str, deque[tuple[str, Target]]] = {}
        with tqdm(
            total=sum(map(len, self.ids.values())),
            desc="images",
            unit="",
            disable=not progress,
            delay=1,
        ) as bar:
            for url in self.ids:
                try:
                    target = parse_url(url)
                    waiting.setdefault(target.host, deque()).append((url, target))
                except Refused as error:
                    bar.update(self.enter(self.rows(url, Outcome("refused", str(error)), None, 0)))
            # In the order of their turns
            hosts = deque(host for host in waiting for _ in range(self.limits.per_host))
            pending: dict[Future[list[Row]], str] = {}
            pool = ThreadPoolExecutor(self.limits.workers, "download")
            saved = time.monotonic()
            try:
                while hosts or pending:
                    while hosts and len(pending) < self.limits.workers:
                        host = hosts.popleft()
                        if waiting[host]:
                            pending[pool.submit(self.fetch, *waiting[host].popleft())] = host
                    done, _ = wait(pending, 0.2, FIRST_COMPLETED)
                    for future in done:
                        hosts.append(pending.pop(future))
                        bar.update(self.enter(future.result()))  # raises what the worker raised
                    self.requests.cut()
                    if time.monotonic() > saved + SAVE_EVERY:
                        self.table.save()
                        saved = time.monotonic()
            finally:  # also on Ctrl-C: what is on its way is let go
                self.requests.stop()
                pool.shutdown(cancel_futures=True)
                for future in pending:
                    if future.done() and not future.cancelled() and not future.exception():
                        self.enter(future.result())

    def enter(self, rows: list[Row]) -> int:
        for row in rows:
            self.table.enter(row)
        return len(rows)

    def fetch(self, url: str, start: Target) -> list[Row]:
        """Asks for one address, as often as it is worth it; the rows of its ids, none
        if all work is to stop.
        """
        for tries in range(1, self.limits.tries + 1):
            target = start
            for _ in range(self.limits.max_redirects + 1):
                host = self.turns.setdefault(target.host, Host(self.limits))
                with host.turn(self.requests.stopped):
                    if host.given_up:
                        return self.rows(
                            url,
                            Outcome("unreachable", f"{target.host} does not answer"),
                            target,
                            tries - 1,
                        )
                    outcome = self.requests.ask(target)
                    if self.requests.stopped.is_set():
                        return []
                    host.note(
                        outcome,
                        (
                            max(outcome.after, self.limits.pause * 2 ** (tries - 1))
                            if outcome.again
                            else 0.0
                        ),
                    )
                if not outcome.next:
                    break
                target = outcome.next
            else:
                outcome = Outcome("http_error", f"more than {self.limits.max_redirects} redirects")
            if not outcome.again:
                break
        return self.rows(url, outcome, target, tries)

    def rows(self, url: str, outcome: Outcome, target: Target | None, tries: int) -> list[Row]:
        """Writes the image; a row for each id of the address."""
        sha256 = hashlib.sha256(outcome.data).hexdigest() if outcome.data else ""
        detail = " ".join(outcome.detail.split())[:300]
        final = target.url if target and outcome.data else ""
        rows = []
        for name in self.ids[url]:
            file = ""
            if outcome.data:
                digest = hashlib.sha256(name.encode()).hexdigest()[:16]
                file = f"{PICTURES}/{digest}{outcome.extension}"
                atomic_write(
                    self.table.folder / file,
                    lambda path: path.write_bytes(outcome.data),
                    what=file,
                    advice=KEPT,
                )
            rows.append(
                Row(
                    name,
                    url,
                    outcome.status,
                    file,
                    *outcome.size,
                    len(outcome.data),
                    sha256,
                    detail,
                    tries,
                    final,
                )
            )
        return rows
