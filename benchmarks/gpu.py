"""What a GPU makes of the harness, as JSON: matrix products, evaluations at Stable
Diffusion 1.4's real architecture with random weights, plain and compiled, and cfg_norm
on 500 prompts. benchmarks/gpu.sh calls it, and docs/scale.md reads what it writes.

    python benchmarks/gpu.py --output gpu.json [--device cuda --dtype bfloat16]
    python benchmarks/gpu.py --output gpu.json --device cpu --tiny

--tiny: blocks of 8 channels and latents of 8, 16 prompts: shows that the script works,
and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import scale
import torch
from diffusers import DDIMScheduler
from transformers import CLIPTokenizer

from membench.models.batch_size import automatic
from membench.models.latent import LatentDenoiser
from membench.models.loading import DTYPES, torch_dtype
from membench.registry import detectors
from membench.types import Condition

TINY: dict[str, dict[str, Any]] = {
    "UNET": {
        "sample_size": 8,
        "block_out_channels": (8,) * 4,
        "norm_num_groups": 2,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
    },
    "TEXT": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "VAE": {"block_out_channels": (4,) * 4, "norm_num_groups": 2, "layers_per_block": 1},
}
DRAWS, SEED = 4, 0


def seconds(device: str, act: Callable[[], object], repeats: int) -> list[float]:
    """Of each turn, after one to warm up."""
    return scale.turns(device, repeats, {"": act})[""]


def matrix_product(device: str, kind: torch.dtype, side: int) -> float:
    """FLOP/s of a product of two square matrices: what this GPU reaches at its best."""
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    return 2 * side**3 / statistics.median(seconds(device, lambda: a @ b, 10))


def loaded(device: str, kind: torch.dtype) -> LatentDenoiser:
    unet, text, vae = scale.networks(device, kind)
    tokenizer = CLIPTokenizer.from_pretrained(scale.TOKENIZER)
    tokenizer.model_max_length = scale.TOKENS
    schedule = DDIMScheduler(**scale.SCHEDULE)
    parts = dict(unet=unet, text_encoder=text, tokenizer=tokenizer, vae=vae, scheduler=schedule)
    return LatentDenoiser(SimpleNamespace(**parts))


def evaluations(model: LatentDenoiser, device: str, repeats: int) -> tuple[float, float]:
    """Of guided pairs, a second, at the model's batch size; and the seconds of the turn
    before these, in which a compiled network is compiled.
    """
    pairs = max(1, model.batch_size // 2)
    told = model.condition([Condition(str(k), f"a rug, number {k}") for k in range(pairs)])
    x = model.noise([(str(k), 0) for k in range(pairs)], SEED)

    def act() -> object:
        return model.guided(x, 981, told, 7.5)

    [first] = scale.turns(device, 1, {"": act}, warm_up=False)[""]
    return 2 * pairs / statistics.median(seconds(device, act, repeats)), first


def cfg_norm(model: LatentDenoiser, device: str, prompts: int) -> dict[str, float]:
    """The detector as a run calls it, in shards of 64 prompts, text encoding included."""
    cls = detectors().load("cfg_norm")
    sampling = {"steps": 50, "guidance": 7.5}  # of images, of which none is generated
    detector = cls(cls.Options(draws=DRAWS, images=0), seed=SEED, sampling=sampling)
    conditions = [Condition(str(k), f"a photograph of a mug, number {k}") for k in range(prompts)]
    model.text.known.clear()
    before, began = model.cost.forwards, time.perf_counter()
    scores: list[float] = []
    for start in range(0, prompts, 64):
        scores += detector.score(model, conditions[start : start + 64], {})
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    took = time.perf_counter() - began
    assert len(scores) == prompts and torch.tensor(scores).isfinite().all()
    return {
        "prompts": prompts,
        "draws": DRAWS,
        "evaluations": model.cost.forwards - before,
        "seconds": took,
        "prompts_per_s": prompts / took,
    }


@torch.no_grad()
def measured(device: str, dtype: str, tiny: bool, compiled: bool) -> Iterator[dict[str, Any]]:
    """What was found so far: without the compiled network, then with it, so that one that
    does not compile, or not in time, costs nothing of the rest.
    """
    if tiny:
        for name, settings in TINY.items():
            getattr(scale, name).update(settings)
        scale.SIDE, scale.WIDTH = TINY["UNET"]["sample_size"], TINY["TEXT"]["hidden_size"]
    kind, cuda = torch_dtype(dtype), device.startswith("cuda")
    flop = scale.flops()["U-Net, one evaluation"]
    peak = matrix_product(device, kind, 128 if tiny else 8192)
    model = loaded(device, kind)
    model.batch_size = automatic(model)
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    rate, _ = evaluations(model, device, 3 if tiny else 10)
    x = model.noise([("x", 0)], SEED)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "dtype": dtype,
        "tiny": tiny,
        "torch": torch.__version__,
        "flop_per_evaluation": flop,
        "matrix_product_flop_per_s": peak,
        "batch_size_auto": model.batch_size,
        "evaluations_per_s": rate,
        "share_of_matrix_product": rate * flop / peak,
        "prompts_per_s_one_step": rate / (2 * DRAWS),
        "images_per_s_50_steps": rate / 100,
        "seconds_per_decode": statistics.median(seconds(device, lambda: model.decode(x), 3)),
        "cfg_norm": cfg_norm(model, device, 16 if tiny else 500),
    }
    if cuda:
        found["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    yield found
    if compiled:
        model.compile()
        rate, found["compile_seconds"] = evaluations(model, device, 3 if tiny else 10)
        found["compiled_evaluations_per_s"] = rate
        found["compiled_share_of_matrix_product"] = rate * flop / peak
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    for found in measured(args.device, args.dtype, args.tiny, not args.no_compile):
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
