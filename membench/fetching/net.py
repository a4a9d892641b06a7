"""Downloads of single files: checked, resumed, whole or not at all. Every other way to the network asks :func:`offline` first."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from membench import __version__
from membench.errors import UserError

TIMEOUT = 30.0  # seconds without a byte


TRIES = 4  # without any progress between them


BACKOFF = 1.0  # seconds before the second try; doubled each time


BLOCK = 1 << 18


TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


def offline() -> bool:
    """Whether the network is forbidden: ``--offline``, which sets ``$HF_HUB_OFFLINE``, or the user's own environment. Read at each call."""
    # The words that huggingface_hub takes as yes.
    return (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in {"1", "ON", "YES", "TRUE"}


def fetch(
    url: str,
    path: str | Path,
    *,
    sha256: str = "",
    md5: str = "",
    max_bytes: int | None = None,
    progress: bool = False,
    _plain_http: bool = False,
) -> Path:
    """``path``, downloaded from ``url`` unless it is there. The file appears whole and checked, or not at all.

    url: https, also after redirects. sha256, md5: hex digests that the file must have; a file that is there is read and checked at every
    call. Where neither is given, the first download is trusted (as ssh trusts a host's first key): its SHA-256 is written to
    ``<path>.sha256``, in the format of ``sha256sum``, and holds from then on. max_bytes: a longer file is refused. progress: a bar on
    stderr, if it takes more than a second.

    What a broken download leaves, ``<path>.partial``, is continued by a Range request if the server still has the same file
    (``If-Range``). Time-outs, broken connections and HTTP 408, 425, 429 and 5xx are tried again, with doubled pauses. A second process
    that asks for the same file waits.

    Raises :class:`UserError` if the network is forbidden or the server unreachable, for its HTTP status, for a wrong checksum (the
    download is thrown away; a file that was there before is left as it is) and if the disk refuses; ValueError for another scheme.
    """
    path = Path(path)
    _scheme(url, _plain_http)
    want = _Want(url, path, sha256.lower(), md5.lower(), max_bytes, progress, _plain_http)
    if path.exists():
        want.check_present()
        return path
    if offline():
        raise UserError(f"{path.name} is not in {path.parent}, and --offline forbids to fetch it from {url}")
    from membench.storage.files import locked

    with locked(path, progress):
        if path.exists():  # another process may have fetched it while we waited
            want.check_present()
        else:
            _download(want)
    return path


@dataclass(frozen=True)
class _Want:
    url: str
    path: Path
    sha256: str
    md5: str
    max_bytes: int | None
    progress: bool
    plain_http: bool

    @property
    def partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def origin(self) -> Path:
        """Beside the partial file: which version of which address it is the beginning of."""
        return self.path.with_name(f"{self.path.name}.partial.json")

    @property
    def record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sha256")

    def wrong(self, file: Path, *, recorded: bool) -> str:
        """What is wrong with a file's checksum, or an empty text."""
        wanted = [(name, digest) for name, digest in (("sha256", self.sha256), ("md5", self.md5)) if digest]
        if not wanted and recorded and self.record.is_file():
            words = self.record.read_text().split()
            wanted = [("sha256", words[0] if words else "nothing")]
        for name, digest in wanted:
            if (got := _digest(file, name)) != digest:
                return f"{name.upper()} {got}, but {digest} is expected"
        return ""

    def check_present(self) -> None:
        with _disk(self.path):
            if not self.path.is_file():
                raise UserError(f"{self.path} is no file; move it away, and it is fetched from {self.url}")
            if wrong := self.wrong(self.path, recorded=True):
                raise UserError(f"{self.path} has {wrong}; move it away, and it is fetched anew from {self.url}")
            if not (self.sha256 or self.md5 or self.record.exists()) and os.access(self.path.parent, os.W_OK):
                self.write_record(_digest(self.path, "sha256"))

    def write_record(self, digest: str) -> None:
        temporary = self.record.with_name(f".{self.record.name}")
        temporary.write_text(f"{digest}  {self.path.name}\n")
        os.replace(temporary, self.record)

    def throw_away(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)


def _download(want: _Want) -> None:
    """Fetches under the lock: the partial file grows, is checked and renamed."""
    for fresh in (False, True):
        if fresh:
            want.throw_away()
        resumed = _grow(want)
        with _disk(want.path):
            wrong = want.wrong(want.partial, recorded=True)
        if not wrong:
            break
        if fresh or not resumed:  # a beginning of another version is worth one more try from nothing
            want.throw_away()
            raise UserError(f"{want.url} gave a file with {wrong}; it is not kept: fetch it by hand, or ask its authors what changed")
    with _disk(want.path):
        if not (want.sha256 or want.md5 or want.record.exists()):
            want.write_record(_digest(want.partial, "sha256"))
        with open(want.partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(want.partial, want.path)
        want.origin.unlink(missing_ok=True)


def _grow(want: _Want) -> bool:
    """Requests until the partial file is whole; whether any of them continued one that was there at the start."""
    resumed, failures, pause = False, 0, BACKOFF
    while True:
        size = want.partial.stat().st_size if want.partial.exists() else 0
        try:
            resumed |= _request(want, size)
            return resumed
        except _Transient as error:
            grown = want.partial.exists() and want.partial.stat().st_size > size
            failures, pause = (1, BACKOFF) if grown else (failures + 1, pause)
            if failures >= TRIES:
                raise UserError(
                    f"{want.url} cannot be fetched ({error}, {TRIES} times); try again later: it goes on where it stopped"
                ) from None
            time.sleep(max(pause, min(error.after, 60.0)))
            pause *= 2


class _Transient(Exception):
    """A failure that may be over soon. after: seconds that the server asked us to wait."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


def _request(want: _Want, start: int) -> bool:
    """One request from byte ``start`` on; whether the server continued. Raises _Transient for what may be tried again."""
    headers = {"User-Agent": f"membench/{__version__}", "Accept-Encoding": "identity"}
    if start:
        origin = _origin(want)
        validator = origin.get("validator")
        # Without a validator only a checksum can tell that the two pieces belong together.
        if origin.get("url") == want.url and (validator or want.sha256 or want.md5):
            headers["Range"] = f"bytes={start}-"
            if validator:
                headers["If-Range"] = validator
    request = urllib.request.Request(want.url, headers=headers)
    try:
        with contextlib.closing(_opener(want.plain_http).open(request, timeout=TIMEOUT)) as response:
            offset, total = _extent(response, start if "Range" in headers else 0)
            _store(want, response, offset, total)
            return offset > 0
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            if error.code == 416 and "Range" in headers:
                # Either the partial file is whole, or it is longer than the file that the server has now.
                if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
                    return True
                want.throw_away()
                raise _Transient("the file on the server has become shorter") from None
            if error.code in TRANSIENT:
                raise _Transient(f"HTTP {error.code} {error.reason}", _seconds(error.headers.get("Retry-After"))) from None
            raise UserError(f"{want.url} cannot be fetched: HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError | ConnectionResetError):
            raise _Transient(f"{error.reason}") from None
        host = urllib.parse.urlsplit(want.url).hostname
        raise UserError(f"{want.url} cannot be fetched: {host} is unreachable ({_reason(error.reason)})") from None
    except (OSError, http.client.HTTPException) as error:  # while reading; what the disk refuses is a UserError by now
        raise _Transient(str(error) or type(error).__name__) from None


def _extent(response: Any, start: int) -> tuple[int, int | None]:
    """(first byte that the response holds, bytes of the whole file or None)."""
    length = response.headers.get("Content-Length")
    if response.status == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(start):
            raise _Transient(f"the server continues at {span or 'an unnamed byte'}, not at {start}")
        return start, int(total) if total.isdecimal() else None
    return 0, int(length) if length and length.isdecimal() else None


def _store(want: _Want, response: Any, offset: int, total: int | None) -> None:
    limit = want.max_bytes
    if limit is not None and total is not None and total > limit:
        raise UserError(f"{want.url} is {total:,} bytes long, more than the {limit:,} that are allowed; it is not fetched")
    with _disk(want.path):
        free = shutil.disk_usage(want.path.parent).free
        if total is not None and total - offset > free:
            raise UserError(
                f"{want.path.parent} has {free / 1e9:.1f} GB left, and {want.path.name} needs {(total - offset) / 1e9:.1f} GB more"
            )
        etag = response.headers.get("ETag", "")
        # A weak ETag may not be used for ranges (RFC 9110, 13.1.5).
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        if not offset:
            want.partial.unlink(missing_ok=True)
            want.origin.write_text(json.dumps({"url": want.url, "validator": validator}))
        file = open(want.partial, "ab")  # noqa: SIM115 - closed below
    size = offset
    bar = tqdm(desc=want.path.name, total=total, initial=offset, unit="B", unit_scale=True, delay=1, disable=not want.progress)
    with bar, contextlib.closing(file):
        while block := response.read(BLOCK):
            size += len(block)
            if limit is not None and size > limit:
                want.throw_away()
                raise UserError(f"{want.url} is longer than the {limit:,} bytes that are allowed; it is not kept")
            _write(want, file, block)
            bar.update(len(block))
    if total is not None and size > total:
        want.throw_away()
        raise _Transient(f"{size:,} bytes came instead of {total:,}")
    if total is not None and size < total:
        raise _Transient(f"the connection broke after {size:,} of {total:,} bytes")


def _write(want: _Want, file: IO[bytes], block: bytes) -> None:
    with _disk(want.path):
        file.write(block)
        file.flush()


def _origin(want: _Want) -> dict[str, str]:
    try:
        found = json.loads(want.origin.read_text())
    except (OSError, ValueError):  # lost or cut short: the download then begins anew, unless a checksum can judge it
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdecimal() else 0.0


def _digest(file: Path, name: str) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, name).hexdigest()


def _reason(error: object) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host, or no network"
    return str(getattr(error, "strerror", None) or error)


def _scheme(url: str, plain_http: bool) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (plain_http and parts.scheme == "http" and parts.hostname == "127.0.0.1"):
        raise ValueError(f"{url}: only https is fetched")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https only: plain http would let anybody on the way change the file."""

    def __init__(self, plain_http: bool) -> None:
        self.plain_http = plain_http

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _scheme(newurl, self.plain_http)
        except ValueError:
            raise UserError(f"{req.full_url} leads to {newurl}, and only https is fetched") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener(plain_http: bool) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects(plain_http))


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What the disk refuses, in one line; what lies there stays, so that the download can go on."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path.name} in {path.parent}: {error.strerror or error}; mend it and run again") from error
