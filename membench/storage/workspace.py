"""Where a detector keeps what it prepares: stages under content keys, made once and
paid for by every run that uses them.

``<out>/<task>/<profile>/prepared/<stage>-<key>/``. The key holds the model's weights,
so a surrogate of another model is never found; a folder that was copied there by hand
is refused. A sweep over guidance weights trains one surrogate only, but each of its
runs carries that surrogate's cost: what a number costs does not depend on what happened
to be cached.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from membench.errors import UserError, reason
from membench.storage.files import remove_partial, take_lock, write_json
from membench.storage.hashing import content_key, files_hashes
from membench.storage.reading import is_amount, parse_json
from membench.types import Cost

RECORDS = ("parts.json", "stage.json")  # of a stage


@dataclass(frozen=True)
class Stage:
    """A finished stage. seconds: of the making, over all its sessions."""

    path: Path
    key: str
    cost: Cost
    seconds: float


class Workspace:
    """The stages of one run's preparation.

    ``cost`` and ``seconds`` are the sums over the stages asked for so far.

    identity: what every stage depends on (weights, data type). progress: whether to
    show bars.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], *, progress: bool = False) -> None:
        self.root, self.identity, self.progress = root, dict(identity), progress
        self.cost, self.seconds = Cost(), 0.0

    def stage(
        self, name: str, parts: Mapping[str, Any], make: Callable[[Path], tuple[Cost, float]]
    ) -> Stage:
        """The stage of these parts, made by ``make(folder)`` (its cost and seconds,
        earlier sessions included) unless it is there.

        Raises UserError if the folder holds a stage of other parts, another process is
        making it, or the disk refuses.
        """
        parts = json.loads(json.dumps({"stage": name, **self.identity, **parts}))
        key = content_key(parts)
        folder = self.root / f"{name}-{key}"
        busy = f"another process is preparing {folder}; wait until it ends, or end it"
        lock = take_lock(folder / ".lock", busy)
        try:
            done = folder / "stage.json"
            # Before the work, so that what an interrupted session left is refused too
            # if it is another model's.
            self._claim(folder / "parts.json", parts)
            if done.exists():
                found = _read(done)
                _check_record(done, found)
                _prove(folder, found.get("files", {}))
            else:
                remove_partial(folder)
                cost, seconds = make(folder)
                found = {"cost": asdict(cost), "seconds": round(seconds, 3)}
                write_json(done, found | {"files": _hashes(folder)})
        finally:
            lock.release()
        made = Stage(folder, key, Cost(**found["cost"]), found["seconds"])
        self.cost, self.seconds = self.cost + made.cost, self.seconds + made.seconds
        return made

    @staticmethod
    def _claim(file: Path, parts: Mapping[str, Any]) -> None:
        if not file.exists():
            write_json(file, parts)
            return
        held = _read(file)
        if differing := sorted(k for k in {*held, *parts} if held.get(k) != parts.get(k)):
            raise UserError(
                f"{file.parent} was prepared with other {', '.join(differing)}; delete it and run"
                " again"
            )


def _check_record(file: Path, found: Mapping[str, Any]) -> None:
    """Raises UserError for a stage.json that does not say what the stage cost."""
    cost, files = found.get("cost"), found.get("files", {})
    if (
        not isinstance(files, dict)
        or not isinstance(cost, dict)
        or not set(cost) <= {field.name for field in fields(Cost)}
        or not all(map(is_amount, (*cost.values(), found.get("seconds"))))
    ):
        raise UserError(
            f"{file} is damaged (it does not say what the stage cost); delete {file.parent} and run"
            " again"
        )


def _prove(folder: Path, files: Mapping[str, str]) -> None:
    """Raises UserError where the stage does not hold just what was prepared."""
    if altered := sorted(set(_hashes(folder).items()) ^ set(files.items())):
        raise UserError(
            f"{folder / altered[0][0]} is not what was prepared; delete {folder} and run again"
        )


def _hashes(folder: Path) -> dict[str, str]:
    """Of what a stage holds beside its own records, by name."""
    return {name: of for name, of in files_hashes(folder).items() if name not in RECORDS}


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(parse_json(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file} is damaged ({reason(error)}); delete {file.parent} and run again"
        ) from None
