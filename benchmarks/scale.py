"""Throughput at Stable Diffusion 1.4's real architecture, random weights, and what a
large run would take. docs/scale.md reads it.

    python benchmarks/scale.py [--device cuda --dtype bfloat16 --batch 16 --compile] \\
        [--repeats N] [--only network,flops,...]

Parts: ``flops`` (counted on torch's meta device, which computes nothing), ``network``
(the bare U-Net against the harness, taking turns: pairs of guided evaluations, text
encoding, decoding), ``images`` (PNG bytes and time, SSCD's ResNet-50), ``search``
(cosine of descriptors), ``tables`` (Parquet bytes a row) and ``plan`` (the sums of
docs/scale.md). No time depends on the weights' values.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import torchvision
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import membench
from membench.models.batch_size import automatic
from membench.models.latent import LatentDenoiser
from membench.models.loading import DTYPES, layout, torch_dtype
from membench.models.text_encoding import BLOCK
from membench.similarity.cosine import cosine
from membench.storage.images import png_bytes
from membench.storage.tables import SCHEMAS, write_table
from membench.types import Condition

PARTS = ("flops", "network", "pictures", "search", "tables", "plan")
# Ids need not be CLIP's own
TOKENIZER = (
    Path(membench.__file__).parent.parent / "tasks" / "data" / "sd_webster" / "a" / "tokenizer"
)
TOKENS, SIDE, WIDTH = 77, 64, 768
PIXELS = 288  # a side of what SSCD is given

# The published configurations: unet/, vae/ and text_encoder/config.json of
# CompVis/stable-diffusion-v1-4.
UNET: dict[str, Any] = {"sample_size": SIDE, "cross_attention_dim": WIDTH, "attention_head_dim": 8}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": WIDTH,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": TOKENS,
    "hidden_act": "quick_gelu",
}
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
# Dense peaks in half precision with single-precision sums, TFLOP/s, from the vendor's
# data sheets.
# Of the peak that is reached: an assumption until ``network`` has run on the GPU in
# question
SHARES = (0.15, 0.3, 0.45)
PEAKS = {"H100 SXM": 989, "A100": 312, "L40S": 362, "T4": 65}


def networks(device: str, kind: torch.dtype) -> tuple[Any, Any, Any]:
    """U-Net, text encoder, VAE with random weights, as load_text_to_image lays them
    out.
    """
    with torch.device(device):
        unet, text, vae = (
            UNet2DConditionModel(**UNET),
            CLIPTextModel(CLIPTextConfig(**TEXT)),
            AutoencoderKL(**VAE),
        )
    order = layout(device, kind) if device != "meta" else torch.contiguous_format
    made = [
        (m if kind == torch.float32 else m.to(kind)).eval().requires_grad_(False)
        for m in (unet, text, vae)
    ]
    return made[0].to(memory_format=order), made[1], made[2].to(memory_format=order)


def flops() -> dict[str, float]:
    """Floating-point operations of one image through each part, a multiply-add as two;
    attention as its two products.
    """
    unet, text, vae = networks("meta", torch.float32)
    z, told = (
        torch.empty(1, 4, SIDE, SIDE, device="meta"),
        torch.empty(1, TOKENS, WIDTH, device="meta"),
    )
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    resnet = torchvision.models.resnet50(num_classes=512).to("meta").eval()
    acts: dict[str, Callable[[], object]] = {
        "U-Net, one evaluation": lambda: unet(z, torch.zeros((), device="meta"), told),
        "text encoder, one prompt": lambda: text(ids),
        "VAE, one decode": lambda: vae.decode(z),
        "ResNet-50, one descriptor": lambda: resnet(
            torch.empty(1, 3, *[PIXELS] * 2, device="meta")
        ),
        "VAE, one encode": lambda: vae.encode(torch.empty(1, 3, 512, 512, device="meta")),
    }
    found = {}
    for name, act in acts.items():
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            act()
        found[name] = counter.get_total_flops()
        print(f"{name}: {found[name] / 1e12:.4f} TFLOP")
    for name, part in (("U-Net", unet), ("text encoder", text), ("VAE", vae)):
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M parameters")
    return found


def turns(
    device: str, repeats: int, acts: dict[str, Callable[[], object]], warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each act in each turn, after one to warm up: in turns, so that a busy
    machine slows them alike.
    """
    found: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(repeats + warm_up):
        for name, act in acts.items():
            start = time.perf_counter()
            act()
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            if turn >= warm_up:
                found[name].append(time.perf_counter() - start)
    return found


@torch.no_grad()
def network(args: argparse.Namespace, counted: dict[str, float]) -> None:
    kind = torch_dtype(args.dtype)
    unet, text, vae = networks(args.device, kind)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    tokenizer.model_max_length = TOKENS
    parts = SimpleNamespace(
        unet=unet,
        text_encoder=text,
        tokenizer=tokenizer,
        vae=vae,
        scheduler=DDIMScheduler(**SCHEDULE),
    )
    model = LatentDenoiser(parts)
    if args.compile:
        model.compile()
    model.batch_size = args.batch or automatic(model)
    pairs = max(1, model.batch_size // 2)
    print(f"{pairs} pairs at once ({'as asked' if args.batch else 'batch size auto'})")
    conditions = [Condition(str(k), f"a photograph of a rug, number {k}") for k in range(pairs)]
    x, told, t = model.noise([(c.id, 0) for c in conditions], 0), model.condition(conditions), 981
    both = torch.stack([model.null_like(told, pairs).embeddings, told.embeddings], dim=1).flatten(
        0, 1
    )
    bare_run = torch.compile(unet) if args.compile else unet
    at, twice = torch.tensor(t, device=args.device), x.repeat_interleave(2, dim=0).to(kind)
    block = [str(k) for k in range(BLOCK)]

    def encode() -> None:
        model.text.known.clear()
        model.condition([Condition(name, name) for name in block])

    found = turns(
        args.device,
        args.repeats,
        {
            "bare": lambda: bare_run(twice, at, both),
            "harness": lambda: model.guided(x, t, told, 7.5),
        },
    )
    ratios = [h / b for h, b in zip(found["harness"], found["bare"], strict=True)]
    ratio = statistics.median(ratios)
    seconds = {name: statistics.median(values) for name, values in found.items()}
    for name in ("bare", "harness"):
        print(
            f"{name}: {seconds[name]:.3f} s for {pairs} guided pairs,"
            f" {2 * pairs / seconds[name]:.3f} evaluations/s"
        )
    print(f"harness over bare: {ratio:.3f} (turns: {', '.join(f'{r:.3f}' for r in ratios)})")
    rate = 2 * pairs / seconds["harness"]
    print(
        f"prompts/s, one-step score with 4 draws (8 evaluations): {rate / 8:.4f}; images/s, 50"
        f" guided steps (100): {rate / 100:.5f}"
    )
    if counted:
        print(f"achieved: {counted['U-Net, one evaluation'] * rate / 1e12:.3f} TFLOP/s")
    rest = turns(args.device, 1, {"encode": encode, "decode": lambda: model.decode(x[:1])})
    print(
        f"text encoding: {BLOCK / rest['encode'][0]:.2f} prompts/s; decoding:"
        f" {rest['decode'][0]:.3f} s an image of 512x512"
    )
    if args.device.startswith("cuda"):
        print(
            f"{torch.cuda.get_device_name(args.device)}, peak memory"
            f" {torch.cuda.max_memory_allocated(args.device) / 2**30:.2f} GiB"
        )
    known = [row.embeddings for row in model.text.known.values() if row.embeddings is not None]
    size = sum(row.nbytes for row in known) / len(known)
    print(
        f"embedding of a prompt: {size:,.0f} bytes on the host; of 10,000:"
        f" {1e4 * size / 1e9:.2f} GB"
    )


def pictures(args: argparse.Namespace) -> None:
    """Two photographs that ship with scikit-learn, their middle squares at 512x512, and
    noise, which no PNG makes smaller.
    """
    for name in ("china.jpg", "flower.jpg", "noise"):
        if name == "noise":
            image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
        else:
            photograph = Image.fromarray(load_sample_image(name))
            left = (photograph.width - photograph.height) // 2
            square = photograph.crop((left, 0, left + photograph.height, photograph.height))
            image = np.asarray(square.resize((512, 512), Image.Resampling.LANCZOS))
        start = time.perf_counter()
        size = len(png_bytes(image))
        print(
            f"PNG of {name} at 512x512: {size:,} bytes in"
            f" {1e3 * (time.perf_counter() - start):.0f} ms"
        )
    resnet = (
        torchvision.models.resnet50(num_classes=512).to(args.device, torch_dtype(args.dtype)).eval()
    )
    batch = torch.zeros(8, 3, PIXELS, PIXELS, device=args.device, dtype=torch_dtype(args.dtype))
    with torch.no_grad():
        found = turns(args.device, args.repeats, {"resnet": lambda: resnet(batch)})["resnet"]
    rate = len(batch) / statistics.median(found)
    print(
        f"ResNet-50 at {PIXELS}x{PIXELS} (SSCD's trunk): {rate:.2f} descriptors/s, {args.device},"
        f" {args.dtype}"
    )


def search() -> None:
    rng = np.random.default_rng(0)
    queries, base = (rng.standard_normal((n, 512)).astype(np.float32) for n in (1_000, 50_000))
    seconds = statistics.median(turns("cpu", 3, {"": lambda: cosine(queries, base, floor=0.4)})[""])
    print(
        f"cosine, exact: {len(queries) * len(base) / seconds / 1e6:.1f} M pairs/s at 512"
        " dimensions, on the CPU"
    )


def tables() -> None:
    """Bytes a row of tables of random values (so that nothing compresses which would
    not in a run), images left out.
    """
    rows, rng = 100_000, np.random.default_rng(0)
    words = [
        "a",
        "red",
        "teal",
        "striped",
        "area",
        "rug",
        "poster",
        "of",
        "the",
        "mug",
        "phone",
        "case",
        "canvas",
        "print",
        "for",
        "sale",
    ]
    ids = [f"{k:016x}" for k in rng.integers(0, 2**63, rows // 50)]
    captions = [" ".join(rng.choice(words, 12)) for _ in ids]
    text = {"status": "ok", "kind": "MV", "source": "webster", "error": None}

    def column(name: str, kind: pa.DataType) -> Any:
        if name in text:
            return [text[name]] * rows
        if name in ("id", "sample_id", "condition", "group", "training_id", "nearest"):
            return [
                f"{ids[k // 50]}/{k % 50}" if name in ("id", "sample_id") else ids[k // 50]
                for k in range(rows)
            ]
        if name == "prompt":
            return [captions[k // 50] for k in range(rows)]
        if pa.types.is_floating(kind):
            return rng.standard_normal(rows)
        if pa.types.is_integer(kind):
            return rng.integers(0, 50, rows)
        return [b"" if pa.types.is_binary(kind) else None] * rows

    with tempfile.TemporaryDirectory() as folder:
        for name in ("scores", "samples", "matches"):
            frame = pd.DataFrame(
                {field.name: column(field.name, field.type) for field in SCHEMAS[name]}
            )
            file = Path(folder) / name
            write_table(file, frame, name)
            print(
                f"{name}.parquet: {file.stat().st_size / rows:.1f} bytes a"
                f" row{', its PNG beside' if name == 'samples' else ''}"
            )


def plan(
    counted: dict[str, float],
    prompts: int = 10_000,
    draws: int = 50,
    steps: int = 50,
    laion: float = 2.32e9,
) -> None:
    """The sums of docs/scale.md: evaluations, hours on named GPUs by their peak and an
    assumed utilisation, bytes of an index.
    """
    one, decode, describe = (
        counted[name]
        for name in ("U-Net, one evaluation", "VAE, one decode", "ResNet-50, one descriptor")
    )
    images, side_images = prompts * draws, 50_000
    work = {  # evaluations of the U-Net, decodes, other operations
        f"cfg_norm, score_norm, dcs: {prompts:,} prompts, 4 draws, one guided step": (
            8 * prompts,
            0,
            0.0,
        ),
        "edge: the same, and 4 decodes": (8 * prompts, 4 * prompts, 0.0),
        f"random: {images:,} images, {steps} guided steps": (2 * steps * images, images, 0.0),
        f"flipd: {prompts:,} images, 4 JVPs each (one taken as 3 evaluations)": (
            (2 * steps + 12) * prompts,
            prompts,
            0.0,
        ),
        f"side, preset paper: {side_images:,} synthetic, LoRA, {side_images:,} images": (
            2 * side_images * steps + 3 * side_images * 64,
            2 * side_images,
            side_images * describe,
        ),
        f"descriptors of {images:,} images": (0, 0, images * describe),
        f"descriptors of {laion / 1e9:.2f} G images": (0, 0, laion * describe),
        f"exact search of {images:,} among {laion / 1e9:.2f} G": (0, 0, images * laion * 1024),
    }
    peaks = ", ".join(f"{gpu} {peak} TFLOP/s" for gpu, peak in PEAKS.items())
    print(f"GPU hours at {' / '.join(f'{share:.0%}' for share in SHARES)} of the peak ({peaks})")
    for name, (evaluations, decodes, other) in work.items():
        total = evaluations * one + decodes * decode + other
        shares = {
            gpu: [total / (peak * 1e12 * share) / 3600 for share in SHARES]
            for gpu, peak in PEAKS.items()
        }
        hours = "; ".join(
            f"{gpu} " + " / ".join(f"{h:,.2f}" for h in each) for gpu, each in shares.items()
        )
        print(
            f"{name}: {evaluations:,} evaluations, {decodes:,} decodes, {total / 1e18:,.2f} EFLOP;"
            f" {hours}"
        )
    for name, size in (("float32", 2048), ("float16", 1024), ("int8", 512), ("PQ, 64 bytes", 64)):
        print(
            f"index of {laion / 1e9:.2f} G descriptors of 512 dimensions, {name}:"
            f" {laion * size / 1e12:.3f} TB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--batch", type=int, default=0, help="images at once, two a pair (default: batch size auto)"
    )
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"unknown part {min(unknown)}: choose of {', '.join(PARTS)}")
    print(
        f"{args.device}, {args.dtype}, torch {torch.__version__}, {torch.get_num_threads()} CPU"
        f" threads{', compiled' * args.compile}"
    )
    counted = flops() if {"flops", "network", "plan"} & set(wanted) else {}
    if "network" in wanted:
        network(args, counted)
    if "pictures" in wanted:
        pictures(args)
    if "search" in wanted:
        search()
    if "tables" in wanted:
        tables()
    if "plan" in wanted:
        plan(counted)


if __name__ == "__main__":
    main()
