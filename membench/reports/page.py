"""What pages are made of: sections, tables, templates."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from membench.plain import plain
from membench.reports.drawing import inline
from membench.reports.gallery import Gallery
from membench.reports.plots import INKS, Plot


@dataclass(frozen=True)
class Table:
    """Rows of text. An empty header: names and values, each row as wide as the page.

    links: of the rows, where their first cell leads; empty: nowhere.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page. below: tables under the plots. absent: why something is
    missing from it. folded: whether all of it is opened by a click.
    """

    title: str
    intro: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    below: Sequence[Table] = ()
    galleries: Sequence[Gallery] = ()
    absent: str = ""
    folded: bool = False


def rendered(template: str, **values: Any) -> str:
    """A page from a template; what it shows is escaped, and control and direction
    characters are written out (``plain.plain``).

    Of scripts a browser runs ``templates/table.js`` alone, which the page names by its
    hash: what a run of unknown origin might smuggle in would not run.
    """
    script = resources.files("membench.reports").joinpath("templates", "table.js")
    text = script.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    shared = {"inks": INKS, "drawn": inline, "script": Markup(text), "script_hash": digest}
    return _templates().get_template(template).render(**values, **shared)


@cache
def _templates() -> Environment:
    """They are compiled once a process."""
    return Environment(
        loader=PackageLoader("membench.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        # Not what a macro has rendered, which is Markup
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
