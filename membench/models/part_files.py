"""The weight files of one part of a model, in diffusers' and transformers' own names:
whole or in shards, plain or of a variant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from membench.errors import UserError
from membench.models.loading import read_config

# fp16, bf16: the same weights, rounded. non_ema: those of training, without the moving
# average: another model, read only where it is asked for.
VARIANTS = ("fp16", "bf16", "non_ema")
SAME_MODEL = ("", "fp16", "bf16")  # in the order in which they are taken
PICKLED = (".bin", ".ckpt", ".pt")


@dataclass(frozen=True)
class Weights:
    """The safetensors of one part: ``variant`` is what ``from_pretrained`` has to be
    given ("" or "fp16"), ``files`` what it then reads.
    """

    variant: str
    files: tuple[Path, ...]


def check_variant(variant: str) -> str:
    """The variant itself. Raises :class:`UserError` unless it is "" or of VARIANTS."""
    if variant and variant not in VARIANTS:
        raise UserError(f"variant={variant}: membench knows {', '.join(VARIANTS)}")
    return variant


def part_weights(folder: Path, part: str, variant: str = "") -> Weights:
    """The files that ``from_pretrained`` reads of a part, and the variant to ask it
    for.

    variant: that one where the part has it, else the plain files, as diffusers'
    pipelines do; "": the plain files, else fp16, else bf16. Where a part is both whole
    and in shards, diffusers reads the shards and transformers the whole; so do
    we. Raises :class:`UserError` for a part that is missing, pickled or lacks a shard.
    """
    if found := find_weights(folder, part, variant):
        return found
    place, stem = folder / part, _stem(part)
    files = [
        f for f in sorted(place.glob("[!.]*")) if f.suffix in PICKLED or f.suffix == ".safetensors"
    ]
    if odd := next((f for f in files if not f.is_file()), None):
        what = "a link to nothing" if odd.is_symlink() else "not a file"
        raise UserError(f"{odd} is {what}; get the model again")
    given = [f.name for f in files]
    if any(name.endswith(".safetensors") for name in given):
        other = next((v for v in VARIANTS if f"{stem}.{v}.safetensors" in given), "")
        raise UserError(
            f"{place} lacks {stem}.safetensors (there is {', '.join(given[:3])}"
            + (f", which variant={other} reads)" if other else "); get the model again")
        )
    if given:
        raise UserError(
            f"{place} holds pickled weights only ({given[0]}), and reading a pickle can run"
            " any code, so membench refuses it; convert them: load the pipeline in diffusers, then"
            " pipeline.save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise UserError(f"{place} has no safetensors file; get the model again")


def find_weights(folder: Path, part: str, variant: str = "") -> Weights | None:
    """As :func:`part_weights`; None for a part without a safetensors file of these."""
    stem = _stem(part)
    for name in (check_variant(variant), "") if variant else SAME_MODEL:
        dot = f".{name}" if name else ""
        whole = folder / part / f"{stem}{dot}.safetensors"
        index = folder / part / f"{stem}.safetensors.index{dot}.json"
        order = (index, whole) if stem == DIFFUSERS else (whole, index)
        if found := next((f for f in order if f.is_file()), None):
            return Weights(name, (found,) if found is whole else (found, *_shards(found)))
    return None


DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"


def _stem(part: str) -> str:
    return TRANSFORMERS if part.startswith("text_encoder") else DIFFUSERS


def refuse_absent_variant(folder: Path, variant: str, found: Iterable[Weights]) -> None:
    """Raises :class:`UserError` for a variant that no part of a model has."""
    if variant and all(weights.variant != variant for weights in found):
        raise UserError(f"{folder} has no weights of variant={variant}; leave it out")


def tensor_files(weights: Weights) -> list[Path]:
    """Those that hold tensors: without the index of shards."""
    return [file for file in weights.files if file.suffix == ".safetensors"]


def _shards(index: Path) -> list[Path]:
    names = read_config(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{index} names no shards; get the model again")
    shards = [index.parent / str(name) for name in sorted(set(map(str, names.values())))]
    for shard in shards:
        if shard.suffix != ".safetensors" or shard.parent != index.parent:
            raise UserError(
                f"{index} names {shard.name}, which is not a safetensors file beside it; get the"
                " model again"
            )
        if not shard.is_file():
            raise UserError(f"{shard} is missing, which {index.name} names; get the model again")
    return shards
