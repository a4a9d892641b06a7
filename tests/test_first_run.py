"""The prepared first runs with real weights, end to end on tiny stand-ins: the shipped
configurations, unchanged, on models and prompts in the hub's and the cache's layouts.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from conftest import PNDM, ROOT, save_tiny_pipeline
from diffusers import UNet2DConditionModel
from test_sd_webster_full import no_sockets

from membench.boards import published_table
from membench.boards.published import read
from membench.boards.reproduced import judged
from membench.cli.main import main
from membench.datasets import known_sets
from membench.models.checkpoints import CHECKPOINTS
from membench.options import detector_options
from membench.registry import detectors
from membench.runs.config import read_config
from membench.runs.spec import Spec
from membench.tasks.sd_webster.sets import WORDS

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MEMORIZED = ["THE NO LIMITS Podcast", "SHAW FLOORS 00104", "SHAW FLOORS 00204"]
OTHERS = ["a mug on a table", "soaring by peter eades", "two boats at sea"]
SETS = {"hintersdorf": MEMORIZED, "laion": OTHERS, "gustavosta": OTHERS}


def stand_in(folder: Path) -> Path:
    """The blocks and layers of Stable Diffusion 1.4, 8 channels wide."""
    save_tiny_pipeline(folder, "epsilon")
    torch.manual_seed(1)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,) * 4,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=2,
    ).save_pretrained(folder / "unet")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(PNDM))
    return folder


def in_the_hub(cache: Path, short: str, made: Path) -> None:
    """A folder as snapshot_download leaves a known checkpoint at its commit."""
    repo_id, revision = CHECKPOINTS[short].places[0]
    home = cache / f"models--{repo_id.replace('/', '--')}"
    shutil.copytree(made, home / "snapshots" / revision)


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, with everything that configs/sd14_hintersdorf.yaml names."""
    from huggingface_hub import constants

    hub, cache = tmp_path / "hub", tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("MEMBENCH_CACHE", str(cache))
    no_sockets(monkeypatch)
    in_the_hub(hub, "sd-1.4", stand_in(tmp_path / "made"))
    for name, prompts in SETS.items():
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
        (cache / "prompts").mkdir(parents=True, exist_ok=True)
        (cache / "prompts" / known.file).write_text(text)
    (tmp_path / "sd1_nmem.txt").write_text("\n".join(OTHERS))
    frame = pd.read_csv(ROOT / "results" / "published.csv", dtype=str, keep_default_na=False)
    counted = frame.n_positive != ""
    frame.loc[counted, ["n_positive", "n_negative"]] = ["3", "3"]
    frame.to_csv(tmp_path / "published.csv", index=False)
    monkeypatch.setattr(published_table, "PUBLISHED", tmp_path / "published.csv")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


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
    """The stand-ins' capitals tell memorized from others without an error, which no
    published number says; nothing can be said of a guidance norm on three prompts.
    """
    file = cheap(ROOT / "configs" / "sd14_hintersdorf.yaml", stand_ins / "cheap.yaml")
    words = ["run", "--config", str(file), "--device", "cpu", "--runs", str(stand_ins / "runs")]
    assert main([*words, "--offline"]) == 0
    out = capsys.readouterr().out
    verdicts = re.findall(
        r"^(.+?) +(AUROC|TPR@1%FPR) +(0\.\d+) +.*?([a-z][a-z ]+)$", out, flags=re.M
    )
    assert [(words.split()[0], *rest) for words, *rest in verdicts] == [
        ("caption_case", "AUROC", "0.989", "not reproduced"),
        *[
            ("cfg_norm", "AUROC", value, "cannot be judged")
            for value in ("0.976", "0.992", "0.990")
        ],
        ("caption_case", "AUROC", "0.794", "not reproduced"),
    ]
    assert "3 of cfg_norm: our interval [" in out and "is wider than 0.1" in out
    assert "12 of cfg_norm: no run has their options" in out  # 5 and 50 steps were left out
    assert "not reproduced: none of 2 published numbers; cannot be judged: " in out
    # Asked again it finds the runs, and says the same; a number that is ours is reproduced
    frame = pd.read_csv(stand_ins / "published.csv", dtype=str, keep_default_na=False)
    frame.loc[frame.value == "0.989", "value"] = "1.000"
    frame.to_csv(stand_ins / "published.csv", index=False)
    assert main(["leaderboard", "--by", "published", "--runs", str(stand_ins / "runs")]) == 0
    [line] = [x for x in capsys.readouterr().out.splitlines() if " 1 / 0.934" in x]
    assert line.rstrip().endswith("was not measured") and " reproduced; TPR@1%FPR" in line


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
