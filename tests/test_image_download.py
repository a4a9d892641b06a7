"""Images from a list of addresses: what each server's answer becomes, whom it may
ask, how politely, and what a second call asks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import urllib3.util.connection
from PIL import Image
from test_pictures import png_claiming

from membench.errors import UserError
from membench.fetching import image_download, public_http
from membench.fetching.download_status import SCHEMA, STATUS, StatusTable
from membench.fetching.image_download import (
    Link,
    check_links,
    download_images,
    status_line,
    to_fetch,
)
from membench.fetching.image_request import Limits

FAST = Limits(
    delay=0.0,
    pause=0.0,
    read_timeout=0.4,
    total_timeout=1.0,
    connect_timeout=1.0,
    max_bytes=200_000,
    max_pixels=1_000_000,
)
RNG = np.random.default_rng(0)


def encoded(
    kind: str = "PNG", seed: int = 0, size: tuple[int, int] = (40, 30), **options: object
) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


class Site:
    """A server under any number of names. pages: path -> (status, headers, body), body
    bytes or chunks or a function of the handler.
    """

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], object]] = {}
        self.asked: Counter[str] = Counter()
        self.times: list[tuple[str, float]] = []
        self.headers: list[dict[str, str]] = []
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.pause = 0.0
        lock, site = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = self.headers["Host"]
                with lock:
                    site.asked[self.path] += 1
                    site.times.append((host, time.monotonic()))
                    site.headers.append(dict(self.headers))
                    site.now[host] += 1
                    site.most[host] = max(site.most[host], site.now[host])
                    site.now["all"] += 1
                    site.most["all"] = max(site.most["all"], site.now["all"])
                time.sleep(site.pause)
                with lock:  # before the body: the client may be gone as soon as it has it
                    site.now[host] -= 1
                    site.now["all"] -= 1
                status, headers, body = site.pages.get(self.path, (404, {}, b"no such page"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if isinstance(body, bytes) and "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for part in [body] if isinstance(body, bytes) else body:  # type: ignore[attr-defined]
                    try:
                        self.wfile.write(part)
                        self.wfile.flush()
                    except OSError:  # the client has hung up
                        return

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        self.hosts = {
            f"{name}.example": ("127.0.0.1", self.server.server_port)
            for name in ("one", "two", "three")
        }

    def add(
        self, path: str, body: object, kind: str = "image/png", status: int = 200, **headers: str
    ) -> str:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = (status, ({"Content-Type": kind} if kind else {}) | headers, body)
        return f"http://one.example{path}"

    def get(
        self, folder: Path, urls: dict[str, str], limits: Limits = FAST, **options: object
    ) -> pd.DataFrame:
        links = [Link(name, url) for name, url in urls.items()]
        return download_images(
            links, folder, limits=limits, _hosts=self.hosts, **options
        ).set_index("id")  # type: ignore[arg-type]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # "offline" for membench, too
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


# --------------------------------------------------------------- what an answer becomes


def test_every_answer_has_its_status(site: Site, tmp_path: Path) -> None:
    good, jpeg = encoded(), encoded("JPEG", quality=90)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="50" height="50"></svg>'
    expected = {
        "ok": [
            site.add("/a.png", good),
            site.add("/jpeg.png", jpeg),  # the name and the type may lie about the format
            site.add("/octets", encoded("WEBP", 2), "application/octet-stream"),
            site.add("/untyped", encoded("GIF", 3), ""),
            site.add(
                "/caf\u00e9 noir.png".replace("\u00e9", "%C3%A9").replace(" ", "%20"),
                encoded(seed=4),
            ),
            site.add("/moved", b"", "", 302, Location="http://two.example/a.png?big=1"),
        ],
        "gone": ["http://one.example/never", site.add("/410", b"", "text/html", 410)],
        "http_error": [
            site.add("/403", b"no", "text/html", 403),
            site.add("/around", b"", "", 301, Location="/around"),
        ],
        "not_an_image": [
            site.add("/page", b"<html>image removed</html>", "text/html; charset=utf-8"),
            site.add("/html.jpg", b"<html>image removed</html>", "image/jpeg"),
            site.add("/a.svg", svg, "image/svg+xml"),
            site.add("/svg.png", svg),
            site.add("/cut.jpg", jpeg[: len(jpeg) // 2], "image/jpeg"),
            site.add("/flipped.png", good[:60] + bytes([good[60] ^ 1]) + good[61:]),
            site.add("/empty.png", b""),
            site.add(
                "/drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n", "image/png"
            ),
        ],
        "too_big": [
            site.add("/long", [bytes(5000)] * 100),
            site.add("/announced", b"", Content_Length="200001"),
        ],
        "too_many_pixels": [
            site.add("/bomb.png", png_claiming(60_000, 60_000)),
            site.add("/large.png", encoded(size=(1001, 1000))[:50000]),
        ],
        "refused": [
            site.add("/in", b"", "", 302, Location="http://127.0.0.1/secret"),
            site.add("/cloud", b"", "", 302, Location="http://169.254.169.254/latest/meta-data/"),
            site.add("/file", b"", "", 302, Location="file:///etc/passwd"),
            site.add(
                "/port",
                b"",
                "",
                302,
                Location=f"http://one.example:{site.server.server_port}/a.png",
            ),
            "http://one.example:8080/a.png",
            "http://user:word@one.example/a.png",
            "http://one.ex ample/a.png",
            "",
        ],
        "unreachable": [site.add("/short", good[:500], Content_Length=str(len(good)))],
    }
    site.add("/a.png?big=1", encoded(seed=5))
    expected["ok"][4] = "http://one.example/caf\u00e9 noir.png"
    urls = {
        f"{status}{i}": url for status, group in expected.items() for i, url in enumerate(group)
    }
    table = site.get(tmp_path, urls)
    assert list(table.index) == list(urls)
    wrong = {
        name: (row.status, row.detail)
        for name, row in table.iterrows()
        if row.status != name.rstrip("0123456789")
    }
    assert not wrong
    assert (table.detail != "").equals(table.status != "ok")
    kept = table[table.status == "ok"]
    assert [Path(file).suffix for file in kept.file] == [
        ".png",
        ".jpg",
        ".webp",
        ".gif",
        ".png",
        ".png",
    ]
    assert [(tmp_path / file).read_bytes() for file in kept.file][:2] == [good, jpeg]
    assert {p.name for p in (tmp_path / "images").iterdir()} == {
        Path(file).name for file in kept.file
    }
    assert (
        set(kept.width) == {40}
        and set(kept.height) == {30}
        and list(kept.bytes)[:2] == [len(good), len(jpeg)]
    )
    assert kept.sha256.iloc[0] == hashlib.sha256(good).hexdigest()
    assert table.final_url["ok5"] == "http://two.example/a.png?big=1"
    assert site.asked["/around"] == 6  # five redirects
    assert "127.0.0.1" in table.detail["refused0"] and "/secret" not in site.asked
    assert (
        table.attempts["unreachable0"] == site.asked["/short"] == 2
        and table.attempts["ok0"] == 1
        and table.attempts["refused4"] == 0
    )
    assert status_line(table).startswith("8 not_an_image") is False and status_line(
        table
    ).startswith("6 ok, 8 not_an_image, 8 refused, ")
    assert {h["User-Agent"].partition("/")[0] for h in site.headers} == {"membench"}
    assert {h["Host"] for h in site.headers} == {"one.example", "two.example"}


def test_slow_servers_are_timeouts(site: Site, tmp_path: Path) -> None:
    def drip(seconds: float, times: int) -> Iterator[bytes]:
        for _ in range(times):
            time.sleep(seconds)
            yield b"x"

    urls = {
        "silent": site.add("/silent", drip(0.8, 1)),
        "dripping": site.add("/drip", drip(0.1, 30)),  # never a read timeout
        "headers": "http://two.example/headers",
        # Cut off, it is a whole image with something behind
        "endless": site.add("/whole", itertools.chain([encoded()], drip(0.1, 30))),
    }
    with socket.create_server(("127.0.0.1", 0)) as drips:

        def serve() -> None:
            with contextlib.suppress(OSError), drips.accept()[0] as sock:
                sock.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                for part in drip(0.1, 30):  # a line of the header without an end
                    sock.sendall(part)

        threading.Thread(target=serve, daemon=True).start()
        site.hosts["two.example"] = drips.getsockname()
        start = time.monotonic()
        table = site.get(tmp_path, urls, Limits(**{**vars(FAST), "tries": 1, "total_timeout": 0.8}))
    assert list(table.status) == ["timeout"] * 4, table.detail
    assert time.monotonic() - start < 2.5


def test_malformed_answers_end_one_request_alone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_http, "MOST_BYTES", 100_000)
    sent: Counter[str] = Counter()

    def endless(name: str, first: bytes, then: bytes) -> Iterator[bytes]:
        yield first
        for _ in range(300):
            sent[name] += 1
            yield then * 1000

    def chunked(name: str, first: bytes, then: bytes) -> str:
        return site.add(f"/{name}", endless(name, first, then), Transfer_Encoding="chunked")

    urls = {
        "ok": site.add("/a.png", encoded()),
        "brackets": site.add("/b", b"", "", 302, Location="http://[::1"),
        "digits": site.add("/503", b"", "", 503, Retry_After="9" * 5000),
        "year": site.add("/429", b"", "", 429, Retry_After="Mon, 01 Jan 99999999999 00:00:00 GMT"),
        "all": chunked("all", b"-1\r\n", b"x" * 100),
        "negative": chunked("negative", b"-5\r\n", b"x" * 100),
        "trailer": chunked("trailer", b"0\r\n", b"x: " + b"y" * 95 + b"\r\n"),
        "line": chunked("line", b"5;", b"x" * 100),
    }
    one = Limits(**{**vars(FAST), "tries": 1, "per_host": 1})
    table = site.get(
        tmp_path, urls, Limits(**{**vars(one), "read_timeout": 5, "total_timeout": 20})
    )
    expected = ["ok", "refused", *["http_error"] * 2, *["unreachable"] * 4]
    assert list(table.status) == expected, table.detail
    assert max(sent.values()) < 200, sent  # of 300


def test_an_unknown_name_and_a_closed_port_are_unreachable(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        site.hosts["closed.example"] = closed.getsockname()
    asked = []

    def unknown(host: str, *args: object, **options: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(public_http.socket, "getaddrinfo", pick("unknown.example", unknown))
    urls = {f"u{i}": f"http://unknown.example/{i}" for i in range(6)} | {
        "c": "http://closed.example/a.png"
    }
    table = site.get(tmp_path, urls, Limits(**{**vars(FAST), "per_host": 1}))
    assert set(table.status) == {"unreachable"}
    assert table.attempts["c"] == 2 and len(asked) == 3  # then the host is given up
    assert list(table.attempts[:6]).count(0) == 3 and "does not answer" in table.detail["u5"]


def pick(host: str, instead: object) -> object:
    """getaddrinfo that answers otherwise for one host."""
    real = socket.getaddrinfo
    return lambda name, *args, **options: (instead if name == host else real)(
        name, *args, **options
    )  # type: ignore[operator]


# ---------------------------------------------------------------------- whom it may ask


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://one.example/a.png",
            "/etc/passwd",
            "gopher://one.example/",
            "data:image/png;base64,AAAA",
        ),
        *(
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0/",
        ),
        *(
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "http://[fe80::1]/",
            "http://10.0.0.1:80/x",
            "http://169.254.169.254/latest/",
        ),
        *(
            "http://\uff11\uff12\uff17.0.0.1/",
            "http://127\u30020\u30020\u30021/",
            "http://127.0.0.1./",
            "HTTP://LOCALHOST/",
        ),
        *(
            "https://localhost/x",
            "http://router/",
            "http://db.internal/",
            "http://printer.local./",
            "http://nas.home.arpa/",
        ),
    ],
)
def test_a_list_with_a_local_address_is_refused_by_its_row(url: str, tmp_path: Path) -> None:
    links = [Link("7", "http://one.example/a.png"), Link("8", url)]
    with pytest.raises(
        UserError, match=r"^row 2 of the URL list \('8', .*remove the row$"
    ) as caught:
        check_links(links)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        download_images(links, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_an_id_has_one_address() -> None:
    with pytest.raises(UserError, match=r"row 3 .*another address"):
        check_links(
            [
                Link("7", "http://one.example/a"),
                Link("7", "http://one.example/a"),
                Link("7", "http://one.example/b"),
            ]
        )
    with pytest.raises(UserError, match=r"row 1 .*no id"):
        check_links([Link("", "http://one.example/a")])


@pytest.mark.parametrize("answers", [["10.0.0.7"], ["8.8.8.8", "127.0.0.1"], ["::1"]])
def test_a_public_name_with_a_private_address_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in answers]
    monkeypatch.setattr(
        public_http.socket, "getaddrinfo", pick("public.example", lambda *args, **options: infos)
    )
    monkeypatch.setattr(
        urllib3.util.connection,
        "create_connection",
        lambda *args, **options: pytest.fail("connected"),
    )
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("connected"))
    row = site.get(tmp_path, {"7": "http://public.example/a.png"}).loc["7"]
    assert row.status == "refused" and answers[-1] in row.detail


def test_the_connection_goes_to_the_address_that_was_checked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that gives a public address first and a private one then (DNS
    rebinding) is asked once.
    """
    site.add("/a.png", encoded())
    answers = iter(["8.8.4.4", "127.0.0.1", "127.0.0.1"])
    connected = []
    real = urllib3.util.connection.create_connection

    def connect(address: tuple[str, int], timeout: float, **options: object) -> socket.socket:
        connected.append(address)
        return real(("127.0.0.1", site.server.server_port), timeout, **options)  # type: ignore[arg-type]

    def infos(*args, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 80))]

    monkeypatch.setattr(public_http.socket, "getaddrinfo", pick("public.example", infos))
    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    table = site.get(tmp_path, {"7": "http://public.example/a.png"})
    assert (
        list(table.status) == ["ok"]
        and connected == [("8.8.4.4", 80)]
        and next(answers) == "127.0.0.1"
    )
    assert site.headers[0]["Host"] == "public.example"


ONE_EXAMPLE = """\
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIULrMMcrt9dlXBsaWfms+kECjLPmswCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLb25lLmV4YW1wbGUwIBcNMjYxMTI4MDc0NDQ3WhgPMjEyNjEx
MDQwNzQ0NDdaMBYxFDASBgNVBAMMC29uZS5leGFtcGxlMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAE6aK5RH/ynbzd0Jy6hlJZG0YM/aHabd60N/SQL3ATg0XadP9h
k/Zm4JSFfgh72w9jrw2zJds8+i+tkwLAcy9TG6NrMGkwHQYDVR0OBBYEFBkjv7nc
nW0iWA8AhPT6ZTvtsp32MB8GA1UdIwQYMBaAFBkjv7ncnW0iWA8AhPT6ZTvtsp32
MA8GA1UdEwEB/wQFMAMBAf8wFgYDVR0RBA8wDYILb25lLmV4YW1wbGUwCgYIKoZI
zj0EAwIDRwAwRAIgdvwtR7H9IL7yIfDHf1UdCE3QE4Lidj2WdjGghSNO2I4CIH01
nILPFst8uHcT9LITd/879IGJ7/uJ2dI0TPJme3ZT
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3/qgrmSwTIPJMNgw
PM/IUoHxTTKOiWatt6VuT15TuEehRANCAATporlEf/KdvN3QnLqGUlkbRgz9odpt
3rQ39JAvcBODRdp0/2GT9mbglIV+CHvbD2OvDbMl2zz6L62TAsBzL1Mb
-----END PRIVATE KEY-----
"""  # signed by itself, for one.example until 2126


@pytest.fixture
def tls_site(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site over TLS, with the certificate of one.example, which is trusted."""
    pem = tmp_path / "one.example.pem"
    pem.write_text(ONE_EXAMPLE)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    server.sni_callback = lambda sock, name, context: names.append(name)
    names: list[str | None] = []
    site.server.socket = server.wrap_socket(site.server.socket, server_side=True)
    site.server_names = names  # type: ignore[attr-defined]
    real = ssl.create_default_context()
    assert public_http._tls().verify_mode == real.verify_mode and public_http._tls().check_hostname
    real.load_verify_locations(pem)
    monkeypatch.setattr(public_http, "_tls", lambda: real)
    return site


def test_tls_asks_for_the_name_and_wants_its_certificate(tls_site: Site, tmp_path: Path) -> None:
    """The name, not the address that is connected to, is in the handshake and in the
    certificate.
    """
    tls_site.add("/a.png", encoded())
    urls = {name: f"https://{name}.example/a.png" for name in ("one", "two")}
    table = tls_site.get(tmp_path / "f", urls)
    assert list(table.status) == ["ok", "unreachable"] and list(table.attempts) == [1, 1]
    assert "certificate" in table.detail["two"] and sorted(tls_site.server_names) == [
        "one.example",
        "two.example",
    ]  # type: ignore[attr-defined]


def test_a_server_with_an_unknown_certificate_or_without_tls_is_unreachable(
    tls_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_http, "_tls", ssl.create_default_context)
    plain = Site()
    tls_site.hosts["plain.example"] = ("127.0.0.1", plain.server.server_port)
    table = tls_site.get(
        tmp_path / "f", {name: f"https://{name}.example/a.png" for name in ("one", "plain")}
    )
    assert list(table.status) == ["unreachable"] * 2 and list(table.attempts) == [1, 2]
    assert (
        "CERTIFICATE_VERIFY_FAILED" in table.detail["one"]
        and "SSL" in table.detail["plain"]
        and not plain.asked
    )
    plain.server.shutdown()
    plain.server.server_close()


# --------------------------------------------------------------------------- politeness


def test_few_at_a_time_to_one_host_and_many_in_all(site: Site, tmp_path: Path) -> None:
    site.pause = 0.05
    urls = {}
    for host in ("one", "two", "three"):
        for i in range(8):
            site.add(f"/{host}{i}.png", encoded(seed=RNG.integers(1 << 30)))
            urls[f"{host}{i}"] = f"http://{host}.example/{host}{i}.png"
    table = site.get(tmp_path, urls, Limits(**{**vars(FAST), "delay": 0.03}))
    assert set(table.status) == {"ok"}
    assert {host: site.most[f"{host}.example"] for host in ("one", "two", "three")} == {
        "one": 2,
        "two": 2,
        "three": 2,
    }
    assert site.most["all"] >= 4
    for host in ("one", "two", "three"):
        times = sorted(t for name, t in site.times if name == f"{host}.example")
        # Measured where they arrive, so single gaps jitter; all of them together cannot
        # be shorter.
        assert times[-1] - times[0] > 7 * 0.03 * 0.9


def test_redirects_are_as_polite_to_where_they_lead(site: Site, tmp_path: Path) -> None:
    site.pause = 0.1
    urls = {}
    for host in ("one", "three"):
        for i in range(4):
            site.add(f"/{host}{i}", b"", "", 302, Location=f"http://two.example/{host}{i}.png")
            site.add(f"/{host}{i}.png", encoded(seed=RNG.integers(1 << 30)))
            urls[f"{host}{i}"] = f"http://{host}.example/{host}{i}"
    assert set(site.get(tmp_path, urls).status) == {"ok"} and site.most["two.example"] == 2


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(
    site: Site, tmp_path: Path
) -> None:
    def pages() -> Iterator[tuple[int, dict[str, str], object]]:
        yield 429, {"Retry-After": "1"}, b""
        while True:
            yield 200, {"Content-Type": "image/png"}, encoded()

    answers = pages()

    class Pages(dict):  # type: ignore[type-arg]
        def get(self, path: str, default: object) -> object:
            return next(answers)

    site.pages = Pages()
    table = site.get(tmp_path, {"7": "http://one.example/a.png"})
    (_, first), (_, second) = site.times
    assert list(table.status) == ["ok"] and list(table.attempts) == [2] and second - first >= 0.95


# ----------------------------------------------------------------------------- resuming


def test_a_second_call_asks_for_what_may_have_changed_only(site: Site, tmp_path: Path) -> None:
    urls = {
        "ok": site.add("/a.png", encoded()),
        "lost": site.add("/b.png", encoded(seed=1)),
        "changed": site.add("/c.png", encoded(seed=2)),
        "gone": "http://one.example/gone",
        "html": site.add("/h", b"<html>", "text/html"),
        "error": site.add("/e", b"", "", 500),
        "tiny": site.add("/1x1.gif", encoded("GIF", size=(1, 1))),
    }
    links = [Link(name, url) for name, url in urls.items()]
    assert to_fetch(links, tmp_path / "nothing") == links
    first = site.get(tmp_path, urls)
    assert list(first.status) == [
        "ok",
        "ok",
        "ok",
        "gone",
        "not_an_image",
        "http_error",
        "placeholder?",
    ]
    assert list(first.attempts) == [1, 1, 1, 1, 1, 2, 1]
    (tmp_path / first.file["lost"]).unlink()
    path = tmp_path / first.file["changed"]
    path.write_bytes(path.read_bytes()[:-1] + b"?")  # of the same length
    assert [link.id for link in to_fetch(links, tmp_path)] == ["lost", "changed", "error"]

    site.asked.clear()
    site.add("/e", encoded(seed=3))
    second = site.get(tmp_path, urls)
    assert site.asked == {"/b.png": 1, "/c.png": 1, "/e": 1}
    assert list(second.status) == ["ok", "ok", "ok", "gone", "not_an_image", "ok", "placeholder?"]
    assert list(second.attempts) == [1, 2, 2, 1, 1, 3, 1]
    assert path.read_bytes() == encoded(seed=2)

    site.asked.clear()
    assert site.get(tmp_path, urls).equals(second) and not site.asked
    site.add("/gone", encoded(seed=9))
    retried = site.get(tmp_path, {name: urls[name] for name in ("gone", "html", "ok")}, retry=True)
    assert site.asked == {"/gone": 1, "/h": 1} and list(retried.status) == [
        "ok",
        "not_an_image",
        "ok",
    ]
    # Rows of other lists stay
    assert set(pd.read_parquet(tmp_path / "status.parquet").id) == set(urls)


def test_another_address_for_an_id_replaces_its_picture(site: Site, tmp_path: Path) -> None:
    first = site.get(tmp_path, {"7": site.add("/a.png", encoded())})
    second = site.get(tmp_path, {"7": site.add("/a.jpg", encoded("JPEG"))})
    assert second.file["7"] == first.file["7"].replace(".png", ".jpg") and list(
        second.attempts
    ) == [1]
    assert [p.name for p in (tmp_path / "images").iterdir()] == [Path(second.file["7"]).name]


def test_ids_with_one_address_share_a_request(site: Site, tmp_path: Path) -> None:
    url = site.add("/a.png", encoded())
    table = site.get(tmp_path, {name: url for name in "abcd"})
    assert site.asked == {"/a.png": 1} and set(table.status) == {"ok"} and table.file.is_unique


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Interrupts are heard, also where the shell that started the tests has them
    ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_what_is_done(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forever() -> Iterator[bytes]:
        yield encoded()[:200]
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    urls = {f"{i}": site.add(f"/{i}.png", encoded(seed=i)) for i in range(5)}
    urls["slow"] = "http://two.example/slow"
    # Without a length: cut off, it looks whole
    site.pages["/slow"] = (200, {"Content-Type": "image/png"}, forever())
    monkeypatch.setattr(image_download, "SAVE_EVERY", 1e9)
    slow = Limits(**{**vars(FAST), "read_timeout": 30, "total_timeout": 30, "workers": 1})
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        site.get(
            tmp_path,
            {**urls, **{f"late{i}": f"http://one.example/late{i}" for i in range(50)}},
            slow,
        )
    assert time.monotonic() - start < 3
    rows = StatusTable(tmp_path).rows
    assert (
        "slow" not in rows
        and {row.status for row in rows.values()} <= {"ok", "gone"}
        and "late49" not in rows
    )
    done = sum(row.status == "ok" for row in rows.values())
    assert done >= 1
    site.asked.clear()
    site.add("/slow", encoded(seed=99))
    table = site.get(tmp_path, urls)
    assert set(table.status) == {"ok"} and sum(site.asked.values()) == 6 - done


# ------------------------------------------------------------------------- placeholders


def test_the_same_bytes_for_three_addresses_of_a_host_are_a_placeholder(
    site: Site, tmp_path: Path
) -> None:
    dummy, twice = encoded(seed=1), encoded(seed=2)
    urls = {f"dummy{i}": site.add(f"/d{i}.png", dummy) for i in range(2)}
    urls |= {f"twice{i}": site.add(f"/t{i}.png", twice) for i in range(2)}
    urls["elsewhere"] = "http://two.example/t0.png"
    urls["alone"] = site.add("/alone.png", encoded(seed=3))
    assert set(site.get(tmp_path, urls).status) == {"ok"}
    # The third comes by a redirect, in a later call and from a list without the others:
    # the folder counts.
    third = {"third": "http://three.example/x"}
    site.add("/x", b"", "", 301, Location="http://one.example/d9.png")
    site.add("/d9.png", dummy)
    row = site.get(tmp_path, third).loc["third"]
    assert (
        row.status == "placeholder?"
        and "3 addresses" in row.detail
        and (tmp_path / row.file).read_bytes() == dummy
    )
    rows = StatusTable(tmp_path).rows
    assert {name for name, row in rows.items() if row.status == "placeholder?"} == {
        "dummy0",
        "dummy1",
        "third",
    }
    site.asked.clear()
    table = site.get(tmp_path, {**urls, **third}, Limits(**{**vars(FAST), "placeholder_urls": 0}))
    assert set(table.status) == {"ok"} and not site.asked


# ---------------------------------------------------------------------- a user's errors


def test_offline_asks_nobody(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {"a": site.add("/a.png", encoded()), "b": site.add("/b.png", encoded(seed=1))}
    site.get(tmp_path, {"a": urls["a"]})
    site.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert list(site.get(tmp_path, {"a": urls["a"]}).status) == ["ok"]
    with pytest.raises(UserError, match=r"1 of 2 images are not in .* --offline"):
        site.get(tmp_path, urls)
    assert not site.asked


def test_a_damaged_table_and_a_folder_that_cannot_be(site: Site, tmp_path: Path) -> None:
    url = site.add("/a.png", encoded())
    site.get(tmp_path, {"a": url})
    path = tmp_path / "status.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"status.parquet is damaged \(.*delete it"):
        site.get(tmp_path, {"a": url})
    pd.DataFrame({"id": ["a"]}).to_parquet(path)
    with pytest.raises(UserError, match="is damaged"):
        site.get(tmp_path, {"a": url})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write images in .*choose another folder"):
        site.get(tmp_path / "file", {"a": url})


def test_a_full_disk_is_told_and_ends_the_work(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    urls = {f"{i}": site.add(f"/{i}.png", encoded(seed=i)) for i in range(9)}
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .* No space left on device"):
        site.get(tmp_path, urls, Limits(**{**vars(FAST), "workers": 2}))


ROW = {"id": "11", "url": "https://e.org/a", "status": "ok", "file": "images/a.png"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"file": "../../home/.bashrc"}, "is not in images"),
        ({"file": "/etc/passwd"}, "is not in images"),
        ({"file": "images/.."}, "is not in images"),
        ({"file": "images/a\0b.png"}, "is not in images"),
        ({"file": None}, "is ok, and has no file"),
        ({"id": None}, "missing 1 required positional argument: 'id'"),
        ({"status": None}, "'status'"),
        ({"final_url": "http://[::1"}, "Invalid IPv6 URL"),
    ],
)
def test_a_stored_row_of_somebody_else(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    """A file that its row names is read, and removed when the image is fetched anew."""
    pq.write_table(pa.Table.from_pylist([ROW | changes], schema=SCHEMA), tmp_path / STATUS)
    with pytest.raises(UserError, match=why):
        StatusTable(tmp_path)
    pq.write_table(pa.Table.from_pylist([ROW], schema=SCHEMA), tmp_path / STATUS)
    assert StatusTable(tmp_path).rows["11"].sha256 == ""
