"""What the full profile of ``sd_webster`` needs and does not ship: checkpoints, prompt
sets, the weights of a similarity, and the prompts' training images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from membench.errors import UserError
from membench.options import changed
from membench.storage.hashing import json_hash

from .sets import PROMPTS, negatives_of

if TYPE_CHECKING:
    from membench.fetching.resources import Resource
    from membench.models.changes import Changes

    from .options import SdWebsterOptions


MODEL = "CompVis/stable-diffusion-v1-4"
SSCD = "disc_mixup"  # of the criterion, where no weights are named
MODELS = ("model", "control model")  # names of resources
ENDINGS = (".safetensors", ".ckpt")  # of a checkpoint in one file
URLS = "urls"  # ground_truth: what `membench download sd_webster --images` has fetched
DOWNLOAD = "membench download sd_webster"


def refuse_mini(o: SdWebsterOptions) -> None:
    """Raises :class:`UserError` for options that only the mini profile reads."""
    for name, value in changed(o, ("half", "world", "models", "examples")):
        raise UserError(f"{name}={value} is for --profile mini")


def resources(o: SdWebsterOptions, *, again: bool = True) -> list[Resource]:
    """All that these options may need and that does not ship; the criterion's weights
    too, which a run reads with a ground truth only.

    again: images that could not be reached before are missing.
    """
    from membench.datasets import prompt_sets
    from membench.features.clip import clip_resource
    from membench.features.sscd import VARIANTS, sscd_resource
    from membench.fetching.resources import Resource

    one_file = o.control_model and Path(o.control_model).is_file()
    of_model = "" if one_file and not Path(o.model).is_file() else o.base  # else it is refused
    needed = [model_resource("model", o.model or MODEL, changes_of(o), of_model)]
    if o.control_model:
        of_control = o.base if one_file else ""
        needed.append(model_resource("control model", o.control_model, base=of_control))
    needed += [prompt_sets.resource(name) for name in sets_of(o)]
    # Else a file
    if o.criterion == "sscd" and (o.criterion_weights.removeprefix("sscd_") or SSCD) in VARIANTS:
        needed.append(sscd_resource(o.criterion_weights or SSCD))
    if o.criterion == "clip" and o.criterion_weights:
        needed.append(clip_resource(o.criterion_weights))
    if not o.ground_truth:
        return needed
    if o.ground_truth != URLS:
        folder = Path(o.ground_truth)
        return [
            *needed,
            Resource(
                "ground truth",
                f"the folder {folder}",
                lambda: _folder(folder),
                lambda: _folder(folder),
                DOWNLOAD,
            ),
        ]
    return [*needed, images_resource(o, again)]


def changes_of(o: SdWebsterOptions) -> Changes:
    """What is laid over the model. The control model is taken as it is: of a LoRA or a
    fine-tuned U-Net the base is the natural control.
    """
    from membench.models.changes import read_changes

    return read_changes(o.unet, o.lora, o.textual_inversion, o.variant)


def model_resource(
    name: str, model: str, changes: Changes | None = None, base: str = ""
) -> Resource:
    """A folder as it is; a hub id from the hub's cache, or one of its mirrors; one file,
    unpacked by its base.
    """
    from membench.fetching import net
    from membench.fetching.hub import Incomplete
    from membench.fetching.resources import Resource
    from membench.models.changes import NONE
    from membench.models.checkpoints import OtherKind, choices, pipeline_folder
    from membench.models.pipeline_kinds import check_kind
    from membench.models.stable_diffusion_folder import weight_files
    from membench.storage.cached_folders import check_folder

    changes = changes or NONE

    pinned = ""
    if base and not Path(model).is_file():
        why = "none; name the file itself"
        if not Path(model).exists() and model.endswith(ENDINGS):
            why = "not there"
        raise UserError(f"base={base} is for a model that is one file, and {model} is {why}")
    if Path(model).is_file():
        if not base:
            check_kind(Path(model))  # refuses a checkpoint in one file, with the way out
        return _one_file(name, Path(model), model_resource("base", base, changes))
    elif not Path(model).is_dir():
        places = choices(model)  # a typing mistake is told before anything is fetched
        pinned = f"at revision {places[0][1][:12]}" if places[0][1] else "at its main revision"
    option = "--model " if name == "model" else "--set sd_webster.control_model="
    command = DOWNLOAD if model == MODEL else f"{DOWNLOAD} {option}{quote(model)}"

    def find() -> Path | None:
        if Path(model).is_dir():
            # Refuses what is no Stable Diffusion in safetensors
            weight_files(check_folder(Path(model)), changes)
            return Path(model)
        try:
            folder, _ = pipeline_folder(
                model,
                changes.variant,
                local_only=True,
                advice=f"fetch them with: {command}",
            )
        except OtherKind:
            raise
        except Incomplete:
            if net.offline():
                raise
            return None  # the rest is fetched
        except UserError:  # not in the hub's cache
            return None
        weight_files(folder, changes)
        return folder

    return Resource(
        name,
        f"model {model}",
        find,
        lambda: pipeline_folder(model, changes.variant)[0],
        command,
        f"some 4 GB, {pinned}" if pinned else "",
    )


def _one_file(name: str, file: Path, base: Resource) -> Resource:
    """A checkpoint in one file, of which nothing is fetched but its base."""
    from membench.fetching.resources import Resource
    from membench.models.single_file import unpacked

    def find() -> Path | None:
        found = base.find()
        return None if found is None else unpacked(file, found)

    return Resource(
        name,
        f"model {file} by {base.what}",
        find,
        lambda: unpacked(file, base.fetch()),
        base.command,
        base.note,
    )


def one_model(model: str) -> Path:
    """The folder of a model by itself, found or fetched.

    Raises :class:`UserError`, with the command that fetches it.
    """
    from membench.fetching.resources import ensure

    return ensure([model_resource("model", model)])["model"]


def images_resource(o: SdWebsterOptions, again: bool) -> Resource:
    """The images that the prompt sets name by URL, as far as they are still there.
    again: ask anew for what could not be reached.
    """
    from membench.fetching.download_status import STATUS, StatusTable
    from membench.fetching.image_download import Link, download_images, status_line, to_fetch
    from membench.fetching.resources import Resource
    from membench.storage.cache import cache_root

    sets = ",".join(filter(None, (o.prompts or PROMPTS, negatives_of(o))))

    def links() -> list[Link]:
        from membench.datasets.ground_truth import links_of
        from membench.datasets.prompt_sets import read

        found = links_of(p for s in read(sets) for p in s.prompts)
        if not found:
            raise UserError(
                f"none of the prompts of {sets} names an image by URL; give a folder: --set"
                " sd_webster.ground_truth=FOLDER"
            )
        return found

    def folder(wanted: Sequence[Link]) -> Path:
        """Of these very addresses: another list of the same name is another folder."""
        return (
            cache_root()
            / "ground_truth"
            / json_hash(sorted((link.id, link.url) for link in wanted))[:16]
        )

    def find() -> Path | None:
        from membench.datasets.prompt_sets import resource

        # Without them nobody knows which images
        if not all(resource(name).find() for name in sets_of(o)):
            return None
        wanted = links()
        place = folder(wanted)
        if not (place / STATUS).is_file():
            return None
        # A dead link is an answer: to a run, what has been asked for once is here as
        # far as it can be. A download asks again for what was out of reach.
        asked = StatusTable(place).rows
        return (
            place
            if (not to_fetch(wanted, place) if again else all(link.id in asked for link in wanted))
            else None
        )

    def fetch() -> Path:
        wanted = links()
        place = folder(wanted)
        rows = download_images(wanted, place, progress=True)
        came = int((rows.status == "ok").sum())
        if not came:
            raise UserError(
                f"none of {len(rows)} images came ({status_line(rows)}); is there a network? The"
                " same command tries again"
            )
        print(
            f"membench: {came} of {len(rows)} images are in {place} ({status_line(rows)})",
            file=sys.stderr,
        )
        return place

    chosen = f" --prompts {quote(o.prompts)}" * bool(
        o.prompts
    ) + f" --negatives {quote(o.negatives)}" * bool(o.negatives)
    command = f"{DOWNLOAD}{chosen} --images"
    note = "by URL from their own sites; dead links stay missing"
    return Resource("ground truth", f"training images of {sets}", find, fetch, command, note)


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"ground_truth={folder} is not a folder; give one, or {URLS} for what {DOWNLOAD}"
            " --images fetches"
        )
    return folder


def sets_of(o: SdWebsterOptions) -> list[str]:
    """What of it is to be fetched: sets by short name and files of hub data sets.

    The rest are files.
    """
    chosen = [
        text
        for text in (o.prompts or PROMPTS, negatives_of(o))
        if text and not Path(text).is_file()
    ]
    named = [name.strip() for text in chosen for name in text.split(",")]
    return [name for name in dict.fromkeys(named) if name and not Path(name).is_file()]
