"""What people lay over a published pipeline: a U-Net of their own, LoRAs, learned
words. Here as files; ``adapters`` puts them in force.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membench.errors import UserError, listed
from membench.models.loading import config_hash, network_config, read_config
from membench.models.part_files import PICKLED, Weights, check_variant, part_weights
from membench.storage.cache import remembered_hash
from membench.storage.cached_folders import check_folder

LORA, WORDS = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"


@dataclass(frozen=True)
class Changes:
    """unet: folder of the U-Net that replaces the base's. loras: files and the scale of
    each, in their order. words: files of textual inversion and the word of each ("":
    the file's own). variant: which weight files are read (``part_files.VARIANTS``).
    """

    unet: Path | None = None
    loras: tuple[tuple[Path, float], ...] = ()
    words: tuple[tuple[Path, str], ...] = ()
    variant: str = ""

    def place(self, folder: Path, part: str) -> Path:
        """The folder of a part of the changed pipeline whose base is ``folder``."""
        return self.unet if part == "unet" and self.unet is not None else folder / part

    def weights(self, folder: Path, part: str) -> Weights:
        """The weight files of a part. Raises as :func:`part_weights`."""
        place = self.place(folder, part)
        return part_weights(place.parent, place.name, self.variant)

    def record(self) -> dict[str, list[list[str | float]]]:
        """What else than the parts' files decides a prediction: SHA-256 and scale of
        each LoRA, SHA-256 and word of each file of words; empty for none.
        """
        found: dict[str, list[list[str | float]]] = {
            "lora": [[remembered_hash(file), scale] for file, scale in self.loras],
            "textual_inversion": [[remembered_hash(file), word] for file, word in self.words],
        }
        return {name: files for name, files in found.items() if files}

    def __str__(self) -> str:
        """For people: " + unet NAME + NAME:0.8"; empty for a clean pipeline."""
        names = [f"unet {self.unet.parent.name}/{self.unet.name}"] if self.unet else []
        names += [f"{file.name}:{scale:g}" for file, scale in self.loras]
        names += [file.name for file, _ in self.words]
        names += ["non_ema"] if self.variant == "non_ema" else []
        return "".join(f" + {name}" for name in names)


NONE = Changes()


def read_changes(
    unet: str = "", lora: str = "", textual_inversion: str = "", variant: str = ""
) -> Changes:
    """As a user writes them; lists with commas between.

    unet: a folder ``checkpoint-N``, or the folder of the U-Net inside it. lora: FILE or
    FOLDER, each with ``:SCALE`` behind it (1 without). textual_inversion: FILE or
    FOLDER, each with ``:WORD`` behind it where the file does not name its word. Raises
    :class:`UserError` for what is not there, pickled or no number.
    """
    return Changes(
        unet=_unet(Path(unet)) if unet else None,
        loras=tuple(map(_lora, listed(lora, "lora"))) if lora else (),
        words=tuple(map(_words, listed(textual_inversion, "textual_inversion")))
        if textual_inversion
        else (),
        variant=check_variant(variant),
    )


def _unet(given: Path) -> Path:
    found = next((f for f in (given, given / "unet") if (f / "config.json").is_file()), None)
    if found is None:
        raise UserError(
            f"unet={given} holds no U-Net: neither config.json nor unet/config.json is there; give"
            " the folder checkpoint-N of a training, or the unet folder inside it"
        )
    name = read_config(found / "config.json").get("_class_name")
    if name != "UNet2DConditionModel":
        raise UserError(f"unet={given} is of class {name}, not UNet2DConditionModel")
    return check_folder(found)


def _lora(text: str) -> tuple[Path, float]:
    name, scale = text, 1.0
    if not Path(text).exists() and ":" in text:
        name, _, number = text.rpartition(":")
        try:
            scale = float(number)
        except ValueError:
            scale = math.nan
        if not math.isfinite(scale):
            raise UserError(f"lora={text}: {number!r} is not a scale; write FILE:0.8")
    return _file("lora", name, LORA), scale


def _words(text: str) -> tuple[Path, str]:
    name, word = text, ""
    if not Path(text).exists() and ":" in text:
        name, _, word = text.rpartition(":")
    return _file("textual_inversion", name, WORDS), word


def _file(option: str, name: str, usual: str) -> Path:
    """The file itself, or in a folder the one with the usual name, else its only one."""
    path = Path(name)
    if path.is_dir():
        files = sorted(path.glob("[!.]*.safetensors"))
        if (path / usual).is_file():
            return path / usual
        if len(files) != 1:
            raise UserError(f"{option}={name} holds no {usual}; name the file itself")
        return files[0]
    if not path.is_file():
        raise UserError(f"{option}={name} is not there; give a file or its folder")
    if path.suffix in PICKLED:
        raise UserError(
            f"{option}={name} is pickled: reading it could run any code, so membench refuses it;"
            " save its tensors with safetensors.torch.save_file"
        )
    return path


def part_hashes(folder: Path, part: str, changes: Changes) -> dict[str, str]:
    """SHA-256 of configuration and weight files of a part, by their names in the
    pipeline, wherever the part lies.
    """
    files = changes.weights(folder, part).files
    found = {f"{part}/{file.name}": remembered_hash(file) for file in files}
    config = changes.place(folder, part) / "config.json"
    return found | {f"{part}/config.json": config_hash(config)}


def read_part(folder: Path, part: str, changes: Changes = NONE) -> dict[str, Any]:
    """config.json of a part of the changed pipeline.

    Raises :class:`UserError` where it is missing or no JSON object, of a shape out of
    range, or quantised.
    """
    place = changes.place(folder, part)
    if not (place / "config.json").is_file():
        raise UserError(f"{place} lacks config.json; get the model again")
    return network_config(place / "config.json")
