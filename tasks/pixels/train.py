"""The recipe behind the pixel models of ``cifar10`` and ``celeba``, mini and full: a
UNet2DModel with class labels or none.

Conditional models have one embedding more than classes: the last one is the null class,
which a label becomes with probability ``label_dropout`` (Ho and Salimans 2022), so that
a conditional and an unconditional prediction both exist. The target is v, as in the
other mini models (docs/design/mini-world.md). float32 on a CPU; bfloat16 and
``torch.compile`` on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from PIL import Image
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.models.image_values import from_uint8
from membench.models.loading import check_device
from membench.models.pixel import PixelDenoiser
from membench.models.sampling import ddim
from membench.models.training import Plan, alone, fit, warmup
from membench.seeds import generator
from membench.storage.files import atomic_write, replace_files
from membench.storage.provenance import commit
from membench.types import Condition, Tracker

from ..shared import rung_folder
from .labels import Labels, make_labels, perturbed
from .mirror import build_pair
from .planted import World
from .recipe import MirrorRecipe, PixelRecipe

GRID = 64  # images of the samples' grid
GRID_STEPS = 20


@dataclass(frozen=True)
class TrainingSet:
    """What a model is trained on. images: ``uint8`` [n, size, size, 3], unique; copies:
    how often each is shown [n]; labels: [n] in [0, classes), or None for a model
    without a condition; record: what training.json says of it.
    """

    images: np.ndarray
    copies: np.ndarray
    labels: np.ndarray | None
    classes: int
    record: dict[str, Any]


def make_unet(size: int, classes: int | None, recipe: PixelRecipe) -> UNet2DModel:
    """Attention at the last resolution but one, 8 channels a head. classes: None for an
    unconditional model.
    """
    # Four channels a group, as in DDPM, at the first resolution: of one alone the norm
    # would take the mean, and with it the colour.
    groups = min(32, max([8, *recipe.channels[:1]]) // 4)
    if len(recipe.channels) < 2 or any(c % groups or c % 8 for c in recipe.channels):
        raise UserError(
            f"channels={','.join(map(str, recipe.channels))}: give at least two multiples of 8 and"
            f" of {groups}"
        )
    if size % 2 ** (len(recipe.channels) - 1):
        raise UserError(
            f"{len(recipe.channels)} resolutions do not halve {size} pixels evenly; give fewer"
            " channels"
        )
    n = len(recipe.channels)
    return UNet2DModel(
        sample_size=size,
        block_out_channels=recipe.channels,
        down_block_types=tuple(
            "AttnDownBlock2D" if i == n - 2 else "DownBlock2D" for i in range(n)
        ),
        up_block_types=tuple("AttnUpBlock2D" if i == 1 else "UpBlock2D" for i in range(n)),
        layers_per_block=recipe.layers,
        attention_head_dim=8,
        norm_num_groups=groups,
        num_class_embeds=None if classes is None else classes + 1,
    )


def make_scheduler() -> DDIMScheduler:
    """DDPM's linear schedule (Ho et al. 2020) with v as the target."""
    return DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=True,
        prediction_type="v_prediction",
    )


def train_pixels(
    work: Path,
    part: str,
    data: TrainingSet,
    recipe: PixelRecipe,
    progress: bool = True,
    tracker: Tracker | None = None,
) -> dict[str, Any]:
    """Trains one model and saves it under ``work/part`` as a pipeline in fp16, with
    training.json, samples.png and loss.png.
    """
    check_device(recipe.device)
    if recipe.perturb and data.labels is None:
        raise UserError(
            f"perturb={recipe.perturb:g}: a model without labels has none to perturb; leave it out,"
            " or choose labels=class, random or cluster"
        )
    # The default is another one for each task
    usual = (PixelRecipe.label_dropout, MirrorRecipe.label_dropout)
    if data.labels is None and recipe.label_dropout not in usual:
        raise UserError(
            f"label_dropout={recipe.label_dropout:g}: a model without labels has none to drop;"
            " leave it out, or choose labels=class, random or cluster"
        )
    made_by = commit()  # of the code that runs, not of what the checkout holds when it is done
    size = data.images.shape[1]
    classes = None if data.labels is None else data.classes
    torch.manual_seed(recipe.seed)
    unet, scheduler = make_unet(size, classes, recipe).to(recipe.device), make_scheduler()
    on_gpu = torch.device(recipe.device).type == "cuda"
    network = torch.compile(unet) if on_gpu else unet.to(memory_format=torch.channels_last)
    images = from_uint8(data.images)
    labels = None if data.labels is None else torch.as_tensor(data.labels, dtype=torch.long)
    rows = torch.as_tensor(np.repeat(np.arange(len(images)), data.copies))

    def loss(step: int, gen: torch.Generator) -> torch.Tensor:
        index = rows[torch.randint(len(rows), (recipe.batch,), generator=gen)]
        x0 = images[index]
        if recipe.flip:
            mirrored = torch.rand(recipe.batch, generator=gen) < 0.5
            x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
        noise = torch.randn(x0.shape, generator=gen)
        t = torch.randint(scheduler.config.num_train_timesteps, (recipe.batch,), generator=gen)
        told = None
        if labels is not None:
            drop = torch.rand(recipe.batch, generator=gen) < recipe.label_dropout
            shown = perturbed(labels[index], recipe.perturb, data.classes, gen)
            told = torch.where(drop, data.classes, shown).to(recipe.device)
        x, v, t = (
            a.to(recipe.device)
            for a in (scheduler.add_noise(x0, noise, t), scheduler.get_velocity(x0, noise, t), t)
        )
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            predicted = network(x.contiguous(memory_format=torch.channels_last), t, told).sample
        return F.mse_loss(predicted.float(), v)

    folder = work / part
    folder.mkdir(parents=True, exist_ok=True)
    # The world stands in data.record
    free = ("steps", "grid_every", "device", "data_root", "rungs", "world")
    fixed = {k: v for k, v in asdict(recipe).items() if k not in free}
    plan = Plan(
        part,
        {"unet": unet},
        loss,
        recipe.steps,
        warmup(recipe.rate),
        recipe.seed,
        record={"recipe": fixed, "data": data.record},
        watch=lambda step: _grid(unet, scheduler, classes, size, folder / "samples.png"),
        watch_every=recipe.grid_every,
        keep=lambda step: _save_pipeline(unet, scheduler, rung_folder(folder, step)),
        keep_at=recipe.rungs,
    )
    with alone(part, work):
        report = fit(plan, work, progress=progress, tracker=tracker)
        for step in recipe.rungs:
            if step <= report["steps"] and not rung_folder(folder, step).is_dir():
                raise UserError(
                    f"{work / part}.checkpoint is past step {step}, which was not kept; delete it"
                    " to train from the start"
                )
        _grid(unet, scheduler, classes, size, folder / "samples.png")
        _loss_curve(report["loss_curve"], folder / "loss.png")
        report |= {
            "recipe": asdict(recipe),
            "data": data.record,
            "rows": len(rows),
            "parameters": sum(p.numel() for p in unet.parameters()),
        }
        report |= {"commit": made_by, "torch": torch.__version__}
        # Before the weights: without it a model would be taken to have seen the whole data
        # set.
        atomic_write(
            folder / "training.json",
            lambda temporary: temporary.write_text(json.dumps(report, indent=1) + "\n"),
        )
        _save_pipeline(unet, scheduler, folder)
    tqdm.write(f"{part}: {report['steps']} steps in {report['seconds']:.0f} s, written to {folder}")
    return report


def _save_pipeline(unet: UNet2DModel, scheduler: DDIMScheduler, folder: Path) -> None:
    """The network in fp16 with its schedule; the network itself stays as it is."""
    copied = UNet2DModel.from_config(unet.config)
    copied.load_state_dict(unet.state_dict())
    torch.nn.Module.to(copied, torch.float16)  # diffusers' own warns of nothing
    made = DDIMPipeline(unet=copied, scheduler=scheduler)
    replace_files(folder, lambda aside: made.save_pretrained(aside, safe_serialization=True))


def train_mirror(
    world: World,
    out: Path,
    parts: Sequence[str],
    recipe: MirrorRecipe,
    progress: bool,
    tracker: Tracker | None = None,
) -> None:
    """A model on each half of world ``recipe.world``, with the weights of its rungs."""
    pair = build_pair(world, recipe.world)
    for part in parts:
        half = pair.halves[part]
        record = {
            "source": f"{world.name} {recipe.world}, half {part}",
            "version": world.version,
            "hash": half.content_hash(),
        }
        labels = make_labels(recipe.labels, half.images, half.labels, world.classes, recipe.seed)
        record |= {"world": recipe.world, **told_record(recipe.labels, labels)}
        train_pixels(
            out,
            part,
            TrainingSet(half.images, half.copies, labels, world.classes, record),
            recipe,
            progress,
            tracker,
        )


def told_record(kind: Labels, labels: np.ndarray | None) -> dict[str, Any]:
    """What training.json says of the labels: their kind, and that of each image."""
    return {"labels": kind, "told": None if labels is None else [int(x) for x in labels]}


@torch.no_grad()
def _grid(
    unet: UNet2DModel, scheduler: DDIMScheduler, classes: int | None, size: int, file: Path
) -> None:
    """GRID samples from fixed noise, classes in turn, as one PNG."""
    # The network that is being trained, read only: a Denoiser would freeze it.
    flags = [p.requires_grad for p in unet.parameters()]
    model = PixelDenoiser(unet, scheduler, shape=(3, size, size), classes=classes or 0)
    conditions = [
        Condition("grid", class_label=i % classes if classes else None) for i in range(GRID)
    ]
    x = torch.stack(
        [torch.randn(3, size, size, generator=generator("grid", i)) for i in range(GRID)]
    ).to(model.device)
    images = model.decode(
        ddim(model, x, model.condition(conditions), steps=GRID_STEPS, guidance=1.0)
    )
    for p, flag in zip(unet.parameters(), flags, strict=True):
        p.requires_grad_(flag)
    side = 8
    sheet = (
        images.reshape(-1, side, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(-1, side * size, 3)
    )
    atomic_write(file, lambda temporary: Image.fromarray(sheet).save(temporary, "PNG"))


def _loss_curve(curve: list[list[float]], file: Path) -> None:
    """The running mean of the loss against the step."""
    from matplotlib.figure import Figure

    if not curve:
        return
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True), color="#3b6ea5")
    axes.set(xlabel="step", ylabel="loss (v, running mean)", yscale="log")
    axes.grid(alpha=0.3)
    atomic_write(file, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
