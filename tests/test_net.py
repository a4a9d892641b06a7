"""Downloads against a server of this machine that misbehaves in the ways that servers
do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from small_files import small_files

from membench.errors import UserError
from membench.fetching import net

# Several blocks, and not a whole number of them
BODY = np.random.default_rng(0).integers(0, 256, 700_001, np.uint8).tobytes()
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]


class Server(http.server.ThreadingHTTPServer):
    """Gives ``body`` at every path; ``faults`` answer the first requests in its place.
    seen: their paths.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.faults = BODY, list[Callable[[Handler], None]]()
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        if self.server.faults:
            self.server.faults.pop(0)(self)
        else:
            self.give()

    def give(self, *, cut: int | None = None, length: bool = True) -> None:
        """The file. cut: break off after so many bytes."""
        self.send_response(200)
        if length:
            self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body[:cut])


def status(code: int, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def cut(after: int) -> Callable[[Handler], None]:
    return lambda handler: handler.give(cut=after)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(net, "BACKOFF", 0.001)
    with Server() as made:
        threading.Thread(
            target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield made
        made.shutdown()


fetch = partial(net.fetch, _plain_http=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.bin"


def left(path: Path) -> set[str]:
    """Files beside ``path``, but for the lock."""
    return {p.name for p in path.parent.iterdir()} - {f".{path.name}.lock"}


# ----------------------------------------------------------------------------- the file


def test_a_file_is_fetched_once_and_checked(server: Server, path: Path) -> None:
    assert fetch(server.url, path, sha256=SHA.upper(), progress=True) == path
    assert path.read_bytes() == BODY and left(path) == {"file.bin"}
    fetch(server.url, path, sha256=SHA)
    assert server.seen == ["/file.bin"]


def test_a_file_that_is_there_needs_no_network(server: Server, path: Path, monkeypatch) -> None:
    path.parent.mkdir()
    path.write_bytes(BODY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for digest in (SHA, ""):
        assert fetch(server.url, path, sha256=digest) == path
    assert not server.seen


def test_a_wrong_file_that_is_there_is_left_as_it_is(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(OTHER)
    with pytest.raises(
        UserError, match=f"{hashlib.sha256(OTHER).hexdigest()}, but {SHA} is expected; move it away"
    ):
        fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == OTHER and not server.seen


def test_a_wrong_download_is_thrown_away(server: Server, path: Path) -> None:
    with pytest.raises(
        UserError, match=f"SHA256 {SHA}, but {'0' * 64} is expected; it is not kept"
    ):
        fetch(server.url, path, sha256="0" * 64)
    assert left(path) == set()


def test_without_a_checksum_the_first_download_is_trusted(server: Server, path: Path) -> None:
    fetch(server.url, path)
    record = path.with_name("file.bin.sha256")
    assert record.read_text() == f"{SHA}  file.bin\n"
    fetch(server.url, path)
    path.write_bytes(OTHER)
    with pytest.raises(UserError, match=r"but .* is expected"):
        fetch(server.url, path)
    path.unlink()
    server.body = OTHER
    with pytest.raises(UserError, match="it is not kept"):  # fetched anew: still held to the record
        fetch(server.url, path)
    assert left(path) == {"file.bin.sha256"}


def test_a_damaged_record_of_a_checksum_is_one_line(server: Server, path: Path) -> None:
    fetch(server.url, path)
    path.with_name("file.bin.sha256").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is expected; move it away"):
        fetch(server.url, path)


def test_a_file_of_the_users_without_a_checksum_is_recorded(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(OTHER)
    fetch(server.url, path)
    assert (
        hashlib.sha256(OTHER).hexdigest() in path.with_name("file.bin.sha256").read_text()
        and not server.seen
    )


def test_a_folder_in_the_way(server: Server, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UserError, match="is not a file; move it away"):
        fetch(server.url, path)


# -------------------------------------------------------------------------- tries again


@pytest.mark.parametrize("checksum", [SHA, ""])
def test_a_broken_connection_is_tried_again_from_the_start(
    server: Server, path: Path, checksum: str
) -> None:
    server.faults = [cut(300_000), cut(1)]
    fetch(server.url, path, sha256=checksum)
    # And no piece of the first two
    assert path.read_bytes() == BODY and server.seen == ["/file.bin"] * 3
    assert left(path) == {"file.bin"} | ({"file.bin.sha256"} if not checksum else set())


def test_what_a_killed_process_left_is_overwritten(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(temporary: str, final: str) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(net.os, "replace", killed)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        fetch(server.url, path, sha256=SHA)
    assert not path.exists() and len(left(path)) == 1
    fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == BODY and left(path) == {"file.bin"}


def test_chunks_without_a_length(server: Server, path: Path) -> None:
    server.faults = [lambda handler: handler.give(length=False)]
    fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == BODY and len(server.seen) == 1


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: Server, path: Path, code: int) -> None:
    server.faults = [status(code), status(code, Retry_After="0")]
    fetch(server.url, path)
    assert path.read_bytes() == BODY and len(server.seen) == 3


def test_but_not_for_ever(server: Server, path: Path) -> None:
    server.faults = [status(503) for _ in range(9)]
    with pytest.raises(UserError, match=r"HTTP 503 .*4 times.*try again later"):
        fetch(server.url, path)
    assert len(server.seen) == 4 and left(path) == set()


def test_the_pauses_double_and_obey_the_server(server: Server, path: Path, monkeypatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr(net, "BACKOFF", 1.0)
    monkeypatch.setattr(net.time, "sleep", paused.append)
    monkeypatch.setattr(net, "TRIES", 6)
    server.faults = [
        status(503),
        status(503),
        status(429, Retry_After="7"),
        status(503),
        status(503, Retry_After="9999"),
    ]
    fetch(server.url, path)
    assert paused == [1.0, 2.0, 7.0, 8.0, 60.0]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_what_stays_is_said_at_once(server: Server, path: Path, code: int) -> None:
    server.faults = [status(code)]
    with pytest.raises(UserError, match=f"{server.url} cannot be fetched: HTTP {code} "):
        fetch(server.url, path)
    assert len(server.seen) == 1 and left(path) == set()


def test_a_server_that_says_nothing(server: Server, path: Path, monkeypatch) -> None:
    monkeypatch.setattr(net, "TIMEOUT", 0.1)
    monkeypatch.setattr(net, "TRIES", 2)
    done = threading.Event()
    server.faults = [lambda handler: done.wait(5) and None, lambda handler: done.wait(5) and None]
    with pytest.raises(UserError, match="timed out"):
        fetch(server.url, path)
    done.set()


@pytest.mark.parametrize("length", [True, False])
def test_a_server_that_trickles(server: Server, path: Path, length: bool, monkeypatch) -> None:
    """A byte at a time, never silent for long: the whole has its time, too. Without a
    length what was cut off looks whole.
    """

    def trickle(handler: Handler) -> None:
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        with contextlib.suppress(OSError):  # hung up on
            for k in range(40):
                handler.wfile.write(BODY[k : k + 1])
                time.sleep(0.05)

    monkeypatch.setattr(net, "LONGEST", 0.3)
    server.faults = [trickle] * net.TRIES
    with pytest.raises(UserError, match="was not here after"):
        fetch(server.url, path)
    assert server.seen == ["/file.bin"] and left(path) == set()


def test_nobody_listens(path: Path, server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
        with pytest.raises(UserError, match=r"127\.0\.0\.1 is unreachable"):
            fetch(url, path)


@pytest.mark.parametrize("length", [True, False])
def test_too_long_a_file(server: Server, path: Path, length: bool) -> None:
    server.faults = [lambda handler: handler.give(length=length)]
    with pytest.raises(
        UserError,
        match=r"700,001 bytes long, .*not fetched"
        if length
        else r"longer than the 700,000 .*not kept",
    ):
        fetch(server.url, path, max_bytes=700_000)
    assert left(path) == set()
    fetch(server.url, path, max_bytes=700_001)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target", ["http://example.org/file.bin", "ftp://example.org/file.bin", "file:///etc/hostname"]
)
def test_redirects_lead_to_https_only(server: Server, path: Path, target: str, code: int) -> None:
    server.faults = [status(302, Location="/next"), status(code, Location=target)]
    with pytest.raises(
        UserError, match=re.escape(f"{server.url} leads to {target}, and only https is fetched")
    ):
        fetch(server.url, path)
    assert left(path) == set() and len(server.seen) == 2


def test_a_length_of_thousands_of_digits(server: Server, path: Path) -> None:
    server.faults = [status(200, Content_Length="9" * 5000)] * net.TRIES
    with pytest.raises(UserError, match="bytes long, more than the"):
        fetch(server.url, path)
    assert server.seen == ["/file.bin"] and not path.exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (status(302, Location="https://[::1"), r"leads to https://\[::1: Invalid IPv6 URL"),
        (status(200, Content_Length="many"), "cannot be fetched: invalid literal"),
    ],
)
def test_malformed_answers(server: Server, path: Path, answer, why: str) -> None:
    server.faults = [answer]
    with pytest.raises(UserError, match=why):
        fetch(server.url, path)
    assert left(path) == set()


def test_redirects_in_a_circle(server: Server, path: Path) -> None:
    server.faults = [status(302, Location="/again") for _ in range(40)]
    with pytest.raises(UserError, match=r"cannot be fetched: .*redirects"):
        fetch(server.url, path)
    assert len(server.seen) == 31 and left(path) == set()


def test_a_redirect_is_followed(server: Server, path: Path) -> None:
    server.faults = [status(302, Location="/moved.bin")]
    fetch(server.url, path)
    assert server.seen == ["/file.bin", "/moved.bin"] and path.read_bytes() == BODY


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/file",
        "http://example.org/file",
        "ftp://example.org/file",
        "file:///etc/passwd",
        "x",
    ],
)
def test_https_only(path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="only https"):
        net.fetch(url, path)


def test_a_full_disk(server: Server, path: Path, monkeypatch) -> None:
    used = shutil.disk_usage(path.parents[1])
    monkeypatch.setattr(net.shutil, "disk_usage", lambda where: used._replace(free=700_000))
    with pytest.raises(UserError, match=r"GB left, and file\.bin needs"):
        fetch(server.url, path)
    monkeypatch.setattr(net.shutil, "disk_usage", lambda where: used._replace(free=700_001))
    fetch(server.url, path)


def test_a_disk_that_fills_up_meanwhile(server: Server, path: Path, monkeypatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"cannot write file.bin in .*No space left on device"),
    ):
        patch.setattr(net.os, "fsync", full)
        fetch(server.url, path)
    assert not path.exists()
    fetch(server.url, path)
    assert path.read_bytes() == BODY


def test_a_disk_that_is_full_after_4096_bytes(server: Server, path: Path) -> None:
    """The end of a small file, which a buffer would write a second time on closing."""
    server.body = BODY[:5000]
    too_large = pytest.raises(UserError, match=r"cannot write file.bin in .*too large")
    with too_large, small_files(4096):
        fetch(server.url, path)
    assert left(path) == set()


def test_a_folder_that_cannot_be_made(server: Server, path: Path) -> None:
    path.parent.write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write file.bin"):
        fetch(server.url, path)


def test_a_second_call_meanwhile_waits_and_fetches_nothing(server: Server, path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        go_on.wait(5)
        handler.give()

    server.faults = [slow]
    first = threading.Thread(target=fetch, args=(server.url, path))
    first.start()
    assert begun.wait(5)
    second = threading.Thread(target=fetch, args=(server.url, path))
    second.start()
    go_on.set()
    first.join(5)
    second.join(5)
    assert path.read_bytes() == BODY and len(server.seen) == 1


# ------------------------------------------------------------------------------ offline


@pytest.mark.parametrize(
    ("environment", "forbidden"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "true"}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"HF_HUB_OFFLINE": ""}, False),
        ({"TRANSFORMERS_OFFLINE": "YES"}, True),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False),
    ],
)
def test_offline_as_the_hubs_own_library_reads_it(
    monkeypatch, environment: dict[str, str], forbidden: bool
) -> None:
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert net.offline() is forbidden
    assert (
        constants._is_true(
            environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE")
        )
        is forbidden
    )


def test_offline_opens_no_socket(path: Path, monkeypatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        UserError,
        match=r"file.bin is not in .*--offline forbids to fetch it from https://example.org/file.bin",
    ):
        net.fetch("https://example.org/file.bin", path)
    assert not path.parent.exists()
