"""Extracted images against a reference set of descriptors, in place of the prompts' own
training images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from membench.errors import UserError
from membench.storage.hashing import json_hash
from membench.types import Space, Training

if TYPE_CHECKING:
    from membench.similarity.criterion import Features
    from membench.similarity.reference import ReferenceMatch

    from .options import SdWebsterOptions


@dataclass(frozen=True)
class Reference:
    """told: for run.json. notes: lines for people, that say exact or lower bound."""

    match: ReferenceMatch
    training: Training
    space: Space
    told: dict[str, int | float | str]
    notes: tuple[str, ...]


def read_reference(o: SdWebsterOptions, features: Features, progress: bool = True) -> Reference:
    """Raises :class:`UserError` for descriptors of another network or dimension."""
    import numpy as np

    from membench.similarity.descriptors import read_descriptors
    from membench.similarity.reference import ExactSearch, ReferenceMatch, Search
    from membench.similarity.spaces import space_of

    known = read_descriptors(Path(o.reference), progress=progress)
    width = features(np.zeros((1, 64, 64, 3), np.uint8)).shape[1]
    if known.features not in ("", features.id) or known.dimension != width:
        raise UserError(
            f"reference={o.reference} holds {known.dimension} dimensions of"
            f" {known.features or 'an unnamed network'}, and images are described by {width} of"
            f" {features.id}; choose criterion and criterion_weights that made them"
        )
    count = f"{len(known):,} descriptors"
    told: dict[str, int | float | str] = {"descriptors": len(known), "search": o.reference_search}
    settings: dict[str, int | str] = {}
    notes = []
    if not known.features:
        notes.append(
            f"{o.reference}: no .json beside it says which network made these descriptors; they are"
            f" taken to be of {features.id}"
        )
    space = space_of(o.criterion, features.id)
    if o.reference_search == "exact":
        if o.reference_index:
            raise UserError(
                f"reference_index={o.reference_index} is read with reference_search=ivfpq only"
            )
        exact: Search = ExactSearch(known)
        match = ReferenceMatch(features, known, exact)
        how = f"exact search of {count}"
    else:
        from membench.similarity.faiss_index import VERSION, IndexSettings, open_index
        from membench.storage.cache import remembered_hash

        wanted = IndexSettings(probes=o.reference_probes)
        file = Path(o.reference_index) if o.reference_index else None
        search = open_index(known, wanted, file, progress=progress)
        match = ReferenceMatch(features, known, search)
        told |= {"recall": search.recall, "probes": wanted.probes}
        settings = {"probes": wanted.probes, "candidates": wanted.candidates}
        # What an index holds decides what is found: of a file its bytes, else how one is
        # built
        settings |= (
            {"file": remembered_hash(file)}
            if file
            else {"version": VERSION, "lists": wanted.lists, "code": wanted.code}
        )
        space = replace(space, id=f"{space.id}/ivfpq")
        how = f"approximate search (IVF-PQ) of {count}: counts are lower bounds"
    return Reference(
        match=match,
        training=Training(
            Training.none().images,
            known.ids,
            (1,) * len(known),  # nobody has counted them
            hash=json_hash([known.hash, o.reference_search, settings]),
        ),
        space=replace(space, source=f"{space.source}; {how}"),
        told=told,
        notes=tuple(notes),
    )
