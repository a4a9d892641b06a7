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

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench.datasets.prompts import Prompt, example_id
from membench.errors import UserError
from membench.options import refuse_unread
from membench.task import LoadedTask, TaskInfo
from membench.types import UNLABELLED, Space, Training

from ..shared import examples_hash
from .reference import read_reference
from .resources import (
    MODEL,
    MODELS,
    SSCD,
    changes_of,
    refuse_mini,
    resources,
    sets_of,
)
from .sets import PROMPTS, chosen_prompts, negatives_of

if TYPE_CHECKING:
    from membench.datasets.ground_truth import GroundTruth
    from membench.models.changes import Changes
    from membench.models.denoiser import Denoiser
    from membench.similarity.criterion import Features

    from .options import SdWebsterOptions


# Pixels of a ground-truth image, whatever the model generates: one data set for all
# models
SIDE = 512
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
    progress: bool = True,
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
    refuse_mini(o)
    _refuse_unread(o)
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
        truth, features = compared(o, found, prompts, device, batch_size, progress)
    elif o.reference:
        features = features_of(o, device, batch_size)
        reference = read_reference(o, features, progress)
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
        match=reference.match if reference else _match(truth, features, progress),
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


def _refuse_unread(o: SdWebsterOptions) -> None:
    """Raises :class:`UserError` for options of a search that is not made. Of a criterion
    without images to compare with, the run itself says that nothing was compared.
    """
    if not o.reference:
        of_search = ("reference_search", "reference_index", "reference_probes")
        refuse_unread(o, of_search, "it is read with reference only")
    elif o.reference_search == "exact":
        refuse_unread(o, ("reference_probes",), "it is read with reference_search=ivfpq only")


# ------------------------------------------------------------------------- ground truth


def compared(
    o: SdWebsterOptions,
    found: dict[str, Path],
    prompts: Sequence[Prompt],
    device: str,
    batch_size: int,
    progress: bool,
) -> tuple[GroundTruth, Features]:
    """The prompts' own training images, and the features by which images are compared
    with them.
    """
    from membench.datasets.ground_truth import read_ground_truth

    # Before images are read: a mistake in the weights shall not wait for them.
    features = features_of(o, device, batch_size)
    truth = read_ground_truth(found["ground truth"], prompts, SIDE, progress=progress)
    return truth, features


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
        option="--set sd_webster.criterion_weights=",
    )


def space(o: SdWebsterOptions, features: Features | None) -> Space:
    from membench.similarity.spaces import space_of

    return space_of(o.criterion, features.id) if features else NOT_COMPARED


def _match(truth: GroundTruth | None, features: Features | None, progress: bool) -> Any:
    from membench.similarity.criterion import by_features

    if not (truth and features):
        return None
    return by_features(features, truth.images, truth.pictures, progress=progress)


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


def model_name(model: str) -> str:
    """As published tables word it: the hub id, of a folder or file its name."""
    from membench.models.checkpoints import known_checkpoint

    if Path(model).exists():
        return Path(model).name
    first = model.partition(",")[0].strip()
    known = known_checkpoint(first)
    return known.repo_id if known else first.partition("@")[0]


def _model(
    folder: Path | None, device: str, dtype: str, batch_size: int, changes: Changes
) -> Callable[[], Denoiser]:
    def model() -> Denoiser:
        from membench.models.latent import load_model

        assert folder is not None  # asked for by detectors that need it only
        return load_model(folder, device, dtype, batch_size, changes)

    return model
