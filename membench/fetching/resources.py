"""What a task needs and does not ship: found on the disk, fetched, or named with the
command that fetches it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from membench.errors import UserError, UserErrors
from membench.fetching import net


@dataclass(frozen=True)
class Resource:
    """One thing to fetch: a model, a set of prompts, the weights of a descriptor.

    name: unique within a task. what: in words. find: its path, or None if it is not
    here; it never touches the network. fetch: its path after fetching. command: the
    ``membench download ...`` line that fetches it. note: size, licence, revision. Both
    functions may raise :class:`UserError`.
    """

    name: str
    what: str
    find: Callable[[], Path | None]
    fetch: Callable[[], Path]
    command: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.note})" if self.note else self.what


def ensure(resources: Sequence[Resource]) -> dict[str, Path]:
    """The path of each resource, by name; what is missing is fetched, with a line on
    stderr.

    Raises one :class:`UserError` with a line for each resource that is missing, and the
    command that fetches it: at once if the network is forbidden, else when the first
    cannot be fetched. ValueError for two resources of one name.
    """
    _unique(resources)
    found: dict[str, Path] = {}
    lines: list[str] = []
    missing: list[Resource] = []
    for resource in resources:
        try:
            path = resource.find()
        except UserError as error:  # it is here, but damaged
            lines.append(str(error))
            continue
        if path is None:
            missing.append(resource)
        else:
            found[resource.name] = path
    if lines or (missing and net.offline()):
        raise UserErrors(*lines, *map(_missing, missing))
    for i, resource in enumerate(missing):
        print(f"membench: fetching {resource}", file=sys.stderr)
        try:
            found[resource.name] = resource.fetch()
        except UserError as error:
            failed = f"{resource.what} is missing: {error}; to try again: {resource.command}"
            raise UserErrors(failed, *map(_missing, missing[i + 1 :])) from None
    return {resource.name: found[resource.name] for resource in resources}


def download(resources: Sequence[Resource]) -> int:
    """``membench download``: fetches what is missing, and goes on after a failure.

    Prints a line for each; 0 if all are here, else 2.
    """
    _unique(resources)
    lost = 0
    for resource in resources:
        try:
            path = resource.find()
            state = "present"
            if path is None and not net.offline():
                print(f"membench: fetching {resource}", file=sys.stderr)
                path, state = resource.fetch(), "fetched"
        except UserError as error:
            path, state = None, f"failed: {' '.join(str(error).split())}"
        else:
            state = (
                f"missing: --offline forbids to fetch it; without it: {resource.command}"
                if path is None
                else f"{state}: {path}"
            )
        lost += path is None
        print(f"{resource.name}: {state}", flush=True)
    if lost:
        how = (
            "run it without --offline"
            if net.offline()
            else "the same command tries again and keeps what is here"
        )
        print(f"membench: {lost} of {len(resources)} could not be had; {how}", file=sys.stderr)
    return 2 if lost else 0


def _missing(resource: Resource) -> str:
    return f"{resource} is missing; fetch it with: {resource.command}"


def _unique(resources: Sequence[Resource]) -> None:
    names = [resource.name for resource in resources]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two resources of one name: {sorted(n for n in set(names) if names.count(n) > 1)}"
        )
