"""update_norm and the reference prompts that it compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from membench.datasets.prompts import example_id
from membench.detectors.references import NEUTRAL
from membench.detectors.update_norm import UpdateNorm
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import timesteps
from membench.runs.execute import execute_all
from membench.runs.finished import per_example
from membench.runs.spec import Spec
from membench.seeds import seed_of
from membench.storage.workspace import Workspace
from membench.testing import tiny_pixel_model, tiny_text_model
from membench.types import Condition

SAMPLING = {"steps": 4, "guidance": 2.0}
CONDITIONS = [Condition("p", "Norlund teal rug"), Condition("q", "a red mug")]
TEXTS = ["a bench", "two cups", "a cat", "some rain"]
SEED = 2


def make(**options: Any) -> UpdateNorm:
    return UpdateNorm(UpdateNorm.Options(**options), seed=SEED, sampling=SAMPLING)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "references.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return str(path)


def slow_updates(model: Denoiser, c: Condition, steps: int, guidance: float) -> np.ndarray:
    """|| z_t - z_{t+1} || by DDIM written out, of one noise."""
    x = torch.randn(model.shape, generator=torch.Generator().manual_seed(seed_of(SEED, c.id, 0)))
    x, told = x[None], model.condition([c])
    times, norms = timesteps(model, steps), []
    for t, before in zip(times, [*times[1:], None], strict=True):
        alpha, sigma = model.alpha_sigma(t)
        abar = float(
            model.scheduler.final_alpha_cumprod if before is None else model.alphas_cumprod[before]
        )
        null, conditional = model.eps(x, t, model.null_like(told, 1)), model.eps(x, t, told)
        eps = null + guidance * (conditional - null)
        moved = abar**0.5 * (x - sigma * eps) / alpha + (1 - abar) ** 0.5 * eps
        norms.append(float((x - moved).double().norm()))
        x = moved
    return np.array(norms)


@pytest.mark.parametrize(("statistic", "steps"), [("max", 50), ("mean", 50), ("max", 3)])
def test_update_norms_are_standardised_by_the_references(file, workspace, statistic, steps) -> None:
    model = tiny_text_model()
    detector = make(statistic=statistic, steps=steps, references=file, trajectory=8, images=0)
    detector.check(model, CONDITIONS)
    told = detector.prepare(model, CONDITIONS, workspace)
    first = min(steps, 8)
    assert told == {"references": f"4 prompts, {file}"}
    assert model.cost.forwards == workspace.cost.forwards == 4 * first * 2
    assert detector.preparation_forwards(model, CONDITIONS) == 4 * first * 2
    found = detector.score(model, CONDITIONS, {})
    assert model.cost.forwards == (4 + 2) * first * 2
    references = [Condition(example_id(text), text) for text in TEXTS]
    usual = np.array([slow_updates(model, c, 8, 7.5)[:first] for c in references])
    for c, value in zip(CONDITIONS, found, strict=True):
        norms = slow_updates(model, c, 8, 7.5)[:first]
        r = np.abs(norms - usual.mean(axis=0)) / usual.std(axis=0, ddof=1)
        assert value == pytest.approx(r.max() if statistic == "max" else r.mean(), rel=1e-3)


def test_each_trajectory_has_references_of_its_own_and_they_are_made_once(file, workspace) -> None:
    model = tiny_text_model()
    detector = make(references=file, trajectory=8)
    detector.prepare(model, CONDITIONS, workspace)
    assert sorted(detector.usual) == [(4, 2.0), (8, 7.5)]
    assert model.cost.forwards == 4 * 2 * (8 + 4) == workspace.cost.forwards
    again, other = make(references=file, trajectory=8), Workspace(workspace.root, {"weights": "w"})
    again.prepare(model, CONDITIONS, other)
    assert model.cost.forwards == other.cost.forwards == 4 * 2 * (8 + 4)
    for way, (mean, spread) in detector.usual.items():
        assert torch.equal(again.usual[way][0], mean) and torch.equal(again.usual[way][1], spread)
    requests = again.plan(CONDITIONS)
    [sample, *_] = again.extract(model, requests)
    mean, spread = again.usual[4, 2.0]
    r = np.abs(slow_updates(model, CONDITIONS[0], 4, 2.0) - mean.numpy()) / spread.numpy()
    assert sample.confidence == pytest.approx(r.max(), rel=1e-3)


def test_plain_norms_look_at_no_reference(workspace) -> None:
    detector = make(statistic="plain")
    assert not detector.access.references and make().access.references
    assert detector.prepare(tiny_text_model(), CONDITIONS, workspace) == {}
    assert detector.preparation_forwards(tiny_text_model(), CONDITIONS) == 0


def test_the_neutral_list_is_fifty_different_prompts() -> None:
    assert len(set(NEUTRAL)) == len(NEUTRAL) == 50
    assert make().prompts == NEUTRAL and not make().reads


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("r.csv", "prompt,label\na bench,0\nA Red  MUG,1\n", "calls 1 prompt memorized .line 3"),
        ("r.csv", "prompt,kind\na bench,N\na cup,MV\na cat,TV\n", "calls 2 prompts memorized"),
        ("r.txt", "a bench\na RED  mug\n", "1 reference prompt is an example of this task"),
        ("r.txt", "a red mug\nNorlund teal rug\n", "2 reference prompts are examples"),
        ("r.txt", "a bench\n", "1 prompt; give at least 2"),
        ("r.txt", "", "is empty"),
        (None, "", "does not exist"),
    ],
)
def test_references_that_may_be_memorized_are_refused_in_one_line(tmp_path, name, text, says):
    path = tmp_path / (name or "none.txt")
    if name:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says) as caught:
        make(references=str(path)).check(tiny_text_model(), CONDITIONS)
    assert "\n" not in str(caught.value)


def test_a_model_of_classes_has_no_reference_prompts() -> None:
    conditions = [Condition("c", class_label=0)]
    with pytest.raises(UserError, match="takes none; choose statistic=plain"):
        make().check(tiny_pixel_model(), conditions)
    make(statistic="plain").check(tiny_pixel_model(), conditions)
    with pytest.raises(UserError, match="references=x: statistic=plain compares with nothing"):
        make(statistic="plain", references="x").check(tiny_pixel_model(), conditions)


def test_references_that_are_all_alike_compare_with_nothing(file, workspace, monkeypatch) -> None:
    model = tiny_text_model()
    told = model.condition
    monkeypatch.setattr(model, "starts", lambda rows, seed: torch.ones(len(rows), *model.shape))
    monkeypatch.setattr(model, "condition", lambda c: told([Condition("one", "one")] * len(c)))
    with pytest.raises(UserError, match="all alike, so nothing can be compared"):
        make(references=file, trajectory=4).prepare(model, CONDITIONS, workspace)


# -------------------------------------------------------------------------------- a run


def test_a_run_pays_for_its_references_and_shares_the_rest(
    tiny_pipeline_folder: Path, tmp_path: Path, file: str
) -> None:
    """Beside cfg_norm on its trajectories; a file of other prompts is another run."""

    def spec(detector: str, *options: str) -> Spec:
        task = [f"model={tiny_pipeline_folder}"]
        return Spec(detector, "sd_webster", options=options, limit=3, task_options=task)

    options = ("trajectory=4", "images=0", f"references={file}")
    both = [spec("cfg_norm", "draws=1", "steps=4", "trajectory=4", "images=0")]
    both.append(spec("update_norm", *options))
    norm, run = execute_all(both, tmp_path, progress=False).runs
    assert run.info["access"]["references"] and "references" not in norm.info["access"]
    assert run.info["phases"]["prepare"]["forwards"] == 4 * 4 * 2
    assert run.info["phases"]["scores"]["forwards"] == 3 * 4 * 2
    assert run.info["phases"]["scores"]["shared"] == 3 * 4 * 2
    assert "prepare" not in norm.info["phases"] and "prepared" not in norm.info
    assert per_example(run, "forwards") == (4 + 3) * 4 * 2 / 3
    Path(file).write_text("a bench\ntwo other cups\n", encoding="utf-8")
    other = execute_all([spec("update_norm", *options)], tmp_path, progress=False).runs[0]
    assert other.path != run.path and other.info["phases"]["prepare"]["forwards"] == 2 * 4 * 2
