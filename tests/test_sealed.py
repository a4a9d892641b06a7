"""Stored bytes prove themselves: checkpoints, prepared stages, folders made at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_files import small_files

from membench.errors import UserError
from membench.models.checkpoints import pipeline_folder
from membench.models.pixel import find_model
from membench.models.training import Plan, alone, fit
from membench.storage.cached_folders import PROOF, cached_folder, check_folder
from membench.storage.files import atomic_folder, replace_files, take_lock
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
        other = pytest.raises(
            UserError, match=r"another process trains m in .*; wait until it ends"
        )
        with other, alone("m", tmp_path):
            pytest.fail("trained beside another")
    finally:
        lock.release()
    with alone("m", tmp_path):
        pass


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


def test_a_full_disk_leaves_no_half_of_a_folder(tmp_path: Path) -> None:
    """Safetensors, which says so by an error of its own, and what it could write."""

    def make(folder: Path) -> None:
        (folder / "config.json").write_text("new")
        save_file({"w": torch.zeros(9999)}, folder / "w.safetensors")

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("old")
    for put in (replace_files, atomic_folder):
        to = tmp_path / ("m" if put is replace_files else "new")
        with small_files(1000), pytest.raises(UserError, match=r"File too large; mend it or"):
            put(to, make)
    left = [f.name for f in tmp_path.rglob("*") if f.is_file() and f.suffix != ".lock"]
    assert left == ["config.json"] and (tmp_path / "m" / "config.json").read_text() == "old"


def test_files_take_their_places_when_all_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (folder / "unet").mkdir(parents=True)
    for name in ("unet/w", "training.json"):
        (folder / name).write_text("old")

    def killed(aside: Path) -> None:
        (aside / "unet").mkdir()
        (aside / "unet" / "w").write_text("ha")
        os._exit(9)

    if (child := os.fork()) == 0:
        replace_files(folder, killed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(tmp_path.glob(".*.partial"))) == 1
    assert (folder / "unet" / "w").read_text() == "old"

    def made(aside: Path) -> None:
        for name in ("unet", "vae"):
            (aside / name).mkdir()
            (aside / name / "w").write_text("new")

    replace_files(folder, made)
    found = {f.relative_to(tmp_path): f.read_text() for f in tmp_path.rglob("*") if f.is_file()}
    assert found == {
        Path("m/unet/w"): "new",
        Path("m/vae/w"): "new",
        Path("m/training.json"): "old",
    }


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
