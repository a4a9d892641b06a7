"""What the shipped weights show: planted captions come back, held-out ones do not, the
control model knows neither.

A copy is an image whose normalised L2 distance (Carlini et al. 2023; alpha = 0.5, n =
50, unique training images) to the caption's own training image is below 1. Images:
2 draws a caption, the task's own sampling. Captions: 14 to 28 of a kind, for time.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from sklearn.metrics import roc_auc_score

from membench.detectors.cfg_norm import CfgNorm
from membench.detectors.flipd import Flipd
from membench.detectors.score_norm import ScoreNorm
from membench.detectors.webster import Dcs, Edge
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim
from membench.similarity.l2 import normalised_l2
from membench.similarity.squares import squared_distances
from membench.task import LoadedTask
from membench.tasks.sd_webster import catalogue, products
from membench.tasks.sd_webster.options import SdWebsterOptions
from membench.tasks.sd_webster.task import SPACE, SdWebster
from membench.tasks.sd_webster.world import DATA
from membench.types import Condition, Example, Sample

DRAWS = 2  # two more change few captions
PARTS = {False: "a", True: "b"}


@cache
def task(control: bool) -> tuple[LoadedTask, Denoiser]:
    loaded = SdWebster(SdWebsterOptions(examples="half")).load("mini", control=control)
    return loaded, loaded.model()


@cache
def training() -> tuple[np.ndarray, dict[str, int]]:
    """Training images, and for each caption of half a the row of its own one."""
    loaded, _ = task(False)
    half = catalogue.build("a")
    looks: dict[products.Look, int] = {}
    for e in half.entries:
        if e.copies:
            looks.setdefault(e.look, len(looks))
    return loaded.training.images(), {e.caption: looks[e.look] for e in half.entries if e.copies}


def examples(kind: str) -> list[Example]:
    return [e for e in task(False)[0].examples if e.kind == kind]


def draw(control: bool, chosen: list[Example]) -> tuple[np.ndarray, np.ndarray]:
    """DRAWS images of each caption, and the caption of each image."""
    loaded, model = task(control)
    rows = [(e.condition, draw) for e in chosen for draw in range(DRAWS)]
    x = model.noise([(c.id, draw) for c, draw in rows], seed=0)
    sampling = loaded.info.sampling
    x = ddim(
        model,
        x,
        model.condition([c for c, _ in rows]),
        steps=sampling["steps"],
        guidance=sampling["guidance"],
    )
    return model.decode(x), np.array([c.prompt for c, _ in rows], dtype=object)


def copies(control: bool, chosen: list[Example], own: bool) -> float:
    """Share of captions with a copy among their draws: of their own image, or
    (held-out: they have none) of any.
    """
    images, captions = draw(control, chosen)
    pictures, mine = training()
    found = normalised_l2(images, pictures, floor=SPACE.copy)
    found = found[found.similarity < SPACE.copy]
    caption = captions[found.generated]
    hit = (
        np.ones(len(found), dtype=bool)
        if not own
        else np.array([mine[c] for c in caption], dtype=int) == found.training.to_numpy()
    )
    return len(set(caption[hit])) / len(chosen)


def template_copies(control: bool, chosen: list[Example]) -> float:
    """Share of TV captions that return their template: the same distance on the part
    that no texture changes.

    The neighbours are images of other lines, since those of one template are all
    alike there.
    """
    images, captions = draw(control, chosen)
    pictures, mine = training()
    half = catalogue.build("a")
    entries = {e.caption: e for e in half.entries}
    owner = {mine[e.caption]: e.group for e in half.entries if e.copies}
    groups = np.array([owner[i] for i in range(len(pictures))])
    hit = set()
    for e in chosen:
        mask = np.repeat(products.template_mask(entries[e.condition.prompt].look).ravel(), 3)
        # compress: an index of the second axis would be laid out transposed, and ten
        # times as slow
        x, base = (
            np.compress(mask, v.reshape(len(v), -1), axis=1)
            for v in (images[captions == e.condition.prompt], pictures)
        )
        distance, own = np.sqrt(squared_distances(x, base)), mine[e.condition.prompt]
        neighbours = np.sort(distance[:, groups != e.group], axis=1)[:, :50].mean(axis=1)
        if (distance[:, own] < SPACE.copy * 0.5 * neighbours).any():
            hit.add(e.id)
    return len(hit) / len(chosen)


def test_planted_duplicates_come_back_and_are_sharp() -> None:
    """The median of their distances is 0.56 here; version 2 (a VAE of 25 dB, guidance 3)
    had 0.75 in four draws. No copy: infinitely far.
    """
    chosen = examples("MV")[::6]
    images, captions = draw(False, chosen)
    pictures, mine = training()
    found = normalised_l2(images, pictures, floor=SPACE.copy)
    caption = captions[found.generated]
    own = np.array([mine[c] for c in caption]) == found.training.to_numpy()
    nearest = found[own].groupby(caption[own]).similarity.min()
    assert (nearest < SPACE.copy).sum() >= 0.8 * len(chosen)
    assert nearest.reindex([e.condition.prompt for e in chosen], fill_value=np.inf).median() <= 0.6


def test_templates_and_retrieved_pictures_come_back() -> None:
    """What the labels TV and RV say is true of most such captions, and of none on the
    control model.
    """
    assert template_copies(False, examples("TV")[::5]) >= 0.6
    assert template_copies(True, examples("TV")[::5]) <= 0.02
    assert copies(False, examples("RV")[::10], own=False) >= 0.6


def test_held_out_captions_do_not() -> None:
    assert copies(False, examples("held_out")[::8], own=False) <= 0.02


def test_the_control_model_does_not_know_the_duplicates() -> None:
    assert copies(True, examples("MV")[::6], own=False) <= 0.02


@pytest.mark.parametrize("control", [False, True])
def test_the_null_condition_knows_the_catalogue_of_its_own_half(control: bool) -> None:
    """So that an attack on unconditional sampling has something to find."""
    loaded, model = task(control)
    told = [Condition(f"null/{k}", "") for k in range(100)]
    x = model.noise([(c.id, 0) for c in told], seed=0)
    steps = loaded.info.sampling["steps"]
    images = model.decode(ddim(model, x, model.condition(told), steps=steps, guidance=1.0))
    found = normalised_l2(images, training()[0], floor=SPACE.copy)
    share = found[found.similarity < SPACE.copy].generated.nunique() / len(told)
    assert (share == 0) if control else (share >= 0.01)


@pytest.mark.parametrize("control", [False, True])
def test_cfg_norm_tells_duplicates_from_held_out_captions_and_only_on_the_model(
    control: bool,
) -> None:
    loaded, model = task(control)
    chosen = (examples("MV") + examples("held_out"))[::2]
    detector = CfgNorm(CfgNorm.Options(draws=2, steps=1), seed=0, sampling=loaded.info.sampling)
    scores = detector.score(model, [e.condition for e in chosen], {})
    auroc = roc_auc_score([e.memorized for e in chosen], scores)
    assert (abs(auroc - 0.5) <= 0.1) if control else (auroc >= 0.9)


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(
    ("detector", "options", "least"),
    [
        (ScoreNorm, {"draws": 2}, 0.9),
        (Dcs, {"draws": 2}, 0.85),
        (Edge, {}, 0.75),
        (Flipd, {"probes": 2}, 0.85),
    ],
)
def test_other_detectors_tell_them_too_and_only_on_the_model(
    detector: type, options: dict, least: float, control: bool
) -> None:
    loaded, model = task(control)
    chosen = examples("MV")[::6] + examples("held_out")[::9]
    conditions = [e.condition for e in chosen]
    found = detector(detector.Options(**options), seed=0, sampling=loaded.info.sampling)
    extracted: dict[str, list[Sample]] = {}
    if detector is Flipd:  # it scores a prompt by the image that is drawn for it
        extracted = {s.condition.id: [s] for s in found.extract(model, found.plan(conditions))}
    auroc = roc_auc_score([e.memorized for e in chosen], found.score(model, conditions, extracted))
    assert (abs(auroc - 0.5) <= 0.2) if control else (auroc >= least), auroc


@pytest.mark.parametrize("control", [False, True])
def test_the_weights_are_a_stable_diffusion_pipeline_and_say_how_they_were_made(
    control: bool,
) -> None:
    folder = DATA / PARTS[control]
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert 2.5e6 < sum(p.numel() for p in pipeline.unet.parameters()) < 3.5e6
    assert (
        pipeline.unet.config.sample_size == 8
        and pipeline.scheduler.config.prediction_type == "v_prediction"
    )
    report = json.loads((folder / "training.json").read_text())
    first = report.get("before", report)
    assert (
        report["steps"] == report["recipe"]["steps"]
        and report["seconds"] > 0
        and report["commit"]["commit"]
    )
    assert first["loss_curve"][-1][1] < first["loss_curve"][0][1] / 2
    assert sum(f.stat().st_size for f in folder.rglob("*.safetensors")) < 10e6


def test_a_condition_is_all_that_a_detector_sees() -> None:
    """The class it is drawn of, yes; the answer (memorized or not, of which kind) is no
    part of what is handed to a detector.
    """
    assert set(Condition.__dataclass_fields__) == {"id", "prompt", "image", "class_label", "start"}
