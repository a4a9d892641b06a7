"""What pages are made of: sections, tables, templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from membench.plain import plain
from membench.reports.drawing import inline
from membench.reports.gallery import Gallery
from membench.reports.plots import INKS, Plot


@dataclass(frozen=True)
class Table:
    """Rows of text. An empty header: names and values, each row as wide as the page."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page. below: tables under the plots. absent: why something is
    missing from it.
    """

    title: str
    intro: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    below: Sequence[Table] = ()
    galleries: Sequence[Gallery] = ()
    absent: str = ""


def rendered(template: str, **values: Any) -> str:
    """A page from a template; what it shows is escaped, and control and direction
    characters are written out (``plain.plain``).
    """
    environment = Environment(
        loader=PackageLoader("membench.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        # Not what a macro has rendered, which is Markup
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    return environment.get_template(template).render(**values, inks=INKS, drawn=inline)
