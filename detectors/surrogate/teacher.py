"""A given time-independent classifier, whose output SIDE's first version distils into
its time-dependent one.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.loading import loading, read_config, refuse_quantised_config
from membench.models.weight_files import check_tensors
from membench.storage.hashing import file_hash, json_hash
from membench.storage.workspace import Workspace
from membench.types import Cost

from .conditions import BLOCK, Synthetic, read_tensors, write_tensors


def teach(model: Denoiser, synthetic: Synthetic, workspace: Workspace, folder: str) -> torch.Tensor:
    """The teacher's class probabilities [n, classes] of the decoded synthetic images.

    folder: an image classifier in transformers' layout. Counts n decodes and n
    surrogate forwards. Raises :class:`UserError` as :func:`teacher_of`.
    """
    network, processor, identity = teacher_of(model, folder)

    def make(stage: Path) -> tuple[Cost, float]:
        with torch.no_grad():
            before, began, found = replace(model.cost), time.monotonic(), []
            for part in tqdm(
                synthetic.x0.split(BLOCK),
                desc="teacher",
                unit="block",
                disable=not workspace.progress,
            ):
                inputs = processor(
                    images=list(model.decode(part.to(model.device))), return_tensors="pt"
                ).to(network.device)
                found.append(network(**inputs).logits.float().softmax(dim=1).cpu())
            model.cost.surrogate_forwards += len(synthetic.x0)
            write_tensors(stage / "teacher.safetensors", {"probabilities": torch.cat(found)})
            return model.cost - before, time.monotonic() - began

    stage = workspace.stage(
        "teacher", {"synthetic": synthetic.stage.key, "teacher": identity}, make
    )
    return read_tensors(stage.path / "teacher.safetensors")[0]["probabilities"]


def teacher_files(folder: str) -> list[Path]:
    """What is read of a teacher's folder."""
    names = ("config.json", "preprocessor_config.json", "model.safetensors")
    return [Path(folder) / name for name in names]


def teacher_of(model: Denoiser, folder: str) -> tuple[Any, Any, str]:
    """As :func:`load_teacher`, on the model's device.

    Raises :class:`UserError` for a teacher of other classes than those that the model is
    told, too.
    """
    network, processor, identity = load_teacher(folder, device=str(model.device))
    named, classes = network.config.num_labels, getattr(model, "classes", 0)
    if named < 2 or classes not in (0, named):
        of = f", and the model {classes}" if classes else ": there is nothing to choose from"
        raise UserError(
            f"teacher={folder} tells {named} class{'es' * (named != 1)} apart{of}; give a"
            " classifier of the model's own classes, or choose labels=clusters"
        )
    return network, processor, identity


def load_teacher(folder: str, *, device: str = "cpu") -> tuple[Any, Any, str]:
    """Network, image processor and hash, from a local folder in transformers' layout.

    Raises :class:`UserError` if it is none, or has no safetensors weights.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    path, files = Path(folder), teacher_files(folder)
    if missing := [f.name for f in files if not f.is_file()]:
        raise UserError(
            f"teacher={folder}: {missing[0]} is missing; save model and image processor with"
            " save_pretrained"
        )
    settings, _ = read_config(files[0]), read_config(files[1])
    refuse_quantised_config(files[0], settings)
    check_tensors(files[2])
    with loading(f"teacher={folder}"):
        network, report = AutoModelForImageClassification.from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        processor = AutoImageProcessor.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    if absent := sorted(report["missing_keys"]):  # transformers makes them up
        raise UserError(
            f"teacher={folder}: model.safetensors lacks {len(absent)} tensors of an image"
            f" classifier, such as {absent[0]}"
        )
    return (
        network.to(device).eval().requires_grad_(False),
        processor,
        json_hash([file_hash(f) for f in files])[:16],
    )
