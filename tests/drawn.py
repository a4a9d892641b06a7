"""What a plot's SVG in a page shows, read back from the text."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from membench.reports.drawing import inline
from membench.reports.plots import Plot

NUMBER = r"-?[\d.]+(?:e-?\d+)?"


def draw_once(patch: pytest.MonkeyPatch) -> None:
    """A page shows equal plots as the same text, which is drawn once: for tests of what
    stands around them.
    """
    made: dict[bytes, Markup] = {}

    def kept(plot: Plot) -> Markup:
        key = pickle.dumps(plot)
        if key not in made:
            made[key] = inline(plot)
        return made[key]

    patch.setattr("membench.reports.page.inline", kept)


class Drawn:
    """Positions are shares of the plot's frame: (0, 0) at its lower left, (1, 1) at its
    upper right.
    """

    def __init__(self, plot: Plot) -> None:
        self.text = str(inline(plot))
        self.root = ElementTree.fromstring(self.text)
        _, _, self.width, self.height = map(float, self.root.attrib["viewBox"].split())
        # The frame and the grid
        edges = np.concatenate([corners(node) for node in self.nodes("stroke", "line")])
        (self.left, self.top), (self.right, self.bottom) = edges.min(axis=0), edges.max(axis=0)

    def nodes(self, kind: str, name: str) -> Iterator[ElementTree.Element]:
        """The paths whose stroke or fill (kind) is the page's colour of that name."""
        for node in self.root.iter("path"):
            if f"{kind}:var(--{name})" in node.attrib["style"].split(";"):
                yield node

    def shares(self, node: ElementTree.Element) -> np.ndarray:
        at = corners(node)
        return np.stack(
            [
                (at[:, 0] - self.left) / (self.right - self.left),
                (self.bottom - at[:, 1]) / (self.bottom - self.top),
            ],
            1,
        )

    def inner(self, kind: str, name: str) -> list[np.ndarray]:
        """Of each path of that colour that lies in the frame (not in the key), its
        corners.
        """
        found = (self.shares(node) for node in self.nodes(kind, name))
        return [at for at in found if at[:, 1].min() > -0.02]

    @property
    def words(self) -> list[str]:
        return [node.text or "" for node in self.root.iter("text")]

    def boxes(self) -> Iterator[tuple[str, float, float, float, float]]:
        """Of each text that is not turned: it, and its least and greatest x and y in
        pixels, by a mean width of a character.
        """
        for node in self.root.iter("text"):
            turn = re.search(r"rotate\((-?[\d.]+)", node.get("transform", ""))
            style = dict(part.split(":", 1) for part in node.attrib["style"].split(";"))
            size, text = float(style["font-size"].removesuffix("px")), node.text or ""
            wide = 0.56 * size * len(text)
            shift = re.search(rf"translate\(({NUMBER}) ({NUMBER})\)", node.get("transform", ""))
            x, y = map(float, shift.groups() if shift else (node.attrib["x"], node.attrib["y"]))
            left = (
                x - wide * {"start": 0, "middle": 0.5, "end": 1}[style.get("text-anchor", "start")]
            )
            if turn:
                yield text, x - 0.8 * size, y - wide / 2, x + 0.2 * size, y + wide / 2
            else:
                yield text, left, y - 0.8 * size, left + wide, y + 0.2 * size


def corners(node: ElementTree.Element) -> np.ndarray:
    """The points of a path: float64 [n, 2]. A marker is the one point it stands on."""
    at = np.array(
        [(float(x), float(y)) for x, y in re.findall(rf"({NUMBER}) ({NUMBER})", node.attrib["d"])]
    )
    shift = re.fullmatch(
        rf"translate\(({NUMBER}) ({NUMBER})\)", node.get("transform", "translate(0 0)")
    )
    assert shift
    to = np.array([[float(shift[1]), float(shift[2])]])
    return to if "transform" in node.attrib and np.ptp(at, axis=0).max() < 10 else at + to
