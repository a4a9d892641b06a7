"""GET requests for lists of strangers' web addresses: public hosts only, and the very
address that was checked.

A list of image addresses may name, by mistake or by malice, machines that only we can
reach: this one, the router, a cloud's metadata service. So every host is resolved once,
all its addresses must be public, and the connection is made to one of these, with the
name in the Host header and in the TLS handshake: a second answer of the name server
(DNS rebinding) is never asked for. Proxies of the environment are not used, since they
would resolve names themselves.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from http.client import HTTPResponse as Answer
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from membench.fetching.net import AGENT
from membench.storage.reading import is_text

PORTS = {"http": 80, "https": 443}
SAFE = "/%:@!$&'()*+,;=~"  # what may stand in a path as it is (RFC 3986)
LOCAL_DOMAINS = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home.arpa")

MOST_ADDRESSES = 6  # of a name that are tried, one after another
# Bytes of an answer, with its header and what stands between its chunks
MOST_BYTES = 1 << 26

HEADERS = {
    "User-Agent": (
        f"{AGENT} (research on memorization; fetches single images of a list, a few at a time)"
    ),
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given out of IPv6 (RFC 4291)
# Not public, whatever ipaddress says: Azure's virtual machines have their host at the one
# (public by number alone), Oracle's their settings in the other (RFC 6890; Python knew a
# part of it before 3.11.10 and 3.12.4)
_CLOUDS = tuple(map(ipaddress.IPv4Network, ("168.63.129.16/32", "192.0.0.0/24")))


class Refused(Exception):
    """An address that is not asked.

    Its text says why. local: it names this machine, a private network or no web server
    at all.
    """

    def __init__(self, why: str, *, local: bool = False) -> None:
        super().__init__(why)
        self.local = local


@dataclass(frozen=True)
class Target:
    """A checked address. host: lower case, ASCII, without brackets; path: with the
    query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def redirect(self, location: str) -> Target:
        """Where a Location header leads. Raises :class:`Refused`."""
        try:
            url = urljoin(self.url, location.strip())
        except ValueError as error:
            raise Refused(f"malformed: {error}") from None
        return parse_url(url)


def parse_url(url: str) -> Target:
    """An address, checked as far as that goes without a network; characters that do not
    belong into a path are percent-encoded.

    Raises :class:`Refused` for a scheme but http and https, a user name, a port but 80
    and 443, no host or a malformed one; and, with ``local``, for other schemes, for
    names without a dot or of local domains, and for an IP address that is not public,
    however spelled.
    """
    url = url.strip(" ")
    if not url:
        raise Refused("the address is empty")
    if re.search(r"[\x00-\x1f\x7f\\]", url):
        raise Refused("a control character or backslash in the address")
    if not is_text(url):
        raise Refused("half a surrogate pair in the address")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"malformed: {error}") from None
    if parts.scheme not in PORTS:
        # Without a scheme it may be a path of this machine just as well.
        raise Refused(
            f"only http and https are fetched, not {parts.scheme or 'an address without either'}",
            local=True,
        )
    if "@" in parts.netloc:
        raise Refused("a user name in the address")
    if port is None:
        port = PORTS[parts.scheme]
    if port not in PORTS.values():
        raise Refused(f"port {port}; only 80 and 443 are asked")
    if "[" in parts.netloc and ":" not in (parts.hostname or ""):
        raise Refused(f"malformed host {parts.netloc}")  # an IP address of a future version
    host = _host(parts.hostname or "")
    path = quote(parts.path or "/", safe=SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=SAFE + "?")
    return Target(parts.scheme, host, port, path)


def _host(name: str) -> str:
    name = name.removesuffix(".")
    if ":" in name:
        try:
            if "%" in name:  # a zone: the name of a network card of this machine
                raise ValueError
            address = str(ipaddress.IPv6Address(name))
        except ValueError:
            raise Refused(f"malformed host {name}") from None
    else:
        try:
            # Full-width digits become digits here, before they are looked at
            name = name.encode("idna").decode().lower()
        except UnicodeError:
            raise Refused(f"malformed host {name}") from None
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
            raise Refused(f"malformed host {name}" if name else "no host in the address")
        try:
            # Also 2130706433, 0x7f.1 and 0177.0.0.1, as the system takes them
            address = socket.inet_ntoa(socket.inet_aton(name))
        except OSError:
            if "." not in name or name.endswith(tuple(f".{domain}" for domain in LOCAL_DOMAINS)):
                raise Refused(f"{name} is a name of a local network", local=True) from None
            return name
    if not is_public(address):
        raise Refused(f"{name} is not a public address", local=True)
    return address


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: no loopback, private,
    shared, link-local, multicast or reserved one.

    Of IPv6 only global unicast without 6to4 and Teredo, and 64:ff9b::/96 (NAT64, RFC
    6052) by the IPv4 address inside it.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _UNICAST or ip.sixtofour or ip.teredo:
            return False
    if any(ip in cloud for cloud in _CLOUDS):
        return False
    return ip.is_global and not ip.is_multicast


def resolve(target: Target) -> list[tuple[str, int]]:
    """IP addresses and port to connect to.

    Raises :class:`Refused` if any of them is not public, OSError if there are none.
    """
    found = dict.fromkeys(
        str(info[4][0])
        for info in socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    )
    for address in found:
        if not is_public(address):
            raise Refused(f"{target.host} is {address}, which is not public")
    return [(address, target.port) for address in found]


@contextlib.contextmanager
def get(
    target: Target,
    *,
    connect_timeout: float,
    read_timeout: float,
    deadline: float = float("inf"),
    opened: Callable[[socket.socket], None] = lambda sock: None,
    _hosts: Mapping[str, tuple[str, int]] | None = None,
) -> Iterator[HTTPResponse]:
    """The response to one GET, its body still unread; redirects are not followed, and
    the connection is closed at the end.

    deadline: the monotonic s after which no address is tried any more. opened: is given
    the socket as soon as the connection stands, so that another thread
    can shut it down. _hosts: for tests, names with the address and port where they are;
    they are not resolved and not checked.

    Raises :class:`Refused`, OSError, HTTPException and urllib3's HTTPError; the
    :func:`timeouts <is_timeout>` among them come after connect_timeout s at each
    address (the first ``MOST_ADDRESSES``), TLS included, and read_timeout s without a
    byte. An answer of more than ``MOST_BYTES`` is an HTTPException.
    """
    known = (_hosts or {}).get(target.host)
    with contextlib.closing(
        _connected(target, [known] if known else resolve(target), connect_timeout, deadline)
    ) as connection:
        assert connection.sock is not None
        opened(connection.sock)
        connection.timeout = read_timeout
        connection.response_class = _Bounded
        headers = {"Host": target.authority, **HEADERS}
        connection.request(
            "GET", target.path, headers=headers, preload_content=False, decode_content=False
        )
        with contextlib.closing(connection.getresponse()) as response:
            yield response


def is_timeout(error: BaseException) -> bool:
    """Whether what :func:`get` raised is one.

    A refused connection is not, though urllib3 derives it from one.
    """
    return isinstance(error, TimeoutError | exceptions.TimeoutError) and not isinstance(
        error, exceptions.NewConnectionError
    )


def _connected(
    target: Target, addresses: list[tuple[str, int]], longest: float, deadline: float
) -> HTTPConnection:
    """A connection to the first address that answers: to the number itself, so that no
    name is resolved again.
    """
    failure: Exception = TimeoutError("no time left to connect")
    for address, port in addresses[:MOST_ADDRESSES]:
        if (timeout := min(longest, deadline - time.monotonic())) <= 0:
            break
        # The name is in the handshake, and the certificate must be its own
        if target.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(
                address, port, timeout=timeout, server_hostname=target.host, ssl_context=_tls()
            )
        else:
            connection = HTTPConnection(address, port, timeout=timeout)
        try:
            connection.connect()
            return connection
        except (OSError, exceptions.HTTPError) as error:
            connection.close()
            failure = error
    raise failure


class _Bounded(Answer):
    """An answer that ends: the lines between its chunks may have no end, and a chunk of
    -1 bytes would be all that still comes.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.fp = io.BufferedReader(_Counted(self.fp.detach()))

    def _safe_read(self, amt: int) -> bytes:
        if amt < 0:
            raise HTTPException(f"a chunk of {amt} bytes")
        return super()._safe_read(amt)  # type: ignore[misc]


class _Counted(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw, self.left = raw, MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self.raw.readinto(buffer)
        self.left -= count or 0
        if self.left < 0:
            raise HTTPException(f"more than {MOST_BYTES:,} bytes")
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
