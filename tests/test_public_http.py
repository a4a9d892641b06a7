"""Which addresses are asked, and how they are written."""

from __future__ import annotations

import pytest

from membench.fetching import public_http
from membench.fetching.image_download import Link, check_links
from membench.fetching.image_request import Limits, Requests
from membench.fetching.public_http import Refused, get, is_public, parse_url

PRIVATE = """
127.0.0.1 127.9.9.9 0.0.0.0 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1
192.0.2.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::ffff:127.0.0.1
::ffff:8.8.8.8 ::127.0.0.1 fe80::1 fe80::1%eth0 fc00::1 fd12::1 fec0::1 ff02::1
2001:db8::1 2002:7f00:1:: 2002:808:808:: 2001:0:4136:e378:8000:63bf:3fff:fdd2
64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::808:808 168.63.129.16 64:ff9b::a83f:8110
192.0.0.192 192.0.0.8
"""
PUBLIC = "8.8.8.8 93.184.215.14 2001:4860:4860::8888 2606:4700::1111 64:ff9b::808:808"


@pytest.mark.parametrize(
    ("address", "public"),
    [(a, False) for a in PRIVATE.split()] + [(a, True) for a in PUBLIC.split()],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://one.example:22/",
            "http://one.example:99999/",
            "http://one.example:x/",
            "http://u@one.example/",
            "http:///a.png",
        ),
        *(
            "http://one.example\\@127.0.0.1/",
            "http://one.example/\r\nX: y",
            "http://one..example/",
            "http://[::1/",
            "http://a b.example/",
        ),
        *("http://" + "a" * 64 + ".example/", "http://one.example%00.x/", "http://[v1.x]/"),
        *("http://[2606:4700::1%\u4e00]/", "http://[2606:4700::1%a b]/", "http://a.example/\ud800"),
    ],
)
def test_a_malformed_address_is_refused_alone(url: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_url(url)
    assert not caught.value.local
    check_links([Link("a", url)])


def test_addresses_are_written_as_a_browser_writes_them() -> None:
    assert (
        parse_url(" https://B\u00fccher.Example./a b/\u00e9.png?q=\u00fc&x=%20#part ").url
        == "https://xn--bcher-kva.example/a%20b/%C3%A9.png?q=%C3%BC&x=%20"
    )
    assert parse_url("http://8.8.8.8").url == "http://8.8.8.8/"
    assert (
        parse_url("http://[2001:4860:4860:0::8888]:443/x").url
        == "http://[2001:4860:4860::8888]:443/x"
    )
    assert parse_url("http://one.example/a/b").redirect("../c?d").url == "http://one.example/c?d"
    assert (
        parse_url("http://one.example/a/b").redirect("//two.example").url == "http://two.example/"
    )


@pytest.mark.parametrize(("most", "tried"), [(25.0, [10, 10, 5]), (1000.0, [10] * 6)])
def test_addresses_that_do_not_answer_end_with_the_time_of_a_request(
    monkeypatch: pytest.MonkeyPatch, most: float, tried: list[float]
) -> None:
    """Twenty of one name, each of which takes all of its own time."""
    now, waited = [100.0], list[float]()

    class Silent:
        def __init__(self, address: str, port: int, timeout: float) -> None:
            self.timeout = timeout

        def connect(self) -> None:
            waited.append(self.timeout)
            now[0] += self.timeout
            raise TimeoutError

        def close(self) -> None: ...

    monkeypatch.setattr(public_http, "HTTPConnection", Silent)
    monkeypatch.setattr(public_http.time, "monotonic", lambda: now[0])
    names = [(f"8.8.8.{i}", 80) for i in range(20)]
    monkeypatch.setattr(public_http, "resolve", lambda target: names)
    target = parse_url("http://example.org/a.png")
    with (
        pytest.raises(TimeoutError),
        get(target, connect_timeout=10, read_timeout=15, deadline=100 + most),
    ):
        pass
    assert waited == tried
    waited.clear()
    limits = Limits(connect_timeout=10, total_timeout=most)
    assert Requests(limits).ask(target).status == "timeout" and waited == tried
