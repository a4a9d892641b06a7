"""The check of a task class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from membench import task as tasks
from membench.errors import UserError
from membench.runs import contract
from membench.runs.contract import ContractError
from membench.task import LoadedTask
from membench.testing.rules import Broken, check_fields, one_line, options_of, require


def check_task(cls: type, options: Mapping[str, Any] | None = None) -> LoadedTask:
    """Loads the first profile of a task, twice, and checks everything that the harness
    relies on.

    Its declaration; ids that are unique and the same each time; labels, kinds and
    groups; hashes; training images beside their ids; a model that takes the examples;
    and a control model, if it has one, on the same examples.

    options: in place of the defaults. Returns what was loaded. Raises :class:`Broken`,
    and whatever the class raises.
    """
    name = cls.__name__
    try:
        found = tasks.adopted(cls)
    except TypeError as error:
        raise Broken(str(error)) from None
    info = found.info
    sampled = bool(info.profiles) and {"steps", "guidance"} <= set(info.sampling)
    require(sampled, f"{name}.info needs profiles, and sampling with steps and guidance")
    check_fields(found.Options, name)
    task = found(options_of(found.Options, options, f"task {info.name}"))
    try:
        loaded, again = (contract.load(task, info.profiles[0]) for _ in range(2))
    except ContractError as error:
        raise Broken(str(error)) from error
    ids = [e.id for e in loaded.examples]
    require(
        len(set(ids)) == len(ids) > 0, f"{name}: the ids of its {len(ids)} examples are not unique"
    )
    same = ids == [e.id for e in again.examples] and dict(loaded.hashes) == dict(again.hashes)
    require(same, f"{name} loads other examples or hashes each time")
    require(
        {"data", "prompts", "weights"} <= set(loaded.hashes),
        f"{name}.hashes needs data, prompts and weights",
    )
    for e in loaded.examples:
        right = e.memorized in (1, 0, -1)
        require(
            right, f"{name}: example {e.id} has memorized={e.memorized!r}; it must be 1, 0 or -1"
        )
        require(
            bool(e.kind and e.group and e.source),
            f"{name}: example {e.id} lacks kind, group or source",
        )
    images = loaded.training.images()
    beside = len(images) == len(loaded.training.ids)
    require(beside, f"{name}: {len(images)} training images and {len(loaded.training.ids)} ids")
    require(
        images.dtype == np.uint8 and images.ndim == 4,
        f"{name}: training images are not uint8 [n, h, w, 3]",
    )
    model = loaded.model()
    with torch.no_grad():
        told = [e.condition for e in loaded.examples[:2]]
        x = model.noise([(c.id, 0) for c in told], 0)
        eps = model.eps(x, model.steps // 2, model.condition(told))
    require(bool(eps.isfinite().all()), f"{name}: its model returns NaN or infinity")
    _control(task, loaded, name)
    return loaded


def _control(task: tasks.Task, loaded: LoadedTask, name: str) -> None:
    """The control model: refused in one line, or another model on the same examples."""
    try:
        control = contract.load(task, loaded.profile, control=True)
    except ContractError as error:
        raise Broken(str(error)) from error
    except UserError as error:
        return one_line(error, name)
    same = [e.id for e in control.examples] == [e.id for e in loaded.examples]
    require(
        same and control.control,
        f"{name}: with control=True it loads other examples, or does not say so",
    )
    differ = control.hashes.get("weights") != loaded.hashes.get("weights")
    require(
        differ,
        f"{name}: its control model has the weights of its model; refuse control where there is"
        " none",
    )
