"""Whether PIA tells memorized images where what it takes for noise tells them already.

PIA (``membership``) takes the prediction at the unnoised image, of timestep 0, for noise,
and measures how far the prediction at t = 200 is from it. Here the first prediction is
made at later timesteps, too. Beside it: SimA, which is the size of that prediction alone.
On the mini models, both halves, images shown 16 and 64 times against those of the other
half.

    python benchmarks/first_prediction.py [--output FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from membench import registry
from membench.detectors.membership import Membership, MembershipOptions
from membench.models.denoiser import Denoiser
from membench.reports.output import markdown
from membench.types import Example

TASKS = ("cifar10", "celeba")
FIRST = (0, 20, 50, 100, 200)
KINDS = ("x16", "x64")


def rows(task: str, half: str) -> Iterator[dict[str, object]]:
    """A row a first timestep: AUROC of PIA and SimA, and the mean L2 norm of the first
    prediction at memorized and at other images.
    """
    task_class = registry.tasks().load(task)
    loaded = task_class(task_class.Options(half=half)).load("mini")
    examples = [e for e in loaded.examples if e.kind in KINDS]
    memorized = np.array([e.memorized for e in examples], bool)
    model = loaded.model()
    for first, pia, sima, norm in measured(model, examples, loaded.info.sampling):
        of = {"pia": -pia, "sima": -sima}
        yield {
            "task": task,
            "half": half,
            "weights": str(loaded.hashes["weights"])[:8],
            "first": first,
            "memorized": int(memorized.sum()),
            "others": int((~memorized).sum()),
            **{name: float(roc_auc_score(memorized, score)) for name, score in of.items()},
            "norm_memorized": float(norm[memorized].mean()),
            "norm_others": float(norm[~memorized].mean()),
            "norm_noise": float(np.prod(model.shape)) ** 0.5,
        }


def measured(
    model: Denoiser, examples: list[Example], sampling: Mapping[str, Any]
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """(first timestep, PIA's error, SimA's error, norm of the first prediction), [n] each."""
    detector = Membership(MembershipOptions(images=0), seed=0, sampling=sampling)
    conditions = [e.condition for e in examples]
    told = detector.told(model, conditions)
    z = model.encode(np.stack([c.image for c in conditions if c.image is not None]))
    alpha, sigma = model.alpha_sigma(detector.t)
    for timestep in FIRST:
        first = model.eps(z, timestep, told)
        pia = detector.error(first - model.eps(alpha * z + sigma * first, detector.t, told))
        if not timestep:
            assert torch.equal(pia, detector.pia(model, z, told)), "not what the detector does"
        norm = first.flatten(1).norm(dim=1)
        yield timestep, pia.numpy(), detector.error(first).numpy(), norm.numpy()


def tabulated(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a task and first timestep, the mean of both halves."""
    names = ["pia", "sima", "norm_memorized", "norm_others", "norm_noise"]
    mean = frame.groupby(["task", "first"], sort=False)[names].mean().reset_index()
    return pd.DataFrame(
        {
            "task": mean.task,
            "first prediction at t": mean["first"],
            "PIA": mean.pia.map("{:.3f}".format),
            "SimA at that t": mean.sima.map("{:.3f}".format),
            "norm, memorized": mean.norm_memorized.map("{:.0f}".format),
            "others": mean.norm_others.map("{:.0f}".format),
            "noise": mean.norm_noise.map("{:.0f}".format),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, help="every row, as Parquet")
    args = parser.parse_args()
    with torch.inference_mode():
        frame = pd.DataFrame(
            [row for task in TASKS for half in ("a", "b") for row in rows(task, half)]
        )
    if args.output:
        frame.to_parquet(args.output)
    print(markdown(tabulated(frame)))


if __name__ == "__main__":
    main()
