"""Malformed models: a small pipeline of text and one of pixels, one thing of each
damaged: a value of a configuration, a tensor, an index of shards, bytes.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from conftest import pixel_unet, save_tiny_pipeline
from diffusers import DDIMPipeline, DDIMScheduler
from malformed import changed, damaged, png
from malformed_words import command
from safetensors.torch import load_file, save_file

Call = Callable[[], object]
Tensors = dict[str, torch.Tensor]
TYPES = [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8]
TYPES += [torch.complex64, torch.float8_e4m3fn]
INDICES: list[Any] = [
    {"weight_map": {"conv_in.weight": "gone.safetensors"}},
    *({"weight_map": value} for value in (None, [], {}, {"a": None}, {"a": "../x"}, "x")),
    *({}, [], None, {"weight_map": {"conv_in.weight": "/etc/passwd"}}),
]
SCHEDULERS = ["PNDMScheduler", "EulerDiscreteScheduler", "DDPMScheduler", "FlowMatch", "", None]


def models(rng: random.Random, folder: Path, each: int = 8) -> Iterator[tuple[str, Call]]:
    """``each`` of both kinds of pipeline, through the command that reads all of one."""
    text = save_tiny_pipeline(folder / "text", "v_prediction")
    pixel = folder / "pixel"
    DDIMPipeline(unet=pixel_unet(), scheduler=DDIMScheduler()).save_pretrained(pixel)
    data = folder / "data"
    data.mkdir()
    for i in range(3):
        (data / f"{i}.png").write_bytes(png(60 * i))
    for k in range(each):
        for whole in (text, pixel):
            copy = folder / f"{whole.name}{k}"
            shutil.copytree(whole, copy)
            told = rng.choice([configured, configured, weighed, indexed, cut])(rng, copy)
            words = ["audit", "--model", str(copy), "--data", str(data), "--budget", "9999"]
            words += ["--enlarge", "--dry-run", "--quiet", "--output", str(folder / "out")]
            yield f"{whole.name} {told}", lambda w=words: command(*w)


def configured(rng: random.Random, folder: Path) -> str:
    """One value of a configuration is another, or gone."""
    file = rng.choice(sorted(f for f in folder.rglob("*.json") if f.name != "tokenizer.json"))
    held = json.loads(file.read_text())
    if file.name == "scheduler_config.json" and rng.random() < 0.3:
        made = held | {"_class_name": rng.choice(SCHEDULERS)}
    else:
        made = changed(rng, held)
    file.write_text(json.dumps(made))
    differs = made
    if isinstance(made, dict):
        names = [n for n in {**held, **made} if repr(held.get(n)) != repr(made.get(n, "gone"))]
        differs = {name: str(made.get(name, "gone"))[:60] for name in names}
    return f"{file.parent.name}/{file.name} {str(differs)[:150]}"


def weighed(rng: random.Random, folder: Path) -> str:
    """A tensor that is missing, too many, or of another type, shape or value."""
    file = rng.choice(sorted(folder.rglob("*.safetensors")))
    held: Tensors = load_file(file)
    name, other = rng.choice(sorted(held)), rng.choice(sorted(held))
    how = rng.choice(["gone", "more", "nan", "zeros", "type", "types", "shape", "scalar", "swap"])
    kind = rng.choice(TYPES)
    if how == "gone":
        del held[name]
    elif how == "more":
        held[f"{name}.more"] = torch.zeros(3)
    elif how == "swap":
        held[name], held[other] = held[other].clone(), held[name].clone()
    elif how == "types":
        held = {n: t.to(kind) for n, t in held.items()}
    else:
        whole = held[name]
        held[name] = {
            "nan": lambda: torch.full_like(whole, float("nan")),
            "zeros": lambda: torch.zeros_like(whole),
            "type": lambda: whole.to(kind),
            "shape": lambda: torch.zeros(*whole.shape, 1),
            "scalar": lambda: torch.tensor(0.5),
        }[how]()
    save_file(held, file)
    return f"{file.parent.name} {name} {how} {kind if 'type' in how else ''}"


def indexed(rng: random.Random, folder: Path) -> str:
    """Weights by an index of shards that says nothing of use."""
    file = rng.choice(sorted(folder.rglob("*.safetensors")))
    index = rng.choice(INDICES)
    if rng.random() < 0.5:
        file.unlink()
    file.with_suffix(".safetensors.index.json").write_text(json.dumps(index))
    return f"{file.parent.name} index {index}"


def cut(rng: random.Random, folder: Path) -> str:
    """Damaged bytes of any file."""
    file = rng.choice(sorted(f for f in folder.rglob("*") if f.is_file()))
    file.write_bytes(damaged(rng, file.read_bytes()))
    return f"damaged {file.parent.name}/{file.name}"
