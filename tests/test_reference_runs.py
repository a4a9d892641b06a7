"""A run of a changed model against a reference set, from end to end through the command
line's own doors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_models import save_lora
from test_sd_webster_full import REVISION, at_hub, full, hub, sscd  # noqa: F401 - fixtures

from membench.cli import main
from membench.features.loading import load_features
from membench.models.latent import load_text_to_image
from membench.reports import run_summary
from membench.storage.images import png_image


def test_a_lora_against_descriptors(at_hub: Path, hub: Path, sscd: Path) -> None:  # noqa: F811
    """The descriptors of the run's own images, planted in a set, come back; by an index
    no more than by exact search, which says so.
    """
    pytest.importorskip("faiss")
    folder = hub / "models--tiny--sd-v" / "snapshots" / REVISION
    lora = save_lora(at_hub / "a.safetensors", load_text_to_image(folder), {"unet": ("to_q",)})
    task = ("steps=2", f"lora={lora}:0.5", "criterion=sscd", f"criterion_weights={sscd}")
    first = full(at_hub, "random", "tiny/sd-v", "draws=2", task=task)
    plain = full(at_hub, "random", "tiny/sd-v", "draws=2", task=("steps=2",))
    assert first.path != plain.path and set(first.samples.status) == {"not compared"}
    assert first.info["model_name"].endswith(" + a.safetensors:0.5")
    features = load_features("sscd", str(sscd))
    images = np.stack([png_image(png) for png in first.images(first.samples.sample_id).values()])
    rng = np.random.default_rng(0)
    known = rng.standard_normal((600, 16)).astype(np.float32)
    known[100 : 100 + len(images)] = features(images)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    np.save(at_hub / "set.npy", known)
    (at_hub / "set.json").write_text(json.dumps({"features": features.id}))
    reference = f"reference={at_hub / 'set.npy'}"
    exact = full(at_hub, "random", "tiny/sd-v", "draws=2", task=(*task, reference))
    nearest = exact.matches[exact.matches["rank"] == 0]
    assert (nearest.similarity > 0.999).all() and set(exact.samples.status) == {"ok"}
    assert "exact search of 600 descriptors" in exact.info["space"]["source"]
    assert "600 descriptors, exact search" in (exact.path / "report.html").read_text()
    about = full(
        at_hub,
        "random",
        "tiny/sd-v",
        "draws=2",
        task=(*task, reference, "reference_search=ivfpq", "reference_probes=2"),
    )
    assert about.path != exact.path and about.info["space"]["id"].endswith("/ivfpq")
    keys = ["sample_id", "training_id"]
    both = about.matches.merge(exact.matches, on=keys)
    assert len(both) >= len(about.matches) - len(images) and np.allclose(
        both.similarity_x, both.similarity_y
    )
    told = run_summary.run_summary(about)
    assert "counts are lower bounds" in told and about.info["provenance"]["reference"]["recall"] > 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["lora=no.safetensors"], "lora=no.safetensors is not there"),
        (["reference=no.npy"], "reference=no.npy is no file of descriptors"),
        (["reference=a.npy", "ground_truth=urls"], "exclude each other"),
        (["variant=ema"], "variant=ema: membench knows"),
    ],
)
def test_bad_input_is_one_line(
    at_hub: Path,  # noqa: F811
    sscd: Path,  # noqa: F811
    capsys: Any,
    settings: list[str],
    told: str,
) -> None:
    files = {"prompts": at_hub / "memorized.csv", "negatives": at_hub / "others.csv"}
    given = [f"criterion_weights={sscd}", *(f"{k}={v}" for k, v in files.items()), *settings]
    words = ["run", "--detector", "random", "--task", "sd_webster", "--profile", "full"]
    words += ["--model", "tiny/sd-v", "--runs", str(at_hub / "runs")]
    assert main.main([*words, *(w for s in given for w in ("--set", f"sd_webster.{s}"))]) == 2
    err = capsys.readouterr().err
    assert told in err and len(err.strip().splitlines()) == 1, err
