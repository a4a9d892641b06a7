"""The prepared first runs with real weights, end to end on tiny stand-ins: the shipped
configurations, unchanged, on models and prompts in the hub's and the cache's layouts.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import PNDM, ROOT, pixel_unet, save_tiny_pipeline
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    LDMPipeline,
    UNet2DConditionModel,
)
from test_celeba_data import celeba
from test_cifar10_data import declare, fake
from test_foreign_pixels import decoder
from test_sd_webster_full import no_sockets

from membench import api
from membench.boards import published_table
from membench.boards.published import read
from membench.boards.reproduced import judged
from membench.cli.main import main
from membench.datasets import known_sets
from membench.detectors import references
from membench.models.checkpoints import CHECKPOINTS
from membench.options import detector_options
from membench.registry import detectors
from membench.runs.config import read_config
from membench.runs.finished import load
from membench.runs.spec import Spec
from membench.tasks.sd_webster.sets import WORDS

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MEMORIZED = ["THE NO LIMITS Podcast", "SHAW FLOORS 00104", "SHAW FLOORS 00204"]
OTHERS = ["a mug on a table", "soaring by peter eades", "two boats at sea"]


def stand_in(folder: Path, prediction: str = "epsilon") -> Path:
    """The first two blocks of Stable Diffusion 1 and 2, which have the layers that
    detectors name, 8 channels wide.
    """
    save_tiny_pipeline(folder, prediction)
    torch.manual_seed(1)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,) * 2,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=2,
    ).save_pretrained(folder / "unet")
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(PNDM | {"prediction_type": prediction})
    )
    return folder


def in_the_hub(cache: Path, repo_id: str, revision: str, made: Path) -> None:
    """A folder as snapshot_download leaves a repository at a commit."""
    home = cache / f"models--{repo_id.replace('/', '--')}"
    shutil.copytree(made, home / "snapshots" / revision)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with a hub and a cache of membench's own, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    no_sockets(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prompts_at_hand(
    place: Path, monkeypatch: pytest.MonkeyPatch, memorized: str, n: int = 3
) -> None:
    """n prompts of the known set ``memorized`` and of the known sets of negatives, in the
    cache, a user's own file of negatives, and the published numbers of as many.
    """
    cache = place / "cache" / "prompts"
    cache.mkdir(parents=True)
    for name in (memorized, "laion", "gustavosta"):
        prompts = (MEMORIZED if name == memorized else OTHERS)[:n]
        text = "\n".join(prompts) + "\n"
        known = replace(
            known_sets.KNOWN[name],
            file=f"{name}.txt",
            url=f"https://example.org/{name}.txt",
            repo="",
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            rows=len(prompts),
            texts="",
        )
        monkeypatch.setitem(known_sets.KNOWN, name, known)
        (cache / known.file).write_text(text)
    frame = pd.read_csv(ROOT / "results" / "published.csv", dtype=str, keep_default_na=False)
    counted = frame.n_positive != ""
    frame.loc[counted, ["n_positive", "n_negative"]] = [str(n), str(n)]
    frame.to_csv(place / "published.csv", index=False)
    monkeypatch.setattr(published_table, "PUBLISHED", place / "published.csv")
    for file in ("sd1_nmem.txt", "sd2_nmem.txt"):
        (place / file).write_text("\n".join(OTHERS[:n]))


@pytest.fixture
def stand_ins(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With everything that configs/sd14_hintersdorf.yaml names."""
    in_the_hub(place / "hub", *CHECKPOINTS["sd-1.4"].places[0], stand_in(place / "made"))
    prompts_at_hand(place, monkeypatch, "hintersdorf")
    return place


def cheap(config: Path, to: Path) -> Path:
    """The configuration with one step and one draw at most, in float32: what is left of
    it is as it ships.
    """
    blocks = yaml.safe_load(config.read_text())["runs"]
    for block in blocks:
        block.pop("dtype", None)
        block["detectors"] = [
            item
            for item in block["detectors"]
            if item == "caption_case" or item.get("cfg_norm", {}).get("steps") == 1
        ]
    to.write_text(yaml.safe_dump({"runs": [b for b in blocks if b["detectors"]]}))
    return to


def test_from_the_configuration_to_the_sentence(
    stand_ins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three prompts nothing can be said: not of a guidance norm, and not of capitals,
    which tell memorized from others without an error.
    """
    file = cheap(ROOT / "configs" / "sd14_hintersdorf.yaml", stand_ins / "cheap.yaml")
    words = ["run", "--config", str(file), "--device", "cpu", "--runs", str(stand_ins / "runs")]
    assert main([*words, "--offline"]) == 0
    out = capsys.readouterr().out
    verdicts = re.findall(
        r"^(.+?) +(AUROC|TPR@1%FPR) +(0\.\d+) +.*?([a-z][a-z ]+)$", out, flags=re.M
    )
    assert [(words.split()[0], *rest) for words, *rest in verdicts] == [
        ("caption_case", "AUROC", "0.989", "cannot be judged"),
        *[
            ("cfg_norm", "AUROC", value, "cannot be judged")
            for value in ("0.976", "0.992", "0.990")
        ],
        ("caption_case", "AUROC", "0.794", "cannot be judged"),
    ]
    wide = re.findall(r"(\d+) of [a-z_, ]+: our interval \[[^]]+\] is wider than 0\.1", out)
    assert sum(map(int, wide)) == 5  # all of them
    assert "12 of cfg_norm: no run has their options" in out  # 5 and 50 steps were left out
    assert "cannot be judged: " in out and "not reproduced" not in out
    # Asked again it finds the runs, and says the same
    assert main(["leaderboard", "--by", "published", "--runs", str(stand_ins / "runs")]) == 0
    [line] = [x for x in capsys.readouterr().out.splitlines() if " 0.989 / 0.934" in x]
    assert "cannot be judged" in line


# --------------------------------------------------------------- each configuration whole


def shortened(config: Path, to: Path, *fewer: tuple[str, str]) -> Path:
    """The configuration with fewer images, and nothing else of it changed."""
    text = config.read_text()
    for given, lower in fewer:
        assert given in text
        text = text.replace(given, lower)
    to.write_text(text)
    return to


def runs_of(place: Path, config: Path) -> pd.DataFrame:
    """Runs of the whole configuration: a row a run, of what a board has. Without their
    pages, which the first test here writes, and with few reference prompts.
    """
    words = ["run", "--config", str(config), "--device", "cpu", "--offline"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "write_pages", lambda runs: None)
        patch.setattr(references, "NEUTRAL", references.NEUTRAL[:3])
        assert main([*words, "--runs", str(place / "runs")]) == 0
    found = [load(p.parent) for p in sorted((place / "runs").rglob("run.json"))]
    assert len(found) == sum(len(part) for part in read_config(config))
    assert all(run.info["failed"] == {"samples": 0, "scores": 0} for run in found)
    return pd.DataFrame(
        [
            {
                "detector": run.info["detector"],
                "dtype": run.info["dtype"],
                "scored": len(run.scores),
                "extracted": len(run.samples),
                "finite": bool(np.isfinite(run.scores.score).all()),
            }
            for run in found
        ]
    )


@pytest.mark.parametrize(
    ("config", "model", "memorized", "runs"),
    [
        ("sd14_hintersdorf", "sd-1.4", "hintersdorf", 29),
        ("sd2_ren", "sd-2", "ren-sd2", 19),
        ("sd21_ren", "sd-2.1", "ren-sd2", 6),
    ],
)
def test_stable_diffusion_whole(
    config: str,
    model: str,
    memorized: str,
    runs: int,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every detector, step and dtype as it ships, on a prompt of each label, with 5
    draws for 16; published numbers of the model get their sentence.
    """
    entry = CHECKPOINTS[model]
    in_the_hub(place / "hub", *entry.places[0], stand_in(place / "made", entry.prediction))
    prompts_at_hand(place, monkeypatch, memorized, 1)
    file = ROOT / "configs" / f"{config}.yaml"
    many = [("draws: 16", "draws: 5")] if "draws: 16" in file.read_text() else []
    found = runs_of(place, shortened(file, place / "short.yaml", *many))
    assert len(found) == runs and found.finite.all() and set(found.scored) == {2}
    out = capsys.readouterr().out
    assert "reproduced: " in out or "cannot be judged: " in out


def runs_of_images(place: Path, repo_id: str, config: str, *fewer: tuple[str, str]) -> pd.DataFrame:
    """The same of a model of images that lies in ``made``, with fewer images."""
    in_the_hub(place / "hub", repo_id, "0" * 40, place / "made")
    short = shortened(ROOT / "configs" / f"{config}.yaml", place / "short.yaml", *fewer)
    found = runs_of(place, short).set_index("detector")
    assert found.finite.all()
    return found


def test_pixel_model_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """google/ddpm-cifar10-32's layout: a pipeline without conditions, no training.json."""
    declare(monkeypatch, fake(place / "data"))
    DDPMPipeline(pixel_unet(32), DDPMScheduler(clip_sample=True)).save_pretrained(place / "made")
    found = runs_of_images(
        place,
        "google/ddpm-cifar10-32",
        "ddpm_cifar10_32",
        ("generations: 10000", "generations: 8"),
        ("data_root: data}", "data_root: data, pool: 8}"),
    )
    assert set(found.index) == {"representation", "score_norm", "flipd", "random"}
    assert found.extracted["random"] == 8


def test_latent_model_whole(place: Path) -> None:
    """CompVis/ldm-celebahq-256's layout: latents of 64 pixels, decoded by codes to 256."""
    celeba(place / "data" / "celeba")
    LDMPipeline(
        vqvae=decoder("vq"),
        unet=pixel_unet(64),
        scheduler=DDIMScheduler(
            beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False
        ),
    ).save_pretrained(place / "made", safe_serialization=True)
    found = runs_of_images(
        place,
        "CompVis/ldm-celebahq-256",
        "ldm_celeba",
        ("generations: 5120", "generations: 4"),
        ("size: 256}", "size: 256, pool: 4}"),
    )
    assert set(found.index) == {"representation", "score_norm", "random"}
    assert found.extracted["random"] == 4


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.stem)
def test_every_configuration_reads(config: Path) -> None:
    assert len(CONFIGS) == 5
    assert all(spec.profile == "full" for part in read_config(config) for spec in part)


def test_every_published_number_of_their_models_is_asked_for() -> None:
    """With options, model and sets as the table words them, but for what is open."""
    specs = [s for c in CONFIGS if c.stem.startswith("sd") for p in read_config(c) for s in p]
    board = pd.DataFrame([as_row(spec) for spec in specs])
    found = judged(read(ROOT / "results" / "published.csv"), board)
    found = found[found.asked & found.detector.isin(board.detector)]
    assert len(found) > 80
    missing = found[found.why.str.startswith("no run has")]
    assert missing.empty, missing[["model", "data", "detector", "options", "why"]].to_string()


def as_row(spec: Spec) -> dict[str, Any]:
    """What a board would say of a run of it, without its numbers."""
    task = dict(setting.partition("=")[::2] for setting in spec.task_options)
    cls = detectors().load(spec.detector)
    options = detector_options(spec.detector, cls, spec.options, spec.preset, spec.profile)
    sets = task.get("sets") or " vs ".join(
        WORDS.get(task[role], task[role]) for role in ("prompts", "negatives")
    )
    return {
        "task": spec.task,
        "profile": "full",
        "detector": spec.detector,
        "model": CHECKPOINTS[task["model"]].repo_id,
        "data_name": sets,
        "resolved": json.dumps(asdict(options)),
        "space": "none",
    }
