"""Which paper a detector is of, from its own docstring."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from membench import registry

_ARXIV = re.compile(r"arXiv:?\s*(\d{4}\.\d{4,5})")
_KNOWN = re.compile(r"^(?P<name>.*?)\s*\((?P<paper>[^()]*\d{4}[^()]*)\)(?P<rest>.*)$")


@dataclass(frozen=True)
class About:
    """name: what it measures. paper: authors, venue and year; empty where the docstring
    names none. arxiv: an id such as ``2407.21720``; empty: not named.
    """

    detector: str
    name: str
    paper: str
    arxiv: str


def about_detectors(names: Iterable[str]) -> list[About]:
    """What is known here of the detectors, in order; nothing of a name that is not
    registered, as of somebody's plug-in.
    """
    known = registry.detectors()
    there = [name for name in dict.fromkeys(names) if name in known.names()]
    return [about(name, known.get(name).docstring) for name in there]


def about(detector: str, docstring: str) -> About:
    """What a detector's docstring says of it: its first paragraph, and an arXiv id
    anywhere.
    """
    summary = " ".join(docstring.partition("\n\n")[0].split())
    match = _KNOWN.match(summary)
    paper = match["paper"] if match else ""
    full = (match["name"] + match["rest"] if match else summary).strip(" .")
    arxiv = _ARXIV.search(docstring)
    paper = re.sub(r",?\s*arXiv:?\s*[\d.v]+", "", paper)
    return About(detector, full, paper, arxiv[1] if arxiv else "")
