"""The size of each example's image in the scores: of which image it is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from membench.runs import images
from membench.runs.folder import RunFolder
from membench.runs.shards import Phases, Work, in_step
from membench.storage.images import png_bits, png_bytes, pngs
from membench.types import Condition, Cost, Example, Request, Sample

NOISE = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
FLAT = np.full((16, 16, 3), 7, np.uint8)


class Model:
    cost = Cost()


class Detector:
    """Draws the image that it is given for a condition and draw; one without an
    image fails.
    """

    alone = True  # so that no network is looked at
    failure = "NaN"

    def __init__(self, pictures: dict[tuple[str, int], np.ndarray | None]) -> None:
        self.pictures = pictures

    def extract(self, model, requests) -> list[Sample]:
        drawn = [self.pictures[r.condition.id, r.draw] for r in requests]
        return [
            Sample(
                r.condition, r.draw, FLAT if p is None else p, float("nan") if p is None else 0.0
            )
            for r, p in zip(requests, drawn, strict=True)
        ]

    def score(self, model, conditions, extracted) -> list[float]:
        return [float(len(c.id)) for c in conditions]


def example(name: str, image: np.ndarray | None = None) -> Example:
    return Example(
        Condition(name, None if image is not None else "a mug", image), 1, "MV", name, "s"
    )


def opened(root: Path) -> RunFolder:
    return RunFolder.open(root, "t", "mini", "d", "0" * 16, {})


def scored(
    root: Path, examples: list[Example], pictures: dict[tuple[str, int], np.ndarray | None]
) -> pd.Series:
    """The column, by example id, of a run."""
    with opened(root) as folder:
        run = Phases(Detector(pictures), Model(), folder)
        requests = [Request(Condition(name, None), draw) for name, draw in pictures]
        samples = done(run.extract(requests)).samples()
        return done(run.score(examples, samples)).scores().set_index("id").png_bits


def done(work: Work) -> Work:
    in_step([work], work.phases.model, progress=False)
    return work


def test_png_bits_is_the_size_of_the_png():
    assert png_bits(NOISE[0]) == 8 * len(png_bytes(NOISE[0])) > png_bits(FLAT) > 0
    assert pngs([*NOISE, FLAT]) == [png_bytes(image) for image in (*NOISE, FLAT)]
    assert pngs([]) == []
    with pytest.raises(ValueError, match="expected uint8"):
        png_bits(FLAT[..., 0])


def test_the_mean_of_an_examples_own_images_that_did_not_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "png_image", lambda data: pytest.fail("an image was decoded"))
    pictures = {
        ("a", 0): NOISE[0],
        ("a", 1): FLAT,
        ("a", 2): None,
        ("b", 0): NOISE[1],
        ("c", 0): None,
    }
    found = scored(tmp_path, [example(name) for name in "abcd"], pictures)
    assert found["a"] == (png_bits(NOISE[0]) + png_bits(FLAT)) / 2 and found["b"] == png_bits(
        NOISE[1]
    )
    assert np.isnan(found["c"]) and np.isnan(found["d"])  # all failed, and none drawn


def test_unconditional_images_belong_to_no_example(tmp_path):
    pictures = {("unconditional", draw): NOISE[draw] for draw in range(3)} | {
        ("cluster-0001", 0): FLAT
    }
    assert scored(tmp_path, [example("a"), example("b")], pictures).isna().all()


def test_an_example_that_is_an_image_has_its_own_size(tmp_path):
    found = scored(
        tmp_path,
        [example("a", FLAT), example("b", NOISE[0]), example("c")],
        {("a", 0): NOISE[1], ("c", 0): NOISE[2]},
    )
    assert found.to_dict() == {
        "a": png_bits(FLAT),
        "b": png_bits(NOISE[0]),
        "c": png_bits(NOISE[2]),
    }


def test_no_example_and_no_image(tmp_path):
    assert (
        len(scored(tmp_path / "none", [], {})) == 0
        and scored(tmp_path / "bare", [example("a")], {}).isna().all()
    )
