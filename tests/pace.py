"""How quick this processor is, for tests that ask whether something is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


def loop() -> float:
    """Seconds of this process for a million turns of a loop in Python."""
    start = time.process_time()
    total = 0
    for i in range(1_000_000):
        total += i
    return time.process_time() - start


@contextmanager
def within(loops: float) -> Iterator[None]:
    """Fails if the block takes more of this process's time than so many such loops, the
    slower one of before and after it: another processor, or a busy one, has others.
    """
    before = loop()
    start = time.process_time()
    yield
    took = time.process_time() - start
    assert took < loops * max(before, loop()), f"{took:.1f} s, {took / before:.0f} loops"
