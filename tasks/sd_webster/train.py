"""The recipe behind the mini ``sd_webster`` models: ``membench train sd_webster
--profile mini``.

Four parts: ``tokenizer`` and ``vae`` learn from the public split of the catalogue;
``a`` and ``b`` each train a U-Net and a CLIP text encoder on a half of it, on frozen
latents, with the same recipe. The text encoder learns jointly with the U-Net,
as in latent diffusion's first text-to-image model (Rombach et al. 2022), since no
pretrained CLIP is at hand. The target is v (Salimans and Ho 2022), as in Stable
Diffusion 2: an epsilon loss hardly sees the first sampling steps, where the detectors
look (docs/design/mini-world.md).

The shipped weights come from two stages. With ``start`` a training goes on from
finished models: a second stage that drops most captions teaches the null condition the
catalogue. VAE and tokenizer stay.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from membench.errors import UserError
from membench.models.loading import loading
from membench.models.tokenizer_files import load_tokenizer
from membench.models.training import Plan, alone, fit, warmup
from membench.options import refuse_unread
from membench.storage.files import atomic_folder, atomic_write, replace_files
from membench.storage.hashing import files_hashes, tensor_hash
from membench.storage.provenance import commit
from membench.types import Tracker

from ..shared import HALVES
from . import catalogue, products
from .architecture import (
    TOKENS,
    VOCABULARY,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
)
from .captions import inserted, replaced
from .recipe import Recipe
from .vae import encode, pixels, train_vae
from .world import DATA, check_world

PARTS = ("vae", *HALVES)  # a and b: U-Net and text encoder on a half of the world


def perturber(
    recipe: Recipe, tokenizer: CLIPTokenizer, half: catalogue.Split
) -> Callable[[str, torch.Generator], str]:
    """What the recipe does to a caption that is perturbed: a token of the whole
    vocabulary is inserted, or a word becomes one of the half's captions.
    """
    if recipe.perturbation == "replace":
        words = sorted({word for e in half.entries for word in e.caption.split()})
        return lambda caption, gen: replaced(caption, words, gen)
    special = set(tokenizer.all_special_ids)
    texts = (tokenizer.decode([i]).strip() for i in range(len(tokenizer)) if i not in special)
    tokens = [text for text in texts if text and text.isprintable()]
    return lambda caption, gen: inserted(caption, tokens, gen)


def train_model(
    work: Path, part: str, recipe: Recipe, progress: bool, tracker: Tracker | None = None
) -> dict[str, Any]:
    """Trains U-Net and text encoder on one half and saves the pipeline under
    ``work/part`` in fp16.
    """
    if not (work / "vae" / "config.json").exists():
        raise UserError(
            f"{work / 'vae'} is missing: run `membench train sd_webster --part vae` first"
        )
    tokenizer = load_tokenizer(work / "tokenizer", VOCABULARY, TOKENS)
    with loading(work / "vae"):
        vae = AutoencoderKL.from_pretrained(work / "vae", local_files_only=True).eval()
    # Or the saved configuration would name a folder of this machine
    vae.register_to_config(_name_or_path="vae")
    scheduler = make_scheduler()
    half = catalogue.build(part, recipe.world)
    rows = torch.tensor([i for i, e in enumerate(half.entries) for _ in range(e.copies)])
    latents = encode(vae, pixels(half.images())) * vae.config.scaling_factor
    tokens = tokenizer(
        [*(e.caption for e in half.entries), ""], padding="max_length", return_tensors="pt"
    ).input_ids
    if tokens.shape[1] != TOKENS:
        raise ValueError(f"a caption has {tokens.shape[1]} tokens, more than {TOKENS}")
    perturbed = perturber(recipe, tokenizer, half)

    def tokenized(caption: str) -> torch.Tensor:
        return tokenizer(
            caption, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids[0]

    torch.manual_seed(recipe.seed)
    unet, text_encoder = make_unet(), make_text_encoder(tokenizer)
    started = ""
    if recipe.start:
        first = Path(recipe.start) / part
        with loading(first):
            unet = UNet2DConditionModel.from_pretrained(first / "unet", local_files_only=True)
            text_encoder = CLIPTextModel.from_pretrained(
                first / "text_encoder", local_files_only=True
            )
        unet, text_encoder = unet.float(), text_encoder.float()
        unet.register_to_config(_name_or_path="unet")
        started = tensor_hash(unet)

    def loss(step: int, gen: torch.Generator) -> torch.Tensor:
        index = rows[torch.randint(len(rows), (recipe.batch,), generator=gen)]
        x0 = latents[index]
        drop = torch.rand(recipe.batch, generator=gen) < recipe.caption_dropout
        ids = tokens[torch.where(drop, len(tokens) - 1, index)]
        if recipe.perturb:
            other = (torch.rand(recipe.batch, generator=gen) < recipe.perturb) & ~drop
            for row in other.nonzero().flatten().tolist():
                ids[row] = tokenized(perturbed(half.entries[int(index[row])].caption, gen))
        noise = torch.randn(x0.shape, generator=gen)
        t = torch.randint(scheduler.config.num_train_timesteps, (recipe.batch,), generator=gen)
        v = unet(scheduler.add_noise(x0, noise, t), t, text_encoder(ids).last_hidden_state).sample
        return F.mse_loss(v, scheduler.get_velocity(x0, noise, t))

    names = ("batch", "rate", "caption_dropout", "perturb", "perturbation")
    fixed = {name: getattr(recipe, name) for name in names}
    record = {
        "data": half.content_hash(),
        "encoder": tensor_hash(vae.encoder),
        "recipe": fixed,
        "start": started,
    }
    plan = Plan(
        part,
        {"unet": unet, "text_encoder": text_encoder},
        loss,
        recipe.steps,
        warmup(recipe.rate),
        recipe.seed,
        record=record,
    )
    report = fit(plan, work, progress=progress, tracker=tracker)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for network in (vae, text_encoder, unet):
        torch.nn.Module.to(network, torch.float16)  # diffusers' own warns of nothing
    replace_files(
        work / part, lambda aside: pipeline.save_pretrained(aside, safe_serialization=True)
    )
    return {
        **report,
        "data_hash": half.content_hash(),
        "entries_hash": half.entries_hash(),
        "rows": len(rows),
        "parameters": sum(p.numel() for p in unet.parameters()),
    }


FOLDERS = ("unet", "text_encoder", "tokenizer", "vae")


def _before(start: Path, world: int) -> dict[str, Any]:
    """training.json of both pipelines that the training goes on from. Raises
    :class:`UserError` where one of them lacks a part or is of another world.
    """
    found: dict[str, Any] = {}
    for part in HALVES:
        folder = start / part
        lacks = [name for name in FOLDERS if not (folder / name).is_dir()]
        try:
            found[part] = json.loads((folder / "training.json").read_bytes())
            of = found[part]["recipe"].get("world", 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            lacks.append("a training.json that can be read")
        if lacks:
            raise UserError(
                f"start={start} does not hold pipelines a and b, as membench train sd_webster"
                f" writes them: {part} lacks {lacks[0]}; leave it out to train from the start"
            )
        if of != world:
            raise UserError(
                f"start={start} is of world {of}: what it has memorized is not of world {world}"
                f" (--world {of})"
            )
    return found


def _refuse_another(there: Path, wanted: Path, recipe: Recipe) -> None:
    """Raises :class:`UserError` where a folder of an earlier training holds other files:
    it would stay, and the models would stand on it unsaid.
    """
    if there.exists() and files_hashes(there) != files_hashes(wanted):
        why = "from which start= goes on" if recipe.start else f"which world {recipe.world} takes"
        raise UserError(
            f"{there} is not that of {wanted}, {why}; train into another folder (--output)"
        )


OF_VAE = ("vae_steps", "vae_batch", "vae_rate", "kl_weight")
OF_HALF = ("steps", "batch", "rate", "caption_dropout", "perturb", "perturbation")


def _refuse_unread(recipe: Recipe, parts: tuple[str, ...]) -> None:
    """Raises :class:`UserError` for a number of a part that is not trained: training.json
    would say it of another.
    """
    if "vae" not in parts:
        refuse_unread(recipe, OF_VAE, "the VAE is not trained again; leave it out")
    if not set(parts) & set(HALVES):
        refuse_unread(recipe, OF_HALF, "it is of the halves, and the VAE alone is trained")
    if not recipe.perturb:
        refuse_unread(recipe, ("perturbation",), "no caption is perturbed; set perturb")


def train(
    out: Path,
    parts: tuple[str, ...],
    recipe: Recipe,
    *,
    progress: bool = True,
    tracker: Tracker | None = None,
) -> None:
    """Runs the parts in order, each from its checkpoint, and writes ``training.json``
    beside the weights. Raises :class:`UserError`.
    """
    logging.disable_progress_bar()  # membench shows its own
    check_world(recipe.world)
    if "vae" in parts and (recipe.start or recipe.world):
        taken = "start= takes" if recipe.start else f"world {recipe.world} takes"
        of = "of its pipelines" if recipe.start else "that ships"
        raise UserError(f"{taken} the VAE {of}: leave out --part vae")
    _refuse_unread(recipe, parts)
    out.mkdir(parents=True, exist_ok=True)
    made_by = commit()  # of the code that runs, not of what the checkout holds when it is done
    before = _before(Path(recipe.start), recipe.world) if recipe.start else {}
    if recipe.start or recipe.world:
        for shared in ("tokenizer", "vae"):
            first = (Path(recipe.start) if recipe.start else DATA) / "a" / shared
            _refuse_another(out / shared, first, recipe)
            atomic_folder(out / shared, partial(shutil.copytree, first, dirs_exist_ok=True))
    else:
        atomic_folder(out / "tokenizer", make_tokenizer)
    for part in parts:
        with alone(part, out):
            report = (
                train_vae(out, recipe, progress, tracker)
                if part == "vae"
                else train_model(out, part, recipe, progress, tracker)
            )
            report |= {
                "recipe": asdict(recipe),
                "world": products.WORLD_VERSION,
                "commit": made_by,
                "torch": torch.__version__,
            }
            if recipe.start:
                report["before"] = before[part]
            text = json.dumps(report, indent=1) + "\n"
            atomic_write(out / part / "training.json", partial(Path.write_text, data=text))
        tqdm.write(
            f"{part}: {report['steps']} steps in {report['seconds']:.0f} s, written to {out / part}"
        )
