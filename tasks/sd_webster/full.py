"""The full profile of ``sd_webster``: a Stable Diffusion 1.x, 2.x or XL checkpoint,
with what people lay over it, asked about the published prompt sets.

Positives: by default the 500 prompts that Webster (2023) found for Stable Diffusion 1
and Wen et al. (2024) chose, as Hintersdorf et al. (2024) labelled them (VM, TM).
Negatives: by default 500 captions of LAION, since every other published choice can be
told from the positives by its style alone (docs/captions.md). Extracted images are
compared with the prompts' own training images where those are at hand
(``ground_truth``), by the cosine of SSCD; the papers' labels are of prompts, so each
image gets one of its own, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from membench.datasets.prompts import UNLABELLED, Prompt, example_id, to_examples
from membench.errors import UserError
from membench.storage.hashing import json_hash
from membench.task import LoadedTask, TaskInfo
from membench.types import Example, Space, Training

from ..shared import examples_hash
from .reference import read_reference

if TYPE_CHECKING:
    from membench.datasets.ground_truth import GroundTruth
    from membench.datasets.prompt_sets import PromptSet
    from membench.fetching.resources import Resource
    from membench.models.changes import Changes
    from membench.models.denoiser import Denoiser
    from membench.similarity.criterion import Features

    from .options import SdWebsterOptions

MODEL = "CompVis/stable-diffusion-v1-4"


PROMPTS, NEGATIVES = "hintersdorf", "laion"


SSCD = "disc_mixup"


MODELS = ("model", "control model")  # names of resources


URLS = "urls"  # ground_truth: what `membench download sd_webster --images` has fetched


# Pixels of a ground-truth image, whatever the model generates: one data set for all
# models
SIDE = 512


DOWNLOAD = "membench download sd_webster"


# How published tables word the sets (results/published.csv).
WORDS = {
    **dict.fromkeys(("hintersdorf", "wen"), "webster500"),
    **{
        "ren-sd1": "webster345",
        "ren-sd2": "webster219",
        "laion": "500 LAION",
        "ren-gpt4": "500 GPT-4",
        "gustavosta": "500 Gustavosta",
    },
}


NOT_COMPARED = Space("none", True, (), 1.0, 1.0, "no ground truth was given")


def load_full(
    info: TaskInfo,
    o: SdWebsterOptions,
    *,
    control: bool,
    device: str,
    dtype: str,
    batch_size: int,
    needs_model: bool,
) -> LoadedTask:
    """The task of a checkpoint. needs_model: False leaves its weights unread, and
    unfetched, where every detector reads captions alone.
    """
    from membench.fetching.resources import ensure
    from membench.models.changes import NONE
    from membench.models.stable_diffusion_folder import folder_hash

    if o.reference and o.ground_truth:
        raise UserError(
            "reference and ground_truth exclude each other: images are compared with the one or the"
            " other"
        )
    for name in ("half", "examples"):
        if (value := getattr(o, name)) != getattr(type(o)(), name):
            raise UserError(f"{name}={value} is for --profile mini")
    if control and not o.control_model:  # before anything is fetched
        raise UserError(
            "--profile full ships no control model: name a model of the same kind that never saw"
            " the prompts' images, --set sd_webster.control_model=FOLDER"
        )
    changes = NONE if control else changes_of(o)
    asked, sets = "control model" if control else "model", sets_of(o)
    needed = [
        r
        for r in resources(o, again=False)
        if r.name == asked
        or r.name in sets
        or ((o.ground_truth or o.reference) and r.name not in MODELS)
    ]
    if not needs_model:
        [weights] = [r for r in needed if r.name == asked]
        folder = weights.find()
        found = ensure([r for r in needed if r.name != asked])
    else:
        found = ensure(needed)
        folder = found[asked]
    examples, prompts, provenance = chosen_prompts(o.prompts or PROMPTS, negatives_of(o))
    if o.sets:
        told = f"the prompt sets {provenance['sets']} are called {o.sets!r} by sd_webster.sets"
        provenance["notes"] = [*provenance.get("notes", ()), told]
        provenance["sets"] = o.sets
    truth, features, reference = None, None, None
    if o.ground_truth:
        truth, features = compared(o, found, prompts, device, batch_size)
    elif o.reference:
        features = features_of(o, device, batch_size)
        reference = read_reference(o, features)
        provenance["notes"] = [*provenance.get("notes", ()), *reference.notes]
    training = (
        Training(truth.images, truth.ids, truth.copies, hash=truth.hash)
        if truth
        else reference.training
        if reference
        else Training.none()
    )
    return LoadedTask(
        info=replace(
            info,
            space=reference.space if reference else space(o, features),
            sampling={"steps": o.steps, "guidance": o.guidance},
        ),
        profile="full",
        examples=examples,
        training=training,
        model=_model(folder, device, dtype, batch_size, changes),
        hashes={
            "weights": folder_hash(folder, changes) if folder else "none",
            "data": training.hash,
            "prompts": examples_hash(examples),
        },
        control=control,
        match=reference.match if reference else _match(truth, features),
        owners=truth.owners if truth else {},
        names={
            "model": model_name((o.control_model if control else o.model) or MODEL) + str(changes),
            "data": provenance["sets"],
        },
        provenance={
            **provenance,
            **({"revision": folder.name} if folder and folder.parent.name == "snapshots" else {}),
            **({"ground_truth": _told(truth, prompts)} if truth else {}),
            **({"reference": reference.told} if reference else {}),
        },
    )


# ------------------------------------------------------------------------------ prompts


def negatives_of(o: SdWebsterOptions) -> str:
    """LAION's captions beside the default prompts only: a file of one's own may bring
    its negatives itself.
    """
    return o.negatives or ("" if o.prompts else NEGATIVES)


def chosen_prompts(
    positives: str, negatives: str
) -> tuple[list[Example], list[Prompt], dict[str, Any]]:
    """(examples, the rows that they were made from, where those are from).

    Both are comma-separated sets or files.

    A row that has no label of its own is memorized if ``negatives`` names others, and
    unlabelled if not, which the provenance's "notes" say. A negative that is a
    positive, too, is left out, and counted. Raises :class:`UserError` as
    :func:`membench.datasets.prompt_sets.read` does.
    """
    from membench.datasets import prompt_sets

    sets = prompt_sets.read(positives, label=1 if negatives else None) if positives else []
    others = prompt_sets.read(negatives, label=0) if negatives else []
    both = prompt_sets.together(sets, others)
    prompts = [p for s in both for p in s.prompts]
    name = " vs ".join(filter(None, (_words(sets), _words(others))))
    notes = list(_label_notes(both))
    provenance = {"sets": name, "prompts": [s.provenance for s in both]}
    return to_examples(prompts), prompts, provenance | ({"notes": notes} if notes else {})


def _label_notes(sets: Sequence[PromptSet]) -> Iterator[str]:
    """What a run says of labels that no row of a file states: where they are from, or
    that they are unknown.
    """
    for s in sets:
        told, unknown = s.provenance, s.provenance["unlabelled"]
        if told["same_as"]:
            word = "memorized" if told["label"] else "not memorized"
            yield (
                f"{s.name}: these are the prompts of {told['same_as']}; those without a label are"
                f" taken as {word}"
            )
        if unknown:
            advice = (
                "; give the file a column label (1 memorized, 0 not), or name prompts that are not"
                " memorized with --negatives, beside which those of --prompts are the memorized"
                " ones"
            )
            yield (
                f"{s.name}: {unknown:,} of {len(s.prompts):,} prompts are unlabelled: nothing says"
                " whether they are memorized. They are scored, and detection metrics leave them"
                f" out{'' if 'repo' in told or 'url' in told else advice}"
            )


def _words(sets: Sequence[PromptSet]) -> str:
    """A file that holds the prompts of a known set is called like it."""
    return "+".join(WORDS.get(s.provenance["same_as"] or s.name, s.name) for s in sets)


# ------------------------------------------------------------------------- ground truth


def compared(
    o: SdWebsterOptions,
    found: dict[str, Path],
    prompts: Sequence[Prompt],
    device: str,
    batch_size: int,
) -> tuple[GroundTruth, Features]:
    """The prompts' own training images, and the features by which images are compared
    with them.
    """
    from membench.datasets.ground_truth import read_ground_truth

    # Before images are read: a mistake in the weights shall not wait for them.
    features = features_of(o, device, batch_size)
    return read_ground_truth(found["ground truth"], prompts, SIDE, progress=True), features


def features_of(o: SdWebsterOptions, device: str, batch_size: int) -> Features:
    """The network whose vectors are compared."""
    from membench.features.loading import load_features

    weights = o.criterion_weights or (SSCD if o.criterion == "sscd" else "")
    if o.criterion == "clip" and not weights:
        raise UserError(
            "criterion=clip has no default: --set sd_webster.criterion_weights=MODEL:TAG or"
            " MODEL:FILE, such as ViT-B-32:laion2b_s34b_b79k"
        )
    return load_features(
        o.criterion,
        weights,
        device=device,
        batch_size=batch_size,
        preprocess=o.criterion_preprocess,
    )


def space(o: SdWebsterOptions, features: Features | None) -> Space:
    from membench.similarity.spaces import space_of

    return space_of(o.criterion, features.id) if features else NOT_COMPARED


def _match(truth: GroundTruth | None, features: Features | None) -> Any:
    from membench.similarity.criterion import by_features

    return by_features(features, truth.images, truth.pictures) if truth and features else None


def _told(truth: GroundTruth, prompts: Sequence[Prompt]) -> dict[str, int]:
    """Counts of memorized prompts; where none is known to be, of all that may be."""
    kind, label = (
        ("memorized", 1) if any(p.label == 1 for p in prompts) else ("unlabelled", UNLABELLED)
    )
    ids = {example_id(p.text) for p in prompts if p.label == label}
    return {
        "images": len(truth.ids),
        f"{kind} prompts": len(ids),
        "of them with an image": len(ids & set(truth.owners)),
    }


# ---------------------------------------------------------------------------- resources


def resources(o: SdWebsterOptions, *, again: bool = True) -> list[Resource]:
    """All that these options may need and that does not ship; the criterion's weights
    too, which a run reads with a ground truth only.

    again: images that could not be reached before are missing.
    """
    from membench.datasets import prompt_sets
    from membench.features.clip import clip_resource
    from membench.features.sscd import VARIANTS, sscd_resource
    from membench.fetching.resources import Resource

    needed = [model_resource("model", o.model or MODEL, changes_of(o), o.base)]
    needed += [model_resource("control model", o.control_model)] if o.control_model else []
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

    changes = changes or NONE

    pinned = ""
    if base and not Path(model).is_file():
        raise UserError(f"base={base} is for a model that is one file, and {model} is none")
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
            weight_files(Path(model), changes)
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


def model_name(model: str) -> str:
    """As published tables word it: the hub id, of a folder or file its name."""
    from membench.models.checkpoints import known_checkpoint

    if Path(model).exists():
        return Path(model).name
    first = model.partition(",")[0].strip()
    known = known_checkpoint(first)
    return known.repo_id if known else first.partition("@")[0]


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


def _model(
    folder: Path | None, device: str, dtype: str, batch_size: int, changes: Changes
) -> Callable[[], Denoiser]:
    def model() -> Denoiser:
        from membench.models.latent import load_model

        assert folder is not None  # asked for by detectors that need it only
        return load_model(folder, device, dtype, batch_size, changes)

    return model
