"""Single files over https, by pooch: checked, whole or not at all.

Every other way to the network asks :func:`offline` first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from tqdm.auto import tqdm

from membench import __version__
from membench.errors import UserError
from membench.fetching.hang_up import Clock
from membench.storage.files import atomic_write, disk_errors, locked, replacing
from membench.storage.hashing import file_hash

if TYPE_CHECKING:
    from requests import Response

TIMEOUT = 30.0  # seconds without a byte
LONGEST = 4 * 3600.0  # seconds of one download, however its bytes trickle
TRIES = 4
BACKOFF = 1.0  # seconds before the second try; doubled each time
LONGEST_PAUSE = 60.0  # seconds of Retry-After that are waited
BLOCK = 1 << 18
MAX_BYTES = 1 << 30
AGAIN = "mend it and run again"
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that may be over soon
AGENT = f"membench/{__version__}"


def offline() -> bool:
    """Whether the network is forbidden: ``--offline``, which sets ``$HF_HUB_OFFLINE``,
    or the user's own environment. Read at each call.
    """
    # The words that huggingface_hub takes as yes.
    return (
        os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    ).upper() in {"1", "ON", "YES", "TRUE"}


def fetch(
    url: str,
    path: str | Path,
    *,
    sha256: str = "",
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    _plain_http: bool = False,
) -> Path:
    """``path``, downloaded from ``url`` unless it is there.

    The file appears whole and checked, or not at all.

    url: https, also after redirects. sha256: the hex digest that the file must have; a
    file that is there is read and checked at every call. Where none is given, the first
    download is trusted (as ssh trusts a host's first key): its SHA-256 is written to
    ``<path>.sha256``, in the format of ``sha256sum``, and holds from then on.
    max_bytes: a longer file is refused. progress: a bar on stderr, if it takes more
    than a second.

    Time-outs, broken connections and HTTP 408, 425, 429 and 5xx are tried again from
    the start, with doubled pauses. A second process that asks for the same file waits.

    Raises :class:`UserError` if the network is forbidden or the server unreachable, for
    its HTTP status, for a wrong checksum (the download is thrown away; a file that was
    there before is left as it is) and if the disk refuses; ValueError for another
    scheme.
    """
    want = _Want(url, Path(path), sha256.lower(), max_bytes, progress, _plain_http)
    if not want.may_ask(url):
        raise ValueError(f"{url}: only https is fetched")
    if want.path.exists():
        want.check_present()
        return want.path
    if offline():
        raise UserError(
            f"{want.path.name} is not in {want.path.parent}, and --offline forbids to fetch it from"
            f" {url}"
        )
    with locked(want.path, progress):
        if want.path.exists():  # another process may have fetched it while we waited
            want.check_present()
        else:
            want.download()
    return want.path


class _Transient(Exception):
    """A failure that may be over soon. after: seconds that the server asked us to wait."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True)
class _Want:
    url: str
    path: Path
    sha256: str
    max_bytes: int
    progress: bool
    plain_http: bool

    @property
    def record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sha256")

    def may_ask(self, url: str) -> bool:
        """Plain http would let anybody on the way change the file; plain_http: tests
        ask this machine.
        """
        parts = urlsplit(url)
        return parts.scheme == "https" or (
            self.plain_http and parts.scheme == "http" and parts.hostname == "127.0.0.1"
        )

    def disk(self) -> contextlib.AbstractContextManager[None]:
        return disk_errors(self.path.parent, what=self.path.name, advice=AGAIN)

    def check(self, file: Path) -> str:
        """What is wrong with a file's SHA-256, or an empty text.

        Of the first file without a known one, it is recorded.
        """
        with self.disk():
            got, wanted = file_hash(file), self.sha256
            if not wanted and self.record.is_file():
                wanted = (self.record.read_text(errors="replace").split() or ["nothing"])[0]
            if not wanted and os.access(self.path.parent, os.W_OK):
                text = f"{got}  {self.path.name}\n"
                atomic_write(
                    self.record,
                    lambda temporary: temporary.write_text(text),
                    what=self.path.name,
                    advice=AGAIN,
                )
            return f"SHA256 {got}, but {wanted} is expected" if wanted not in ("", got) else ""

    def check_present(self) -> None:
        if not self.path.is_file():
            raise UserError(
                f"{self.path} is not a file; move it away, and it is fetched from {self.url}"
            )
        if wrong := self.check(self.path):
            raise UserError(
                f"{self.path} has {wrong}; move it away, and it is fetched anew from {self.url}"
            )

    def download(self) -> None:
        """Fetches under the lock: the temporary file is filled, checked and renamed."""
        with replacing(self.path, what=self.path.name, advice=AGAIN, is_locked=True) as temporary:
            for failures in range(1, TRIES + 1):
                try:
                    self.request(temporary)
                    break
                except _Transient as error:
                    if failures == TRIES:
                        raise UserError(
                            f"{self.url} cannot be fetched ({error}, {TRIES} times); try again"
                            " later"
                        ) from None
                    time.sleep(max(BACKOFF * 2 ** (failures - 1), min(error.after, LONGEST_PAUSE)))
            if wrong := self.check(temporary):
                raise UserError(
                    f"{self.url} gave a file with {wrong}; it is not kept: fetch it by hand, or ask"
                    " its authors what changed"
                )

    def request(self, temporary: Path) -> None:
        """One GET into a file. Raises _Transient for what may be tried again."""
        import pooch
        import requests
        from urllib3.exceptions import MaxRetryError, NewConnectionError, SSLError

        with self.disk():
            file = open(temporary, "wb", buffering=0)  # noqa: SIM115 - closed below; a buffer would fail a second time on closing
        bar: Any = tqdm(
            desc=self.path.name,
            total=1,
            unit="B",
            unit_scale=True,
            delay=1,
            disable=not self.progress,
        )
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        clock = Clock(LONGEST)
        hooks = {"response": [self.judge, clock.watch]}
        get = pooch.HTTPDownloader(bar, BLOCK, timeout=TIMEOUT, headers=headers, hooks=hooks)
        late = UserError(
            f"{self.url} was not here after {LONGEST / 3600:g} hours; fetch it by hand"
        )
        try:
            with bar, contextlib.closing(file), clock:
                get(self.url, _Limited(self, file), None)
        except requests.HTTPError as error:
            response: Any = error.response
            what = f"HTTP {response.status_code} {response.reason}"
            if response.status_code not in TRANSIENT:
                raise UserError(f"{self.url} cannot be fetched: {what}") from None
            raise _Transient(what, retry_after(response)) from None
        except requests.RequestException as error:
            if clock.late:
                raise late from None
            inner = error.args[0] if error.args else None
            reason = inner.reason if isinstance(inner, MaxRetryError) else None
            # Will not mend itself within seconds
            if isinstance(reason, NewConnectionError | SSLError):
                raise UserError(
                    f"{self.url} cannot be fetched: {urlsplit(self.url).hostname} is unreachable"
                    f" ({reason})"
                ) from None
            # ValueError: an address that leads nowhere
            if isinstance(error, requests.TooManyRedirects | ValueError):
                raise UserError(f"{self.url} cannot be fetched: {error}") from None
            raise _Transient(str(error)) from None
        except ValueError as error:  # a length that is no number
            raise UserError(f"{self.url} cannot be fetched: {error}") from None
        if clock.late:  # a body without a length that was cut off looks whole
            raise late

    def judge(self, response: Response, **_: Any) -> None:
        """Looks at each response, redirects included, before its body is read or it is
        followed. Raises UserError.
        """
        location = response.headers["Location"] if response.is_redirect else ""
        try:
            urls = response.url, urljoin(response.url, location)
        except ValueError as error:
            raise UserError(f"{self.url} leads to {location[:100]}: {error}") from None
        for url in urls:
            if not self.may_ask(url):
                raise UserError(f"{self.url} leads to {url}, and only https is fetched")
        length = response.headers.get("Content-Length", "")[:20]  # Python reads no number of 5,000
        if not response.ok or not length.isdecimal():
            return
        if int(length) > self.max_bytes:
            raise UserError(
                f"{self.url} is {int(length):,} bytes long, more than the {self.max_bytes:,} that"
                " are allowed; it is not fetched"
            )
        with self.disk():
            free = shutil.disk_usage(self.path.parent).free
        if int(length) > free:
            raise UserError(
                f"{self.path.parent} has {free / 1e9:.1f} GB left, and {self.path.name} needs"
                f" {int(length) / 1e9:.1f} GB"
            )


class _Limited:
    """The file that a download fills.

    Raises UserError past the allowed size and where the disk refuses.
    """

    def __init__(self, want: _Want, file: FileIO) -> None:
        self.want, self.file, self.size = want, file, 0

    def write(self, block: bytes) -> None:
        self.size += len(block)
        if self.size > self.want.max_bytes:
            raise UserError(
                f"{self.want.url} is longer than the {self.want.max_bytes:,} bytes that are"
                " allowed; it is not kept"
            )
        left = memoryview(block)
        with self.want.disk():
            while left:  # the system may take less than all
                left = left[self.file.write(left) :]

    def flush(self) -> None:
        """pooch asks for it after each block; nothing is buffered."""


def retry_after(response: Any) -> float:
    """Seconds that a response, of requests or urllib3, asks to wait by Retry-After (a
    number or a date); 0 without, and for what is neither.
    """
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    try:
        return Retry().get_retry_after(response) or 0.0
    except (InvalidHeader, ValueError, OverflowError):  # 5,000 digits, a year of eleven
        return 0.0
