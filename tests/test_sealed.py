"""Stored bytes prove themselves: checkpoints, prepared stages, folders made at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from membench.errors import UserError
from membench.models.checkpoints import pipeline_folder
from membench.models.pixel import find_model
from membench.models.training import Plan, fit
from membench.storage.cached_folders import PROOF, cached_folder, check_folder
from membench.storage.files import atomic_folder, take_lock
from membench.storage.sealed import read_sealed, write_sealed
from membench.storage.workspace import Workspace
from membench.types import Cost


def plan(steps: int) -> Plan:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8)
    data = torch.randn(4, 8)
    return Plan(
        "m", {"m": layer}, lambda step, _: layer(data).square().mean(), steps, lambda _: 0.1
    )


def test_content_comes_back_and_nothing_else_does(tmp_path: Path) -> None:
    write_sealed(tmp_path / "f", b"one\ntwo")
    assert read_sealed(tmp_path / "f") == b"one\ntwo"
    for content in (b"", b"one\ntwo", (tmp_path / "f").read_bytes()[:-1]):
        (tmp_path / "g").write_bytes(content)
        with pytest.raises(UserError, match="g is damaged"):
            read_sealed(tmp_path / "g")


def test_no_damaged_checkpoint_is_trained_on(tmp_path: Path) -> None:
    """A flipped bit anywhere, a cut, zeros: of a weight, too, which would load."""
    fit(plan(2), tmp_path, progress=False)
    file, rng = tmp_path / "m.checkpoint", np.random.RandomState(0)
    whole = file.read_bytes()
    for kind in ["flip"] * 40 + ["cut"] * 10 + ["zeros"] * 10:
        at = int(rng.randint(0, len(whole) - 64))
        damaged = bytearray(whole)
        if kind == "flip":
            damaged[at] ^= 1 << rng.randint(8)
        elif kind == "cut":
            del damaged[at:]
        else:
            damaged[at : at + 64] = bytes(64)
        if bytes(damaged) == whole:
            continue
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"m\.checkpoint is damaged; delete it"):
            fit(plan(3), tmp_path, progress=False)
    file.write_bytes(whole)
    assert fit(plan(3), tmp_path, progress=False)["steps"] == 3


def test_two_trainings_of_one_part_do_not_write_into_each_other(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / ".m.lock", "")
    try:
        with pytest.raises(UserError, match=r"another process trains m in .*; wait until it ends"):
            fit(plan(1), tmp_path, progress=False)
    finally:
        lock.release()
    assert not (tmp_path / "m.checkpoint").exists()


@pytest.mark.parametrize("change", ["altered", "missing", "added"])
def test_a_stage_that_is_not_what_was_prepared_is_named(change: str, tmp_path: Path) -> None:
    def make(folder: Path) -> tuple[Cost, float]:
        (folder / "x.bin").write_bytes(b"abc")
        return Cost(forwards=1), 1.0

    workspace = Workspace(tmp_path, {"weights": "w"})
    folder = workspace.stage("draw", {}, make).path
    if change == "altered":
        (folder / "x.bin").write_bytes(b"abd")
    elif change == "missing":
        (folder / "x.bin").unlink()
    else:
        (folder / "y.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"\.bin is not what was prepared; delete .* and run again"):
        workspace.stage("draw", {}, make)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "one").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_folder(tmp_path / "t", killed)
    assert not (tmp_path / "t").exists()

    def whole(folder: Path) -> None:
        assert not list(folder.iterdir())  # nothing of the killed one
        (folder / "two").write_text("2")

    atomic_folder(tmp_path / "t", whole)
    atomic_folder(tmp_path / "t", killed)  # there already
    assert [f.name for f in (tmp_path / "t").iterdir()] == ["two"]


@pytest.mark.parametrize("change", ["altered", "missing", "added", "unproved"])
def test_a_folder_of_the_cache_that_is_not_what_was_written_is_made_again(
    change: str, tmp_path: Path
) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "part").mkdir()
        (folder / "part" / "x.bin").write_bytes(b"abc")

    folder = cached_folder(tmp_path / "c", make)
    assert cached_folder(folder, make) == folder and len(made) == 1
    part = folder / "part"
    if change == "altered":
        (part / "x.bin").write_bytes(b"abd")
    elif change == "missing":
        (part / "x.bin").unlink()
    elif change == "added":
        (part / "y.bin").write_bytes(b"")
    else:
        next(folder.glob(".*")).write_text("{")
    cached_folder(folder, make)
    assert len(made) == 2 and [f.name for f in part.iterdir()] == ["x.bin"]
    assert (part / "x.bin").read_bytes() == b"abc"
    cached_folder(folder, make)
    assert len(made) == 2


def test_a_folder_of_the_cache_that_a_user_names_is_proved(tmp_path: Path) -> None:
    """And a part of it; a folder without a proof is the user's own."""

    def make(folder: Path) -> None:
        (folder / "unet").mkdir()
        (folder / "unet" / "x.bin").write_bytes(b"abc")

    folder = cached_folder(tmp_path / "c", make)
    readers: list[Callable[[str], object]] = [
        lambda name: check_folder(Path(name)),
        pipeline_folder,
        find_model,
    ]
    for read in readers:
        for place in (folder, folder / "unet"):
            read(str(place))
    (folder / "unet" / "x.bin").write_bytes(b"abd")
    for read in readers:
        for place in (folder, folder / "unet"):
            with pytest.raises(UserError, match="not what was written there: delete it"):
                read(str(place))
    (folder / PROOF).write_text("[" * 200_000)  # of somebody else's folder
    with pytest.raises(UserError, match="not what was written there: delete it"):
        check_folder(folder)
    (folder / PROOF).unlink()
    for read in readers:
        read(str(folder))
