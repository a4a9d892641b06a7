"""``import membench`` shows every public name, and each is what it says, however often it
is asked for: a module of the same name would take its place.
"""

from __future__ import annotations

import importlib

import pytest

import membench


@pytest.mark.parametrize("name", membench.__all__)
def test_a_public_name_stays_what_it_is(name: str) -> None:
    first = getattr(membench, name)
    importlib.import_module("membench.api")
    assert getattr(membench, name) is first and callable(first)
    assert name in dir(membench)
