"""What makes a copy where pixels do not decide: cosine of a copy detector's features, kept in the cache."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from membench.errors import UserError
from membench.features import load_features
from membench.imageset import cache_root
from membench.options import parse_options
from membench.registry import tasks
from membench.runner import run
from membench.similarity.cosine import cosine
from membench.tables import png_image, read_table


def vectors(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32) * 3


@pytest.mark.parametrize("block", [1, 7, None])
@pytest.mark.parametrize("floor", [None, -1.0, 0.0, 0.6, 1.0])
def test_cosine_equals_the_whole_matrix(floor, block) -> None:
    a, b = vectors(20), vectors(45, seed=1)
    b[[3, 40]] = a[7] * 2, a[7]  # of one direction: a tie, which the lower position wins
    whole = cosine_similarity(a.astype(np.float64), b.astype(np.float64))
    got = cosine(a, b, floor=floor, block=block)
    np.testing.assert_allclose(got.similarity, whole[got.generated, got.training], atol=2e-6)
    nearest = got[got["rank"] == 0]
    np.testing.assert_allclose(nearest.similarity, whole.max(axis=1), atol=2e-6)
    assert nearest.training.iloc[7] == 3 and nearest.generated.tolist() == list(range(20))
    if floor is None:
        assert len(got) == 20
    else:
        pairs = {(g, t) for g, t in zip(got.generated, got.training, strict=True)}
        clearly = {(g, t) for g, t in np.argwhere(whole >= floor + 1e-5)} | {(g, int(whole[g].argmax())) for g in range(20) if g != 7}
        at_most = {(g, t) for g, t in np.argwhere(whole >= floor - 1e-5)} | {(g, int(whole[g].argmax())) for g in range(20)}
        assert clearly <= pairs <= at_most | {(7, 3)} and len(pairs) == len(got)


def test_cosine_refuses_what_has_none() -> None:
    a = vectors(3)
    for generated, training, floor, why in [(a, a[:0], 0.0, "empty"), (a * 0, a, 0.0, "length 0"), (a, a, 1.5, "floor")]:
        with pytest.raises(ValueError, match=why):
            cosine(generated, training, floor=floor)


class Coarse(torch.nn.Module):
    """In SSCD's place: a picture's fine detail on a grid of 64 x 64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.adaptive_avg_pool2d(x, 64)
        return (cells - torch.nn.functional.avg_pool2d(cells, 3, stride=1, padding=1)).flatten(1)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "coarse.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what the authors of SSCD publish
        torch.jit.script(Coarse()).save(str(file))
    return str(file)


def test_a_pool_and_a_run_under_sscd(tmp_path, weights) -> None:
    """Labels, similarities and the matches of a run are those of the features, which are made once."""
    options = ["criterion=sscd", f"criterion_weights={weights}", "pool=12"]
    found = run("png_size", "celeba", task_options=options, out=tmp_path / "runs", progress=False)
    features = load_features("sscd", weights)
    task = tasks().load("celeba")
    known = features(task().load("mini").training_images())
    drawn = features(np.stack([png_image(png) for png in found.samples.image]))
    whole = cosine_similarity(drawn, known)
    nearest = found.matches[found.matches["rank"] == 0].sort_values("sample_id")
    order = found.samples.reset_index(drop=True).sort_values("sample_id").index
    np.testing.assert_allclose(nearest.similarity, whole.max(axis=1)[order], atol=1e-5)
    assert abs(len(found.matches) - np.sum((whole >= 0.35) | (whole == whole.max(axis=1, keepdims=True)))) <= 2  # rounding at the floor

    assert found.info["space"]["id"] == f"cosine/{features.id}" and found.info["space"]["higher_is_closer"]
    (pool,) = (cache_root() / "pools").glob("*.parquet")
    images = read_table(pool, "pool").image.map(png_image)
    best = cosine_similarity(features(np.stack(images)), known).max(axis=1)
    np.testing.assert_allclose(np.sort(found.scores.similarity), np.sort(best), atol=1e-5)
    assert (found.scores.label == (found.scores.similarity >= 0.5)).all() and set(found.scores.label) == {0, 1}
    copies = found.metrics[(found.metrics.metric == "ams_cumulative") & (found.metrics.threshold == 0.5)].iloc[0]
    assert copies["value"] == pytest.approx((whole.max(axis=1) >= 0.5).mean())

    files = {file: file.stat().st_mtime_ns for file in cache_root().glob("features-*.npy")}
    assert len(files) == 1
    np.testing.assert_array_equal(np.load(next(iter(files))), known)
    again = task(parse_options(task.Options, [*options[:2], "pool=5"], owner="celeba")).load("mini")
    assert len(again.examples) == 5
    assert {file: file.stat().st_mtime_ns for file in cache_root().glob("features-*.npy")} == files


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["criterion=sscd"], "criterion=sscd needs its weights.*celeba.criterion_weights"),
        (["criterion_weights=x.pt"], "read with criterion=sscd only"),
        (["criterion=sscd", "criterion_weights=x.pt"], "x.pt.*no weights file|no weights file.*x.pt"),
        (["criterion=scsd"], "sscd"),
    ],
)
def test_a_criterion_that_cannot_be(tmp_path, options, why) -> None:
    with pytest.raises(UserError, match=why):
        run("png_size", "celeba", task_options=options, out=tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()
