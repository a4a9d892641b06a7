"""SIDE and the conditional baseline: guidance against closed forms, what they may see,
what they cost, what they refuse.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import nn
from watch import grey_levels

import membench
from membench import api
from membench.cli.main import main
from membench.detectors.carlini_conditional import CarliniConditional
from membench.detectors.random_sampling import RandomSampling
from membench.detectors.side import Side
from membench.detectors.side_prompts import SidePrompts
from membench.detectors.surrogate import classifier, lora
from membench.detectors.surrogate import labels as surrogate_labels
from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.pixel import PixelDenoiser
from membench.options import parse_options
from membench.runs.images import Extracted, Samples
from membench.storage.workspace import Workspace
from membench.tasks.sd_webster.task import SdWebster
from membench.types import Condition, Cost, Example, Sample

CONDITIONS = [
    Condition("p", "Norlund teal rug"),
    Condition("q", "a red mug"),
    Condition("r", "plate"),
]
SAMPLING = {"steps": 4, "guidance": 3.0}
SMALL = {
    "synthetic": 12,
    "clusters": 3,
    "min_members": 1,
    "keep": 1.0,
    "generations": 7,
    "lora_steps": 2,
    "lora_rank": 2,
    "classifier_steps": 2,
    "batch": 4,
}
# Of a text-to-image model, whose surrogate is no classifier
SMALL_SET = [f"{k}={v}" for k, v in SMALL.items() if k != "classifier_steps"]

# ---------------------------------------------------------------- guidance, closed form

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[1.0, 0.5], [-1.0, 0.8], [0.2, -1.2]], dtype=torch.float64)
COVARIANCES = torch.tensor(
    [[[0.1, 0.05], [0.05, 0.2]], [[0.3, -0.1], [-0.1, 0.15]], [[0.05, 0.0], [0.0, 0.25]]],
    dtype=torch.float64,
)


def log_joint(x: torch.Tensor, abar: torch.Tensor) -> torch.Tensor:
    """log pi_c + log N(x; sqrt(abar) mu_c, abar Sigma_c + (1 - abar) I): [n, classes]
    for x [n, 2], one abar for all.
    """
    abar = abar.reshape(1, 1, 1)
    covariance = abar[..., None] * COVARIANCES + (1 - abar[..., None]) * torch.eye(
        2, dtype=torch.float64
    )
    each = torch.distributions.MultivariateNormal(abar.sqrt() * MEANS, covariance)
    return each.log_prob(x.double()[:, None]) + WEIGHTS.log()


class Mixture(Denoiser):
    """The exact epsilon of a Gaussian mixture: -sqrt(1 - abar) grad log p_t(x)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(1, 1),
            DDIMScheduler(clip_sample=False, set_alpha_to_one=True),
            shape=(2, 1, 1),
            batch_size=5000,
        )
        self.final: list[torch.Tensor] = []

    def _forward(self, x: torch.Tensor, t: Any, condition: Conditioning) -> torch.Tensor:
        abar = self.alphas_cumprod[t]
        with torch.enable_grad():
            flat = x.flatten(1).double().requires_grad_(True)
            gradient = torch.autograd.grad(log_joint(flat, abar).logsumexp(dim=1).sum(), flat)[0]
        return (-(1 - abar).sqrt() * gradient).float().view_as(x)

    def condition(self, conditions: Any) -> Conditioning:
        return Conditioning(None)

    def decode(self, x: torch.Tensor) -> np.ndarray:
        self.final.append(x.flatten(1).double())
        return np.zeros((len(x), 2, 2, 3), np.uint8)


class Posterior(nn.Module):
    """The exact class posterior at x_t as logits; at t = 0 and ``timed=False`` the
    clean one.
    """

    def __init__(self, model: Mixture, timed: bool) -> None:
        super().__init__()
        self.model, self.timed = model, timed

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert (t == t[0]).all()
        abar = (
            self.model.alphas_cumprod[t[0]]
            if self.timed
            else torch.tensor(1.0, dtype=torch.float64)
        )
        return log_joint(x.flatten(1), abar)


def guided(guidance: float, c: int | None, n: int = 3000, steps: int = 100) -> torch.Tensor:
    """Final states [n, 2] of SIDE's own extraction with an exact denoiser and an exact
    classifier.
    """
    model = Mixture()
    side = Side(
        Side.Options(guidance=guidance, generations=n, steps=steps), seed=0, sampling=SAMPLING
    )
    side.classifier = Posterior(model, timed=True)  # type: ignore[assignment]
    side.x0, side.labels = torch.zeros(3, 2, 1, 1), torch.arange(3)
    requests = side.plan([])
    if c is not None:
        requests = [
            dataclasses.replace(r, condition=Condition(f"cluster-{c:04d}")) for r in requests
        ]
    side.extract(model, requests)
    return torch.cat(model.final)


@pytest.mark.parametrize("c", [0, 1, 2])
def test_weight_one_follows_the_conditional_distribution(c: int) -> None:
    """Bayes: grad log p(x) + grad log p(c|x) = grad log p(x|c).

    Tolerance: sampling error of 3,000, and 100 DDIM steps.
    """
    x = guided(1.0, c)
    assert (x.mean(dim=0) - MEANS[c]).abs().max() < 0.04
    assert (x.T.cov() - COVARIANCES[c]).abs().max() < 0.03


@pytest.mark.parametrize("c", [None, 2])
def test_weight_zero_follows_the_unconditional_distribution(c: int | None) -> None:
    x = guided(0.0, c)
    mean = WEIGHTS @ MEANS
    centred = MEANS - mean
    covariance = (
        WEIGHTS[:, None, None] * (COVARIANCES + centred[:, :, None] * centred[:, None, :])
    ).sum(dim=0)
    assert (x.mean(dim=0) - mean).abs().max() < 0.06
    assert (x.T.cov() - covariance).abs().max() < 0.06
    nearest = torch.distributions.Categorical(
        logits=log_joint(x, torch.tensor(1.0, dtype=torch.float64))
    ).probs.mean(dim=0)
    assert (nearest - WEIGHTS).abs().max() < 0.04


def test_the_correction_is_the_papers() -> None:
    """eps - sqrt(1 - abar) lambda grad log p_t(c|x): one step of one sample, by finite
    differences of the log posterior.
    """
    model, weight, t, c = Mixture(), 3.0, 500, 1
    side = Side(Side.Options(guidance=weight, steps=2), seed=0, sampling=SAMPLING)
    side.classifier = Posterior(model, timed=True)  # type: ignore[assignment]
    x = torch.tensor([[[0.3]], [[-0.7]]])[None]
    got = side._gradient(model, x, t, torch.zeros_like(x), torch.tensor([c])).flatten()
    step, abar = 1e-5, model.alphas_cumprod[t]
    for i in range(2):
        ends = []
        for sign in (1, -1):
            moved = x.flatten(1).double().clone()
            moved[0, i] += sign * step
            ends.append(log_joint(moved, abar).log_softmax(dim=1)[0, c])
        assert float(got[i]) == pytest.approx(float((ends[0] - ends[1]) / (2 * step)), rel=1e-4)
    assert model.cost == Cost(surrogate_forwards=1, surrogate_backwards=1)


def test_the_classifier_is_asked_at_the_samplers_own_timesteps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = Mixture(), []
    side = Side(Side.Options(generations=2, steps=5), seed=0, sampling=SAMPLING)
    side.x0, side.labels = torch.zeros(3, 2, 1, 1), torch.arange(3)
    monkeypatch.setattr(
        side, "_gradient", lambda model, x, t, eps, c: asked.append(t) or torch.zeros_like(x)
    )
    side.extract(model, side.plan([]))
    model.scheduler.set_timesteps(5)
    assert asked == model.scheduler.timesteps.tolist()


@pytest.mark.parametrize("at", ["xt", "x0"])
def test_the_baseline_asks_a_classifier_that_knows_no_timestep(at: str) -> None:
    model, t, c = Mixture(), 300, 1
    detector = CarliniConditional(CarliniConditional.Options(at=at), seed=0, sampling=SAMPLING)
    detector.classifier = Posterior(model, timed=False)  # type: ignore[assignment]
    x, eps = torch.tensor([[[0.3]], [[-0.7]]])[None], torch.tensor([[[0.1]], [[0.2]]])[None]
    got = detector._gradient(model, x, t, eps, torch.tensor([c])).flatten()
    abar, step = float(model.alphas_cumprod[t]), 1e-5

    def log_posterior(x_t: torch.Tensor) -> torch.Tensor:
        point = (
            x_t
            if at == "xt"
            else (x_t - math.sqrt(1 - abar) * eps.flatten(1).double()) / math.sqrt(abar)
        )
        return log_joint(point, torch.tensor(1.0, dtype=torch.float64)).log_softmax(dim=1)[0, c]

    for i in range(2):
        up, down = x.flatten(1).double().clone(), x.flatten(1).double().clone()
        up[0, i] += step
        down[0, i] -= step
        assert float(got[i]) == pytest.approx(
            float((log_posterior(up) - log_posterior(down)) / (2 * step)), rel=1e-3
        )


# ------------------------------------------------------------- on a small real pipeline


@pytest.fixture
def model(tiny_pipeline_folder: Path) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=5)


def prepared(
    model: Denoiser, folder: Path, make: Any = Side, **options: Any
) -> tuple[Side, Workspace]:
    detector = make(make.Options(**{**SMALL, **options}), seed=0, sampling=SAMPLING)
    workspace = Workspace(folder, {"weights": "w"})
    detector.prepare(model, CONDITIONS, workspace)
    return detector, workspace


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Side, {}),
        (Side, {"source": "conditions"}),
        (Side, {"surrogate": "classifier", "features": "pixels"}),
        (CarliniConditional, {"source": "conditions"}),
        (CarliniConditional, {"at": "xt"}),
    ],
)
def test_costs_are_known_beforehand_and_counted(
    model: LatentDenoiser, tmp_path: Path, make: Any, options: dict[str, Any]
) -> None:
    detector, workspace = prepared(model, tmp_path, make, **options)
    assert (
        workspace.cost.forwards
        == model.cost.forwards
        == detector.preparation_forwards(model, CONDITIONS)
    )
    requests = detector.plan(CONDITIONS)
    before = dataclasses.replace(model.cost)
    detector.extract(model, requests)
    spent = model.cost - before
    assert spent.forwards == sum(detector.image_forwards(model, r) for r in requests) == 7 * 4
    o = detector.options
    classifier = detector._kind(model) == "classifier"
    assert spent.surrogate_backwards == spent.surrogate_forwards == (7 * 4 if classifier else 0)
    trained = o.classifier_steps * o.batch if classifier else 0
    assert workspace.cost.surrogate_forwards == workspace.cost.surrogate_backwards == trained
    assert workspace.cost.backwards == (0 if classifier else o.lora_steps * o.batch)


def test_a_second_run_reuses_the_surrogate_and_pays_for_it(
    model: LatentDenoiser, tmp_path: Path
) -> None:
    _, first = prepared(model, tmp_path)
    before = dataclasses.replace(model.cost)
    _, second = prepared(model, tmp_path, guidance=9.0)
    assert model.cost == before and second.cost == first.cost
    _, other = prepared(model, tmp_path, clusters=2)
    assert model.cost.backwards > before.backwards and other.cost.forwards == first.cost.forwards


def test_synthetic_images_do_not_depend_on_the_order_of_the_examples(
    model: LatentDenoiser, tmp_path: Path
) -> None:
    found = []
    for k, order in enumerate((CONDITIONS, CONDITIONS[::-1])):
        options = Side.Options(**SMALL, source="conditions", surrogate="classifier")
        side = Side(options, seed=0, sampling=SAMPLING)
        side.prepare(model, order, Workspace(tmp_path / str(k), {"weights": "w"}))
        found.append(side.x0)
    assert torch.equal(*found)


@pytest.mark.parametrize("surrogate", ["lora", "classifier"])
def test_images_do_not_depend_on_the_batch_size(
    tiny_pipeline_folder: Path, tmp_path: Path, surrogate: str
) -> None:
    found = []
    for batch_size in (64, 2):
        model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=batch_size)
        # A large weight multiplies rounding
        detector, _ = prepared(model, tmp_path / str(batch_size), surrogate=surrogate, guidance=1.0)
        requests = detector.plan(CONDITIONS)
        samples = detector.extract(model, requests if batch_size == 64 else requests[::-1])
        found.append({s.draw: s for s in samples})
    for draw, sample in found[0].items():
        assert sample.condition == found[1][draw].condition
        assert np.abs(sample.image.astype(int) - found[1][draw].image.astype(int)).max() <= 1
        assert sample.confidence == pytest.approx(found[1][draw].confidence, rel=1e-3)


def test_target_clusters_are_uniform_over_those_kept(model: LatentDenoiser, tmp_path: Path) -> None:
    detector, _ = prepared(model, tmp_path, generations=3000)
    names = [r.condition.id for r in detector.plan(CONDITIONS)]
    counts = np.array([names.count(f"cluster-{c:04d}") for c in range(3)])
    assert counts.sum() == 3000 and np.abs(counts - 1000).max() < 4 * math.sqrt(1000 * 2 / 3)
    assert len({r.draw for r in detector.plan(CONDITIONS)}) == 3000
    detector.seed = 1
    assert [r.condition.id for r in detector.plan(CONDITIONS)] != names


def test_confidence_is_nearness_to_the_clusters_own_synthetic_images(
    model: LatentDenoiser, tmp_path: Path
) -> None:
    detector, _ = prepared(model, tmp_path)
    x = torch.stack([detector.x0[0] + 0.5, torch.full_like(detector.x0[0], math.nan)])
    got = detector._confidence(x, detector.labels[[0, 0]])
    mine = detector.x0[detector.labels == detector.labels[0]]
    assert got[0] == pytest.approx(
        -min(float(((x[0] - row) ** 2).mean().sqrt()) for row in mine), rel=1e-5
    )
    assert math.isnan(got[1])
    other = next(label for label in detector.labels if label != detector.labels[0])
    theirs = detector.x0[detector.labels == other]
    [far] = detector._confidence(x[:1], other[None])
    wanted = -min(float(((x[0] - row) ** 2).mean().sqrt()) for row in theirs)
    assert far == pytest.approx(wanted, rel=1e-5) and far < got[0]


def test_a_synthetic_image_is_as_sure_as_its_nearest_other_is_near(
    model: LatentDenoiser, tmp_path: Path
) -> None:
    """On the scale of guided images, beside which it is ranked."""
    detector, _ = prepared(model, tmp_path, count_synthetic=True)
    requests = [r for r in detector.plan(CONDITIONS) if r.condition.id == "synthetic"][1:3]
    x0 = detector.synthetic.x0
    for sample in detector.extract(model, requests):
        rms = ((x0 - x0[sample.draw]) ** 2).flatten(1).mean(dim=1).sqrt()
        wanted = float(np.sort(rms.numpy())[1])
        assert sample.confidence == pytest.approx(-wanted, rel=1e-3)


def test_score_is_the_normalised_distance_to_the_nearest_extracted_image(
    model: LatentDenoiser,
) -> None:
    detector = Side(Side.Options(draws=2, neighbours=3), seed=0, sampling=SAMPLING)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    extracted = {
        "cluster-0000": [
            Sample(Condition("cluster-0000"), k, image, -1.0) for k, image in enumerate(images[:5])
        ]
    }
    extracted["cluster-0001"] = [
        Sample(Condition("cluster-0001"), k, image, -1.0) for k, image in enumerate(images[5:])
    ]
    # Failed
    extracted["cluster-0001"].append(
        Sample(Condition("cluster-0001"), 9, np.zeros((64, 64, 3), np.uint8), math.nan)
    )
    got = detector.score(model, CONDITIONS, extracted)
    drawn = RandomSampling(RandomSampling.Options(draws=2), seed=0, sampling=SAMPLING)
    for condition, score in zip(CONDITIONS, got, strict=True):
        own = drawn.extract(model, [r for r in drawn.plan(CONDITIONS) if r.condition == condition])
        each = [
            np.sort([np.sqrt(((s.image / 255.0 - image / 255.0) ** 2).sum()) for image in images])[
                :3
            ]
            for s in own
        ]
        assert score == pytest.approx(-np.mean([d[0] / d.mean() for d in each]), rel=1e-4)


# ------------------------------------------------------------------- through the runner


@pytest.fixture
def small_task(tiny_pipeline_folder: Path) -> list[str]:
    return [f"model={tiny_pipeline_folder}"]


def test_no_training_image_and_no_label_is_read(
    small_task: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the detector is at work, training images and all that the benchmark knows
    of an example are tripwires.
    """
    inside = SimpleNamespace(detector=0, touched=0)

    class Trip(Example):
        def __getattribute__(self, name: str) -> Any:
            if name in ("memorized", "kind", "group", "source") and inside.detector:
                raise AssertionError(f"the detector read an example's {name}")
            return super().__getattribute__(name)

    load = SdWebster.load

    def tripped(self: SdWebster, *args: Any, **kwargs: Any) -> Any:
        task = load(self, *args, **kwargs)

        def images() -> np.ndarray:
            inside.touched += 1
            assert not inside.detector, "the detector read the training images"
            return task.training.images()

        examples = [
            Trip(**{f.name: getattr(e, f.name) for f in dataclasses.fields(Example)})
            for e in task.examples
        ]
        return dataclasses.replace(
            task, examples=examples, training=dataclasses.replace(task.training, images=images)
        )

    def watched(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            inside.detector += 1
            try:
                return method(*args, **kwargs)
            finally:
                inside.detector -= 1

        return call

    monkeypatch.setattr(SdWebster, "load", tripped)
    for name in ("prepare", "plan", "extract", "score"):
        monkeypatch.setattr(Side, name, watched(getattr(Side, name)))
    run = membench.run(
        "side",
        "sd_webster",
        options=SMALL_SET,
        task_options=small_task,
        limit=3,
        out=tmp_path,
        progress=False,
    )
    assert len(run.scores) == 3 and run.scores.score.notna().all() and len(run.samples) == 7
    assert inside.touched  # by the matching, after the detector was done
    assert run.info["access"] == {
        "gradients": True,
        "images": True,
        "training_data": False,
        "labels": False,
        "model": True,
    }
    assert run.info["prepared"]["clusters kept"] == 3 and len(run.info["prepared"]["cohesion"]) == 3
    phases = run.info["phases"]
    assert (
        phases["prepare"]["forwards"] == 12 * 10 + 12 + 2 * 4
        and phases["prepare"]["backwards"] == 2 * 4
    )
    evaluations = phases["prepare"]["forwards"] + phases["samples"]["forwards"]
    unique = run.metrics.set_index("metric").loc["unique_per_1000_evaluations"]
    copied = run.metrics[
        (run.metrics.metric == "ums_nearest_cumulative")
        & run.metrics.band.isna()
        & (run.metrics.subset == "all")
    ]
    assert unique.value == pytest.approx(1000 * copied.value.iloc[0] * 7 / evaluations)
    assert (run.path / "report.html").is_file()


def test_a_budget_caps_preparation_and_extraction(
    small_task: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "write_pages", lambda runs: None)
    prepare = 12 * 10 + 12 + 2 * 4
    common: dict[str, Any] = {
        "options": SMALL_SET,
        "task_options": small_task,
        "limit": 3,
        "out": tmp_path,
        "progress": False,
    }
    run = membench.run("side", "sd_webster", budget=prepare + 3 * 10 + 9, **common)
    assert len(run.samples) == 3 and len(run.scores) == 0 and run.info["budget"] == prepare + 39
    phases = run.info["phases"]
    assert phases["prepare"]["forwards"] + phases["samples"]["forwards"] == prepare + 30
    whole = membench.run("side", "sd_webster", extract_only=True, **common)
    assert set(run.samples.sample_id) < set(whole.samples.sample_id)
    # A budget stops early and changes nothing else, but for rounding: its batches are
    # smaller
    assert grey_levels(run, whole) <= 1
    with pytest.raises(
        UserError, match=r"--budget 100: the preparation alone takes 140 target evaluations"
    ):
        membench.run("side", "sd_webster", budget=100, **common)
    with pytest.raises(UserError, match="preparation with one image alone takes 150"):
        membench.run("side", "sd_webster", budget=145, **common)
    random = membench.run(
        "random",
        "sd_webster",
        options=["draws=2"],
        task_options=small_task,
        limit=3,
        out=tmp_path,
        progress=False,
        budget=90,
    )
    # A guided step costs two
    assert random.samples.condition.nunique() == 3 and len(random.samples) == 4


def test_unconditional_random_extraction_holds_nothing_else(model: LatentDenoiser) -> None:
    detector = RandomSampling(
        RandomSampling.Options(draws=2, extraction="unconditional", generations=5),
        seed=0,
        sampling=SAMPLING,
    )
    requests = detector.plan(CONDITIONS)
    assert [r.condition.id for r in requests] == [
        "unconditional"
    ] * 5 and not detector.access.images
    detector.extract(model, requests)
    assert model.cost.forwards == 5 * 4 == sum(detector.image_forwards(model, r) for r in requests)
    conditional = RandomSampling(RandomSampling.Options(draws=2), seed=0, sampling=SAMPLING)
    samples = conditional.extract(model, conditional.plan(CONDITIONS))
    by_condition = {c.id: [s for s in samples if s.condition == c] for c in CONDITIONS}
    assert detector.score(model, CONDITIONS, Extracted(Samples.of([]))) == conditional.score(
        model, CONDITIONS, by_condition
    )


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["clusters=30", "synthetic=20"],
            "clusters=30 of at least min_members=1 images need synthetic=30, not 20",
        ),
        (
            ["min_members=5"],
            (
                "clusters=3 of at least min_members=5 images need synthetic=15, not 12; raise"
                " synthetic, or lower clusters"
            ),
        ),
        (["min_members=0"], "min_members must be int from 1, not '0'"),
        (["keep=0"], "keep=0: the share of clusters to keep lies in (0, 1]"),
        (["keep=1.5"], "keep=1.5: the share of clusters to keep lies in (0, 1]"),
        (["keep=nan"], "keep must be float, not 'nan'"),
        (["train_on=some"], "train_on must be one of all, kept"),
        (["cohesion=1.5"], "cohesion must be float from -1.0 to 1.0, not '1.5'"),
        (["guidance=-1"], "guidance must be float from 0.0, not '-1'"),
        (["guidance=nan"], "guidance must be float from 0.0, not 'nan'"),
        (["labels=teacher"], "labels=teacher and teacher=FOLDER go together"),
        (["blocks=1,1"], "name four stages"),
        (["surrogate=gan"], "surrogate must be one of auto, classifier, lora"),
        (["features=sscd"], "features_weights"),
        (["labels=teacher", "teacher=nowhere"], "teacher=nowhere: config.json is missing"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str],
    message: str,
    tiny_pipeline_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = [part for option in options for part in ("--set", option)]
    small = [
        part
        for o in SMALL_SET
        if o.split("=")[0] not in {x.split("=")[0] for x in options}
        for part in ("--set", o)
    ]
    command = [
        "run",
        "--detector",
        "side",
        "--task",
        "sd_webster",
        "--limit",
        "2",
        "--quiet",
        "--runs",
        str(tmp_path),
    ]
    assert main([*command, "--model", str(tiny_pipeline_folder), *small, *settings]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize("make", [Side, CarliniConditional, SidePrompts])
def test_a_batch_is_one_that_can_be_normalised(make: Any) -> None:
    with pytest.raises(UserError, match="batch must be int from 2, not '1'"):
        parse_options(make.Options, ["batch=1"], owner="detector side")


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf])
def test_options_made_in_python_are_checked_too(value: float) -> None:
    with pytest.raises(ValueError, match="lambda is a finite number >= 0"):
        Side.Options(guidance=value)
    with pytest.raises(ValueError, match=r"lies in \[-1, 1\]"):
        Side.Options(cohesion=-1.5)
    with pytest.raises(ValueError, match=r"lies in \(0, 1\]"):
        Side.Options(keep=value if value != math.inf else 0.0)


@pytest.mark.parametrize("make", [Side, CarliniConditional])
def test_other_files_under_the_same_name_are_another_run(make: Any, tmp_path: Path) -> None:
    """Of a teacher and of weights: their hashes are part of a run's key."""

    def reads(**options: Any) -> dict[str, str]:
        made = make(make.Options(**options), seed=0, sampling=SAMPLING)
        return dict(made.reads)

    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"1")
    teacher = {"labels": "teacher", "teacher": str(tmp_path)}
    before = reads(**teacher)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert before.keys() == {"teacher"} and reads(**teacher) != before
    (weights := tmp_path / "w.safetensors").write_bytes(b"1")
    for how in (
        {"features": "sscd", "features_weights": str(weights)},
        {"features": "clip", "features_weights": f"ViT-B-32:{weights}"},
    ):
        before = reads(**how)
        weights.write_bytes(weights.read_bytes() + b"2")
        assert before.keys() == {"features_weights"} and reads(**how) != before
    assert not reads() and not reads(features="sscd", features_weights="disc_mixup")


@pytest.mark.parametrize("make", [Side, CarliniConditional])
def test_clusters_follow_the_number_of_synthetic_images(make: Any) -> None:
    """K = N_syn / 16 unless it is given; one that could not have min_members images
    each is refused.
    """
    assert (
        make.Options().k == 100
        and make.Options(synthetic=400).k == 25
        and make.Options(synthetic=10).k == 1
    )
    assert make.Options(synthetic=400, clusters=80).k == 80
    with pytest.raises(
        ValueError,
        match=(
            "clusters=81 of at least min_members=5 images need synthetic=405, not 400; raise"
            " synthetic"
        ),
    ):
        make.Options(synthetic=400, clusters=81)
    with pytest.raises(
        ValueError, match="clusters=1 of at least min_members=5 images need synthetic=5, not 4"
    ):
        make.Options(synthetic=4)


@pytest.mark.parametrize("surrogate", ["lora", "classifier"])
def test_train_on_kept_leaves_out_the_images_of_dropped_clusters(
    model: LatentDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surrogate: str
) -> None:
    seen: dict[str, Any] = {}
    name, module = f"train_{surrogate}", {"lora": lora, "classifier": classifier}[surrogate]
    real = getattr(module, name)

    def watch(model: Any, synthetic: Any, *args: Any, **settings: Any) -> Any:
        seen["x0"], seen["key"] = synthetic.x0, synthetic.stage.key
        return real(model, synthetic, *args, **settings)

    monkeypatch.setattr(module, name, watch)
    monkeypatch.setattr(
        surrogate_labels,
        "describe",
        lambda *_, **__: np.repeat(np.eye(3, dtype=np.float32), [3, 4, 5], axis=0),
    )
    common = {"surrogate": surrogate, "min_members": 4}
    whole, _ = prepared(model, tmp_path, **common, train_on="all")
    assert len(whole.x0) == len(seen["x0"]) == 12 and sorted(set(whole.labels.tolist())) == [0, 1]
    before = seen["key"]
    some, _ = prepared(model, tmp_path, **common)
    assert (
        torch.equal(some.x0, whole.x0[3:])
        and torch.equal(seen["x0"], whole.x0[3:])
        and seen["key"] != before
    )
    assert torch.bincount(some.labels).sort().values.tolist() == [4, 5]


def test_no_cluster_left_stops_and_says_the_values(small_task: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no cluster reaches cohesion 1, .*the highest of 3: \d\.\d{3}"
    ) as error:
        options = [*SMALL_SET, "cohesion=1"]
        membench.run(
            "side",
            "sd_webster",
            options=options,
            task_options=small_task,
            limit=2,
            out=tmp_path,
            progress=False,
        )
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("run.json"))


def test_a_model_without_a_null_condition_is_refused(model: LatentDenoiser, tmp_path: Path) -> None:
    model.has_null = False
    with pytest.raises(
        UserError, match="no null condition to sample from; choose source=conditions"
    ):
        prepared(model, tmp_path)
    prepared(model, tmp_path, source="conditions")


def test_a_weight_that_guides_nothing_is_refused(model: LatentDenoiser) -> None:
    lora, guided = (
        Side(Side.Options(guidance=3.0, surrogate=surrogate), seed=0, sampling=SAMPLING)
        for surrogate in ("auto", "classifier")
    )
    with pytest.raises(UserError, match=r"guidance=3\.0: surrogate=lora has no classifier"):
        lora.check(model, CONDITIONS)
    guided.check(model, CONDITIONS)


def test_pixel_models_get_a_classifier_and_refuse_lora(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )
    model = PixelDenoiser(unet, DDIMScheduler(), shape=(3, 16, 16))
    detector, workspace = prepared(model, tmp_path)
    assert detector._kind(model) == "classifier" and workspace.cost.surrogate_backwards == 8
    samples = detector.extract(model, detector.plan([]))
    assert samples[0].image.shape == (16, 16, 3) and all(
        math.isfinite(s.confidence) for s in samples
    )
    spent = dataclasses.replace(model.cost)
    for options, text in (
        ({"surrogate": "lora"}, "surrogate=lora needs a text-to-image model"),
        ({"labels": "teacher", "teacher": "nowhere"}, "teacher=nowhere: config.json is missing"),
    ):
        side = Side(Side.Options(**{**SMALL, **options}), seed=0, sampling=SAMPLING)
        with pytest.raises(UserError, match=text):
            side.check(model, CONDITIONS)
    assert model.cost == spent  # before an image is generated


def test_the_papers_preset() -> None:
    options = parse_options(
        Side.Options, ["clusters=7"], owner="detector side", base=Side.presets["paper"]
    )
    assert (options.clusters, options.cohesion, options.lora_rank, options.lora_rate) == (
        7,
        0.5,
        512,
        1e-5,
    )
    assert (options.keep, options.min_members, options.train_on) == (1.0, 1, "all")  # tau alone
    assert (options.classifier_rate, options.blocks, options.features) == (
        1e-4,
        (3, 4, 6, 3),
        "sscd",
    )
    assert Side.presets["paper"]["clusters"] == 100


def test_presets_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "side"]) == 0
    shown = capsys.readouterr().out
    assert "preset paper" in shown and "clusters=100" in shown and "lora_rank=512" in shown
    assert main(["run", "--detector", "side", "--task", "sd_webster", "--preset", "papr"]) == 2
    assert "paper" in capsys.readouterr().err
    assert main(["run", "--detector", "cfg_norm", "--task", "sd_webster", "--preset", "paper"]) == 2
    assert "no presets" in capsys.readouterr().err


def test_another_models_surrogate_is_refused(model: LatentDenoiser, tmp_path: Path) -> None:
    """A folder renamed to the key that this model's surrogate would have."""
    prepared(model, tmp_path)
    mine = next(tmp_path.glob("lora-*"))
    parts = json.loads((mine / "parts.json").read_text())
    (mine / "parts.json").write_text(json.dumps(parts | {"weights": "another model's"}))
    with pytest.raises(UserError, match="was prepared with other weights; delete it and run again"):
        prepared(model, tmp_path)
