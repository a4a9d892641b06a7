"""The pool of generated images: what it holds, where it is kept, and how each detector
scores an image in it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from small_files import small_files

from membench.datasets import pool as pool_module
from membench.datasets.pool import PoolSpec, generate, read_pool, write_pool
from membench.detectors.base import own_draws, requests
from membench.detectors.cfg_norm import CfgNorm, CfgNormOptions
from membench.detectors.flipd import Flipd, FlipdOptions
from membench.detectors.random_sampling import UNCONDITIONAL, RandomSampling, RandomSamplingOptions
from membench.detectors.score_norm import ScoreNorm, ScoreNormOptions
from membench.detectors.side import Side
from membench.detectors.side_options import SideOptions
from membench.detectors.webster import Dcs, DcsOptions, Edge, EdgeOptions
from membench.detectors.within import made
from membench.errors import UserError
from membench.metrics.regions import in_region
from membench.models.image_values import to_uint8
from membench.models.pixel import PixelDenoiser
from membench.seeds import generator
from membench.similarity.l2 import tiled_l2
from membench.similarity.search import matches_frame
from membench.storage.images import png_image
from membench.storage.tables import read_table
from membench.types import Band, Condition, Cost, Request, Sample, Space, Training

CLASSES, SIDE, STEPS = 3, 8, 4
SPACE = Space(
    "normalised-l2/test", False, (Band("near", 0.0, 1.0), Band("far", 1.0, 1.1)), 1.0, 1.5, "test"
)
SAMPLING = {"steps": STEPS, "guidance": 1.0}
IMAGES = {**SAMPLING, "examples": "images"}  # as a task says it whose examples are a pool


def conditional(classes: int = CLASSES) -> PixelDenoiser:
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        num_class_embeds=classes + 1 if classes else None,
    )
    return PixelDenoiser(
        network,
        DDIMScheduler(prediction_type="v_prediction"),
        shape=(3, SIDE, SIDE),
        classes=classes,
    )


def training(n: int = 60) -> Training:
    """Noise, and three images that the first images of the pool will be copies of."""
    images = np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    images[:3] = generate(conditional(), spec().conditions()[:3], SAMPLING)
    ids = [f"t{i}" for i in range(n)]
    return Training(
        lambda: images,
        ids,
        [64, 16, 4] + [1] * (n - 3),
        ["x64", "x16", "x4"] + ["x1"] * (n - 3),
        [f"g{i}" for i in range(n)],
        "h",
    )


def spec(**changes: object) -> PoolSpec:
    return replace(PoolSpec(12, 0, CLASSES, SAMPLING, SPACE, "weights", "data"), **changes)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_pool_holds_what_the_model_draws_from_each_noise_and_class(cache: Path) -> None:
    model = conditional()
    examples = read_pool(spec(), lambda: model, training(), progress=False)
    [kept] = cache.glob("pools/*.parquet")
    assert json.loads(read_table(kept, "pool").start[3]) == ["pool", "0", "3"]
    assert [e.condition.class_label for e in examples] == [i % CLASSES for i in range(12)]
    for i in (0, 5, 11):
        # By hand: DDIM from the words' own noise, told the class.
        x = torch.randn(1, 3, SIDE, SIDE, generator=generator("pool", "0", str(i)))
        model.scheduler.set_timesteps(STEPS)
        for t in model.scheduler.timesteps:
            with torch.no_grad():
                x = model.scheduler.step(
                    model.network(x, t, torch.tensor([i % CLASSES])).sample, t, x
                ).prev_sample
        assert (
            np.abs(to_uint8(x)[0].astype(int) - examples[i].condition.image.astype(int)).max() <= 1
        )
        assert examples[i].condition.start == ("pool", "0", str(i))
    assert len({e.id for e in examples}) == 12


def test_labels_are_the_copies_of_the_nearest_training_image(cache: Path) -> None:
    data = training()
    examples = read_pool(spec(), conditional, data, progress=False)
    pictures = data.images().reshape(len(data.ids), -1) / 255
    for e in examples:
        distance = np.linalg.norm(pictures - e.condition.image.reshape(-1) / 255, axis=1)
        d = distance / (0.5 * np.sort(distance)[:50].mean())
        nearest = int(d.argmin())
        assert e.similarity == pytest.approx(d[nearest], rel=1e-5) and e.nearest == f"t{nearest}"
        assert e.memorized == int(d[nearest] < 1)
        assert e.kind == (data.kinds[nearest] if e.memorized else "novel")
        assert e.source == ("pool" if e.memorized else "near miss" if d[nearest] < 1.1 else "far")
        assert e.group == (f"g{nearest}" if e.memorized else f"not g{nearest}")
    assert [e.kind for e in examples[:3]] == ["x64", "x16", "x4"]
    assert {e.memorized for e in examples} == {0, 1}


def test_a_pool_is_drawn_once_and_its_threshold_is_applied_when_it_is_read(cache: Path) -> None:
    first = read_pool(spec(), conditional, training(), progress=False)

    def never() -> PixelDenoiser:
        raise AssertionError("drawn again")

    assert [e.id for e in read_pool(spec(), never, training(), progress=False)] == [
        e.id for e in first
    ]
    looser = replace(SPACE, copy=1e6)
    again = read_pool(spec(space=looser), never, training(), progress=False)
    assert all(e.memorized == 1 for e in again) and [e.similarity for e in again] == [
        e.similarity for e in first
    ]
    others = [spec(n=13), spec(seed=1), spec(classes=0), spec(weights="w"), spec(data="d")]
    others += [spec(sampling={"steps": 5, "guidance": 1.0}), spec(space=replace(SPACE, id="other"))]
    assert len({s.key() for s in [spec(), *others]}) == len(others) + 1


def test_an_image_at_the_threshold_as_it_is_stored_is_a_copy(cache: Path) -> None:
    """0.95 in single precision is less than 0.95, and counts as it: as extraction counts."""
    space = Space("cosine/test", True, (Band("high", 0.95, 1.0),), 0.95, 0.8, "test")

    def match(images: np.ndarray, floor: float | None) -> pd.DataFrame:
        n = len(images)
        same = np.full(n, 0.95)
        return matches_frame(np.arange(n), np.zeros(n, int), same, higher_is_closer=True)

    asked = spec(space=space)
    examples = read_pool(asked, conditional, training(), match=match, progress=False)  # type: ignore[arg-type]
    best = np.array([e.similarity for e in examples])
    assert (best < 0.95).all() and in_region(best, space, space.copy).all()
    assert [e.memorized for e in examples] == [1] * len(examples)


def test_a_pool_without_labels_is_drawn_from_the_null_class(cache: Path) -> None:
    examples = read_pool(spec(classes=0), conditional, training(), progress=False)
    assert all(
        e.condition.class_label is None and e.condition.bare.id == "unconditional" for e in examples
    )
    model, null = conditional(), torch.full((12,), CLASSES)
    x = torch.stack(
        [torch.randn(3, SIDE, SIDE, generator=generator(*e.condition.start)) for e in examples]
    )
    model.scheduler.set_timesteps(STEPS)
    for t in model.scheduler.timesteps:
        with torch.no_grad():
            x = model.scheduler.step(model.network(x, t, null).sample, t, x).prev_sample
    assert (
        np.abs(to_uint8(x).astype(int) - np.stack([e.condition.image for e in examples])).max() <= 1
    )


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_pool_does_not_depend_on_the_batch_size(
    cache: Path, tmp_path: Path, batch_size: int
) -> None:
    for name, size in (("a", 64), ("b", batch_size)):
        model = conditional()
        model.batch_size = size
        write_pool(tmp_path / name, spec(n=70), model, training(), progress=False)
    a, b = (read_table(tmp_path / name, "pool") for name in "ab")
    rounded = ["image", "similarity"]
    assert a.drop(columns=rounded).equals(b.drop(columns=rounded))
    assert a.similarity.tolist() == pytest.approx(b.similarity.tolist(), abs=0.01)
    one, other = (
        np.stack([png_image(image) for image in pool.image]).astype(int) for pool in (a, b)
    )
    assert np.abs(one - other).max() <= 1


def test_an_interrupted_pool_goes_on_after_its_last_block(tmp_path: Path, monkeypatch) -> None:
    once = tmp_path / "once.parquet"
    write_pool(once, spec(n=130), conditional(), training(), progress=False)
    real, again, counted = pool_module.generate, tmp_path / "again.parquet", []

    def stops(model, conditions, sampling):
        if len(counted) == 2:
            raise KeyboardInterrupt
        counted.append(len(conditions))
        return real(model, conditions, sampling)

    monkeypatch.setattr(pool_module, "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        write_pool(again, spec(n=130), conditional(), training(), progress=False)
    assert not again.exists() and counted == [64, 64]
    counted.clear()
    write_pool(again, spec(n=130), conditional(), training(), progress=False)
    assert counted == [2]
    assert read_table(again, "pool").equals(read_table(once, "pool"))
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        "again.parquet",
        "once.parquet",
    ]


@pytest.mark.parametrize("most", [1000, 12 * SIDE * SIDE * 3 + 300])
def test_a_full_disk_of_the_cache_is_named(cache: Path, most: int) -> None:
    """Of the first block, and of the table."""
    way_out = r"cannot write in .*pools: .*File too large; .* set MEMBENCH_CACHE"
    with small_files(most), pytest.raises(UserError, match=way_out):
        read_pool(spec(), conditional, training(), progress=False)
    assert not list(cache.glob("pools/*.parquet"))


def test_a_damaged_pool_is_named(cache: Path) -> None:
    read_pool(spec(), conditional, training(), progress=False)
    [file] = cache.glob("pools/*.parquet")
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"\.parquet is damaged"):
        read_pool(spec(), conditional, training(), progress=False)


def test_a_pool_that_was_rewritten_is_named(cache: Path) -> None:
    """A whole table with valid checksums, of other rows or numbers."""
    whole = read_pool(spec(), conditional, training(), progress=False)
    [file] = cache.glob("pools/*.parquet")
    table = pq.read_table(file)
    at = table.schema.get_field_index("similarity")
    forged = table.set_column(at, table.schema.field(at), pa.array([0.1] * 12, pa.float32()))
    for other in (table.slice(0, 9), forged):
        pq.write_table(other, file)
        with pytest.raises(UserError, match="it is not what was written"):
            read_pool(spec(), conditional, training(), progress=False)
    file.unlink()
    again = read_pool(spec(), conditional, training(), progress=False)
    assert [e.condition.id for e in again] == [e.condition.id for e in whole]


def test_a_pool_of_one_or_of_nan_is_refused(cache: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        read_pool(spec(n=1), conditional, training(), progress=False)
    broken = conditional()
    broken.network.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN"):
        read_pool(spec(), lambda: broken, training(), progress=False)
    assert not list(cache.glob("pools/*.parquet"))


# ------------------------------------------------------------------ detectors on a pool


def pool(n: int = 6) -> list[Condition]:
    conditions = spec(n=n).conditions()
    images = generate(conditional(), conditions, SAMPLING)
    return [
        replace(c, id=f"image-{i}", image=image)
        for i, (c, image) in enumerate(zip(conditions, images, strict=True))
    ]


def test_more_images_are_asked_of_what_the_model_was_told() -> None:
    asked = requests(pool(5), 2)
    assert [(r.condition.id, r.draw) for r in asked] == [
        *(("class/0", 0), ("class/1", 0), ("class/2", 0), ("class/0", 1), ("class/1", 1)),
        *(("class/0", 2), ("class/1", 2), ("class/2", 1), ("class/0", 3), ("class/1", 3)),
    ]
    assert all(r.condition.image is None and r.condition.start is None for r in asked)
    prompts = [Condition("a", "red"), Condition("b", "blue")]
    assert requests(prompts, 2) == [Request(c, k) for k in range(2) for c in prompts]


def test_an_image_has_one_noise_and_a_prompt_as_many_as_asked() -> None:
    assert own_draws(pool(2), 4) == 1 and own_draws([Condition("a", "red")], 4) == 4
    with pytest.raises(UserError, match="not known"):
        own_draws([replace(pool(1)[0], start=None)], 4)
    with pytest.raises(UserError, match="apart"):
        own_draws([pool(1)[0], Condition("a", "red")], 4)


@pytest.mark.parametrize("looked", [0, 1, 3])
def test_cfg_norm_follows_the_images_own_trajectory(looked: int) -> None:
    model, examples = conditional(), pool()
    found = CfgNorm(CfgNormOptions(image_steps=looked), seed=7, sampling=IMAGES).score(
        model, examples, {}
    )
    for c, score in zip(examples, found, strict=True):
        x = torch.randn(1, 3, SIDE, SIDE, generator=generator(*c.start))
        model.scheduler.set_timesteps(STEPS)
        norms = []
        for t in model.scheduler.timesteps:
            alpha = model.scheduler.alphas_cumprod[t].sqrt()
            with torch.no_grad():
                told, null = (
                    model.network(x, t, torch.tensor([k])).sample for k in (c.class_label, CLASSES)
                )
            # Of eps, of which v is alpha times the difference
            norms.append(float(alpha * (told - null).norm()))
            x = model.scheduler.step(told, t, x).prev_sample
        assert score == pytest.approx(np.mean(norms[: looked or STEPS]), rel=1e-4)
        # It is that image's
        assert np.abs(to_uint8(x)[0].astype(int) - c.image.astype(int)).max() <= 1


def test_cfg_norm_ranks_extracted_images_by_the_same_norm() -> None:
    model, sampler = conditional(), CfgNorm(CfgNormOptions(), seed=7, sampling=IMAGES)
    asked = sampler.plan(pool(3))
    samples = sampler.extract(model, asked)
    own = [
        replace(r.condition, image=s.image, start=("7", r.condition.id, str(r.draw)))
        for r, s in zip(asked, samples, strict=True)
    ]
    # The noise of draw k is hash(seed, id, k): as a start of words it is the same
    # noise.
    assert [s.confidence for s in samples] == pytest.approx(sampler.score(model, own, {}), rel=1e-4)


def test_what_a_pool_does_not_suit_is_refused() -> None:
    plain = conditional(0)
    loose = [replace(c, class_label=None) for c in pool(2)]
    for detector in (
        CfgNorm(CfgNormOptions(), seed=0, sampling=IMAGES),
        Dcs(DcsOptions(), seed=0, sampling=IMAGES),
    ):
        with pytest.raises(UserError, match="no condition"):
            detector.check(plain, loose)
    with pytest.raises(UserError, match="without a condition"):
        CfgNorm(CfgNormOptions(), seed=0, sampling=IMAGES).check(conditional(), loose)
    with pytest.raises(UserError, match="edge compares"):
        Edge(EdgeOptions(), seed=0, sampling=IMAGES).check(conditional(), pool(2))
    bare = conditional()
    bare.has_null = False
    for detector in (
        CfgNorm(CfgNormOptions(), seed=0, sampling=IMAGES),
        Dcs(DcsOptions(), seed=0, sampling=IMAGES),
    ):
        with pytest.raises(UserError, match="no null class"):
            detector.check(bare, pool(2))
    assert ScoreNorm(ScoreNormOptions(), seed=0, sampling=IMAGES).variant(bare) == "conditional"
    with pytest.raises(UserError, match="no null class"):
        ScoreNorm(ScoreNormOptions(condition="guided"), seed=0, sampling=IMAGES).check(
            bare, pool(2)
        )


@pytest.mark.parametrize("t", [1.0, 0.3])
def test_score_norm_on_the_trajectory_is_on_the_images_own(t: float) -> None:
    """The task's steps and weight: of 4 steps at 750, 500, 250 and 0 the one nearest to
    t, and no guidance on the way.
    """
    model, examples = conditional(), pool(4)
    detector = ScoreNorm(
        ScoreNormOptions(at="trajectory", condition="unconditional", t=t), seed=3, sampling=IMAGES
    )
    model.scheduler.set_timesteps(STEPS)
    steps = [int(k) for k in model.scheduler.timesteps]
    step = min(range(STEPS), key=lambda k: abs(steps[k] - (round(t * 1000) - 1)))
    for c, score in zip(examples, detector.score(model, examples, {}), strict=True):
        x = torch.randn(1, 3, SIDE, SIDE, generator=generator(*c.start))
        with torch.no_grad():
            for k in steps[:step]:
                x = model.scheduler.step(
                    model.network(x, k, torch.tensor([c.class_label])).sample, k, x
                ).prev_sample
            v = model.network(x, steps[step], torch.tensor([CLASSES])).sample
        alpha, sigma = model.alpha_sigma(steps[step])
        assert score == pytest.approx(float((alpha * v + sigma * x).norm()), rel=1e-4)


def test_defaults_of_pixels_of_latents_and_of_captions_differ_as_documented() -> None:
    """The times follow the states, also of latents without text; what is asked follows
    the text.
    """
    model = conditional()
    assert Flipd(FlipdOptions(), seed=0, sampling=IMAGES)._index(model) == model.timestep(0.01)
    assert ScoreNorm(ScoreNormOptions(), seed=0, sampling=IMAGES)._index(
        model, True
    ) == model.timestep(0.2)
    assert ScoreNorm(ScoreNormOptions(), seed=0, sampling=IMAGES).variant(model) == "conditional"
    model.latents = True
    assert Flipd(FlipdOptions(), seed=0, sampling=IMAGES)._index(model) == model.timestep(0.3)
    assert ScoreNorm(ScoreNormOptions(), seed=0, sampling=IMAGES)._index(
        model, True
    ) == model.timestep(0.5)
    assert ScoreNorm(ScoreNormOptions(), seed=0, sampling=IMAGES).variant(model) == "conditional"
    model.takes_text = True
    assert ScoreNorm(ScoreNormOptions(), seed=0, sampling=IMAGES).variant(model) == "guided"


def test_options_that_an_image_does_not_read_are_refused() -> None:
    model, images, prompts = conditional(), pool(2), [Condition("a", "red")]
    for options, word in (
        (CfgNormOptions(steps=5), "steps=5"),
        (CfgNormOptions(draws=1), "draws=1"),
        (CfgNormOptions(guidance=2.0), "guidance"),
    ):
        with pytest.raises(UserError, match=f"{word}.*image_steps"):
            CfgNorm(options, seed=0, sampling=IMAGES).check(model, images)
    CfgNorm(CfgNormOptions(image_steps=2), seed=0, sampling=IMAGES).check(model, images)
    with pytest.raises(UserError, match="image_steps=2: the examples are prompts"):
        CfgNorm(CfgNormOptions(image_steps=2), seed=0, sampling=SAMPLING).check(model, prompts)
    for detector in (
        Dcs(DcsOptions(draws=2), seed=0, sampling=IMAGES),
        Side(SideOptions(draws=2), seed=0, sampling=IMAGES),
        ScoreNorm(ScoreNormOptions(at="trajectory", draws=2), seed=0, sampling=IMAGES),
    ):
        with pytest.raises(UserError, match="draws=2"):
            detector.check(model, images)


def test_side_refuses_a_model_whose_null_class_it_would_guide() -> None:
    model = conditional()
    model.has_null = False
    with pytest.raises(UserError, match="no null class"):
        Side(SideOptions(), seed=0, sampling=IMAGES).check(model, pool(2))
    with pytest.raises(UserError, match="weights disc_mixup of sscd are not here"):
        Side(SideOptions(features="sscd"), seed=0, sampling=IMAGES).check(conditional(), pool(2))


@pytest.mark.parametrize("has_null", [True, False])
def test_flipd_by_jvp_and_by_difference_agree_on_classes(has_null: bool) -> None:
    found = {}
    for derivative in ("jvp", "difference"):
        model = conditional()
        model.has_null = has_null
        detector = Flipd(FlipdOptions(derivative=derivative, t0=0.3), seed=0, sampling=IMAGES)
        detector.check(model, pool(3))
        found[derivative] = detector.score(model, pool(3), {})
    assert found["jvp"] == pytest.approx(found["difference"], rel=1e-2, abs=0.5)


def test_random_pays_for_the_images_that_it_counts() -> None:
    options = RandomSamplingOptions(extraction="unconditional", generations=3)
    assert RandomSampling(options, seed=0, sampling=IMAGES).access.images
    # A prompt draws its own when it is scored
    assert not RandomSampling(options, seed=0, sampling=SAMPLING).access.images


@pytest.mark.parametrize("examples", ["prompts", "images"])
def test_tiles_that_do_not_divide_an_image_are_refused_before_any_work(examples: str) -> None:
    model = conditional()
    given = pool(2) if examples == "images" else [Condition("a", class_label=1)]
    sampling = {**SAMPLING, "examples": examples}
    for tiles in (3, 16):
        detector = RandomSampling(RandomSamplingOptions(tiles=tiles), seed=0, sampling=sampling)
        with pytest.raises(UserError, match=f"tiles={tiles} does not divide the 8 and 8 pixels"):
            detector.check(model, given)
    RandomSampling(RandomSamplingOptions(tiles=2), seed=0, sampling=sampling).check(model, given)
    assert model.cost == Cost()
    # Nothing is cut into tiles where nothing is scored; a scorer of a filter always scores
    only = sampling | {"extract_only": True}
    options = RandomSamplingOptions(tiles=3)
    RandomSampling(options, seed=0, sampling=only).check(model, given)
    with pytest.raises(UserError, match="tiles=3 does not divide"):
        made("random", ["tiles=3"], 0, only).check(model, given)


def test_each_image_of_a_batch_is_guided_as_it_is_alone() -> None:
    """Of a task some of whose images have no class, too, in either order."""
    model = conditional()
    detector = RandomSampling(RandomSamplingOptions(guidance=3.0), seed=0, sampling=IMAGES)
    asked = [Request(UNCONDITIONAL, 0), Request(Condition("class/1", class_label=1), 0)]
    alone = [detector.extract(model, [r])[0].image.astype(int) for r in asked]
    for order in (asked, asked[::-1]):
        before = model.cost.forwards
        found = {s.condition.id: s.image for s in detector.extract(model, order)}
        paid = sum(detector.image_forwards(model, r) for r in order)
        assert model.cost.forwards - before == paid
        for r, image in zip(asked, alone, strict=True):
            assert np.abs(found[r.condition.id] - image).max() <= 1


def test_an_unconditional_pools_extraction_is_measured_like_its_examples() -> None:
    """A bare condition has neither image nor class: what the examples are is the task's
    declaration.
    """
    assert ScoreNorm(ScoreNormOptions(), seed=0, sampling=IMAGES)._by_image()
    assert not ScoreNorm(ScoreNormOptions(), seed=0, sampling=SAMPLING)._by_image()


def extracted(images: np.ndarray) -> dict[str, list[Sample]]:
    return {
        "class/0": [
            Sample(Condition("class/0", class_label=0), k, image, 0.0)
            for k, image in enumerate(images)
        ]
    }


def test_random_scores_an_image_by_the_density_around_it() -> None:
    examples = pool(4)
    rng = np.random.default_rng(1)
    near = [
        np.clip(
            examples[0].image.astype(int) + rng.integers(-9, 10, examples[0].image.shape), 0, 255
        ).astype(np.uint8)
        for _ in range(5)
    ]
    drawn = np.stack(
        [*near, examples[1].image, *rng.integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)]
    )
    detector = RandomSampling(RandomSamplingOptions(threshold=0.1), seed=0, sampling=IMAGES)
    found = detector.score(conditional(), examples, extracted(drawn))
    for c, score in zip(examples, found, strict=True):
        distances = [tiled_l2(c.image, other, 4) for other in drawn]
        assert score == pytest.approx(
            sum(d <= 0.1 for d in distances) + 0.5 / (1 + min(distances)), abs=1e-9
        )
    assert found[0] > 5 > found[1] > 1 > max(found[2:])


def test_side_scores_an_image_by_its_own_place() -> None:
    examples = pool(4)
    drawn = np.random.default_rng(2).integers(0, 256, (30, SIDE, SIDE, 3), dtype=np.uint8)
    drawn[0] = examples[2].image
    detector = Side(SideOptions(neighbours=10), seed=0, sampling=IMAGES)
    model = conditional()
    found = detector.score(model, examples, extracted(drawn))
    assert model.cost.forwards == 0 and int(np.argmax(found)) == 2
    for c, score in zip(examples, found, strict=True):
        distances = np.sort(
            [np.linalg.norm((c.image.astype(float) - other) / 255) for other in drawn]
        )
        assert score == pytest.approx(-distances[0] / distances[:10].mean(), rel=1e-5, abs=1e-9)
