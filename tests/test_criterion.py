"""What makes a copy where pixels do not decide: cosine of a copy detector's features,
kept in the cache.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from in_process import programs_run_here
from sklearn.metrics.pairwise import cosine_similarity

from membench.api import run
from membench.errors import UserError
from membench.features.loading import load_features
from membench.options import parse_options
from membench.registry import tasks
from membench.similarity.cosine import cosine
from membench.similarity.criterion import by_features, by_pixels
from membench.storage.cache import cache_root
from membench.storage.images import png_image
from membench.storage.tables import read_table


def vectors(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32) * 3


@pytest.mark.parametrize("floor", [None, 0.9999999])
def test_cosine_is_decided_in_float64(floor) -> None:
    """Float32 puts other vectors first among near ties, and on the other side of a floor."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 512)).astype(np.float32)
    b = np.concatenate([a * (1 + 3e-4 * rng.normal(size=a.shape)) for _ in range(60)])
    b = b.astype(np.float32)
    whole = cosine_similarity(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    got = cosine(a, b, floor=floor)
    nearest = got[got["rank"] == 0].training.to_numpy()
    np.testing.assert_array_equal(nearest, whole.argmax(axis=1))
    if floor is not None:
        assert len(got) == (whole >= np.float32(floor)).sum()


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
        clearly = {(g, t) for g, t in np.argwhere(whole >= floor + 1e-5)} | {
            (g, int(whole[g].argmax())) for g in range(20) if g != 7
        }
        at_most = {(g, t) for g, t in np.argwhere(whole >= floor - 1e-5)} | {
            (g, int(whole[g].argmax())) for g in range(20)
        }
        assert clearly <= pairs <= at_most | {(7, 3)} and len(pairs) == len(got)


def test_a_pair_at_the_floor_is_within_it_whatever_float32_makes_of_it() -> None:
    """Of 60 pairs about half lie below it as a product in float32."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 64)).astype(np.float32) for n in (1, 60))
    whole = cosine_similarity(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)[0]
    for place, floor in enumerate(whole):
        found = cosine(a, b, floor=float(floor))
        assert place in set(found.training) and len(found) == (whole >= floor).sum()


def test_cosine_refuses_what_has_none() -> None:
    a = vectors(3)
    for generated, training, floor, why in [
        (a, a[:0], 0.0, "empty"),
        (a * 0, a, 0.0, "length 0"),
        (a, a, 1.5, "floor"),
    ]:
        with pytest.raises(ValueError, match=why):
            cosine(generated, training, floor=floor)


OWNERS = [[3], [], [0, 7, 2], [11, 11], list(range(12)), []]


def random_pictures(n: int, seed: int, side: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize("n_neighbours", [4, 50])
def test_own_by_pixels(n_neighbours) -> None:
    """The distance to given images, scaled by the nearest of all: against loops, and
    against the matches.
    """
    images, known = random_pictures(6, 0), random_pictures(12, 1)
    images[2] = known[7]  # a copy of one of its own
    match = by_pixels(lambda: known)
    got = match.own(images, OWNERS, n_neighbours=n_neighbours)
    assert got.dtype == np.float64 and got[2] == 0 and np.isnan(got[[1, 5]]).all()
    for i in (0, 2, 3, 4):
        distances = [np.sqrt(((images[i] / 255 - x / 255) ** 2).sum()) for x in known]
        scale = 0.5 * np.mean(sorted(distances)[:n_neighbours])
        assert got[i] == pytest.approx(min(distances[j] for j in OWNERS[i]) / scale, abs=1e-6)
    if n_neighbours == 50:  # the default
        np.testing.assert_array_equal(match.own(images, OWNERS), got)
        found = match(images, 1000.0).set_index(["generated", "training"]).similarity
        np.testing.assert_array_equal(got[0].astype(np.float32), found[0, 3])
        np.testing.assert_array_equal(got[4].astype(np.float32), match(images, None).similarity[4])


def test_own_by_pixels_among_equal_pictures() -> None:
    """Where the neighbours all equal the image, it is a copy of these and of nothing
    else.
    """
    known = np.concatenate([np.zeros((3, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 255, np.uint8)])
    got = by_pixels(lambda: known).own(known[[0, 0]], [[1], [3]], n_neighbours=3)
    np.testing.assert_array_equal(got, [0, np.inf])


class Counted:
    """Features that count what they are asked for."""

    id = "counted"

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        x = images.reshape(len(images), -1).astype(np.float32)
        return np.stack(
            [x[:, ::3].mean(axis=1) - 100, x[:, 1::5].std(axis=1) - 70, x[:, 7] - 128], axis=1
        )


def test_own_by_features(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path))
    images, known, features = random_pictures(6, 0), random_pictures(12, 1), Counted()
    images[3] = known[11]
    match = by_features(features, lambda: known, "known", progress=False)
    got = match.own(images, OWNERS)
    whole = cosine_similarity(
        features(images).astype(np.float64), features(known).astype(np.float64)
    )
    expected = [
        max((whole[i, j] for j in positions), default=np.nan) for i, positions in enumerate(OWNERS)
    ]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.dtype == np.float64 and got[3] == 1 and np.isnan(got[[1, 5]]).all()
    nearest = match(images, None)
    np.testing.assert_allclose(got[4], nearest.similarity[4], atol=1e-7)

    # One for the dimension, the training set, the images; and those of this test
    assert features.images == 1 + 12 + 6 + 18
    match(images, 0.5), match.own(images, OWNERS)
    assert features.images == 37
    # Another array
    np.testing.assert_allclose(match.own(images.copy()[::-1], OWNERS[::-1]), got[::-1], atol=1e-7)
    assert features.images == 37 + 6
    # An array that is gone: another may lie where it lay
    fresh = match(random_pictures(6, 2), None)
    assert not np.allclose(match(random_pictures(6, 3), None).similarity, fresh.similarity)
    before = features.images
    assert np.isnan(match.own(random_pictures(2, 4), [[], []])).all() and features.images == before


def test_own_refuses_what_is_not_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path))
    images, known = random_pictures(2, 0), random_pictures(12, 1)
    for match in (
        by_pixels(lambda: known),
        by_features(Counted(), lambda: known, "known", progress=False),
    ):
        for owners, why in (
            ([[0]], "1 lists of training images for 2"),
            ([[0], [12]], "outside"),
            ([[-1], [0]], "outside"),
        ):
            with pytest.raises(ValueError, match=why):
                match.own(images, owners)
    with pytest.raises(ValueError, match="uint8"):
        by_pixels(lambda: known).own(images / 255, [[0], [1]])


class Coarse(torch.nn.Module):
    """In SSCD's place: an image's fine detail on a grid of 64 x 64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.adaptive_avg_pool2d(x, 64)
        return (cells - torch.nn.functional.avg_pool2d(cells, 3, stride=1, padding=1)).flatten(1)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "coarse.torchscript.pt"
    with warnings.catch_warnings():
        # TorchScript is deprecated, and what the authors of SSCD publish
        warnings.simplefilter("ignore")
        torch.jit.script(Coarse()).save(str(file))
    return str(file)


def test_a_pool_and_a_run_under_sscd(tmp_path, monkeypatch, weights, capfd) -> None:
    """Labels, similarities and the matches of a run are those of the features, which
    are made once; without a bar, where none is wanted.
    """
    options = ["examples=generated", "criterion=sscd", f"criterion_weights={weights}", "pool=12"]
    found = run("png_size", "cifar10", task_options=options, out=tmp_path / "runs", progress=False)
    assert "%|" not in capfd.readouterr().err
    programs_run_here(monkeypatch)  # the run had a process for it
    features = load_features("sscd", weights)
    task = tasks().load("cifar10")
    known = features(task().load("mini").training.images())
    drawn = features(
        np.stack([png_image(png) for png in found.images(found.samples.sample_id).values()])
    )
    whole = cosine_similarity(drawn, known)
    nearest = found.matches[found.matches["rank"] == 0].sort_values("sample_id")
    order = found.samples.reset_index(drop=True).sort_values("sample_id").index
    np.testing.assert_allclose(nearest.similarity, whole.max(axis=1)[order], atol=1e-5)
    # Rounding at the floor
    assert (
        abs(
            len(found.matches)
            - np.sum((whole >= 0.35) | (whole == whole.max(axis=1, keepdims=True)))
        )
        <= 2
    )

    assert (
        found.info["space"]["id"] == f"cosine/{features.id}"
        and found.info["space"]["higher_is_closer"]
    )
    (pool,) = (cache_root() / "pools").glob("*.parquet")
    images = read_table(pool, "pool").image.map(png_image)
    best = cosine_similarity(features(np.stack(images)), known).max(axis=1)
    np.testing.assert_allclose(np.sort(found.scores.similarity), np.sort(best), atol=1e-5)
    assert (found.scores.label == (found.scores.similarity >= 0.5)).all() and set(
        found.scores.label
    ) == {0, 1}
    copies = found.metrics[
        (found.metrics.metric == "ams_cumulative") & (found.metrics.threshold == 0.5)
    ].iloc[0]
    assert copies["value"] == pytest.approx((whole.max(axis=1) >= 0.5).mean())

    files = {file: file.stat().st_mtime_ns for file in cache_root().glob("features-*.npy")}
    assert len(files) == 1
    np.testing.assert_array_equal(np.load(next(iter(files))), known)
    fewer = parse_options(task.Options, [*options[:-1], "pool=5"], owner="cifar10")
    again = task(fewer).load("mini")
    assert len(again.examples) == 5
    assert {file: file.stat().st_mtime_ns for file in cache_root().glob("features-*.npy")} == files


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["criterion=sscd"], "criterion=sscd needs its weights.*cifar10.criterion_weights"),
        (["criterion_weights=x.pt"], "read with criterion=sscd only"),
        (
            ["criterion=sscd", "criterion_weights=x.pt"],
            "x.pt.*no weights file|no weights file.*x.pt",
        ),
        (["criterion=scsd"], "sscd"),
    ],
)
def test_a_criterion_that_cannot_be(tmp_path, options, why) -> None:
    with pytest.raises(UserError, match=why):
        run("png_size", "cifar10", task_options=options, out=tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()
