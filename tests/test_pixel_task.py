"""Whole runs on a task whose examples are images, with a model that has no condition."""

from __future__ import annotations

import pytest
from pixel_task import POOL, pool

from membench.api import run
from membench.errors import UserError
from membench.registry import tasks
from membench.runs.finished import Run
from membench.storage.images import png_bits

CHEAP = {
    "normal_bundle": ["images=0"],
    "flipd": ["probes=2"],
    "png_size": [],
    "score_norm": ["ode_steps=3"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    tasks().add("pixels", "pixel_task:PixelTask", "tests")
    out = tmp_path_factory.mktemp("runs")
    limits = {"normal_bundle": 3}
    return {
        name: run(name, "pixels", options=options, out=out, progress=False, limit=limits.get(name))
        for name, options in CHEAP.items()
    }


def test_images_are_scored_and_cost_no_drawn_image(runs) -> None:
    jvps = {"flipd": 2}
    forwards = {"normal_bundle": 4 * 192, "score_norm": 3 + 1}
    for name, found in runs.items():
        n = len(found.scores)
        assert (found.scores.status == "ok").all() and n == (3 if name == "normal_bundle" else POOL)
        spent = found.info["phases"]["scores"]
        assert (spent["jvps"], spent["forwards"]) == (
            n * jvps.get(name, 0),
            n * forwards.get(name, 0),
        )
        assert not found.info["access"]["images"]
    assert (
        len(runs["flipd"].samples) == POOL
        and runs["flipd"].info["phases"]["samples"]["forwards"] == POOL * 3
    )


def test_sizes_are_those_of_the_examples_own_images(runs) -> None:
    own = {f"image-{i:03d}": float(png_bits(image)) for i, image in enumerate(pool())}
    for found in runs.values():
        assert found.scores.set_index("id").png_bits.to_dict() == {
            name: own[name] for name in found.scores.id
        }


def test_what_size_alone_reaches_is_not_left_once_it_is_matched(runs) -> None:
    """Plain images are called memorized here: size tells them perfectly, and few bins
    of size hold both kinds.
    """
    metrics = runs["png_size"].metrics.set_index(["metric", "subset"]).value
    assert metrics["auroc", "all"] == 1.0 and metrics["spearman_png_bits", "all"] == pytest.approx(
        -1.0
    )
    matched = (
        runs["png_size"]
        .metrics.set_index(["metric", "subset"])
        .loc[("auroc_complexity_matched", "all")]
    )
    # Pairs of one size are left out: few are not, and in them size is still all that
    # there is
    assert matched.n < POOL * 2 / 3


@pytest.mark.parametrize(
    ("detector", "options"),
    [
        ("flipd", ["condition=ratio"]),
        ("score_norm", ["condition=guided"]),
        ("cfg_norm", []),
        ("dcs", []),
        ("edge", []),
    ],
)
def test_conditional_variants_say_that_there_is_no_condition(
    runs, tmp_path, detector: str, options: list[str]
) -> None:
    with pytest.raises(
        UserError, match=f"detector {detector}: this model has no condition"
    ) as error:
        run(detector, "pixels", options=options, out=tmp_path, progress=False)
    assert "\n" not in str(error.value)


def test_an_image_whose_noise_is_not_known_has_no_trajectory(runs, tmp_path) -> None:
    with pytest.raises(
        UserError,
        match="detector score_norm: the noise that these images were sampled from is not known",
    ):
        run(
            "score_norm",
            "pixels",
            options=["at=trajectory", "draws=1", "images=0"],
            out=tmp_path,
            progress=False,
        )
