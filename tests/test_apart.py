"""A TorchScript file runs in a process that can open nothing."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path

import pytest
import torch

from membench.errors import UserError
from membench.features.apart import Apart, ProgramFailed
from membench.features.loading import load_features

X = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("\x1b[31m not on the terminal")
        return x.flatten(1) * 2


class Writes(torch.nn.Module):
    """Maps a file and changes it, when it is asked."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mapped = torch.from_file(self.path, True, 4, dtype=torch.uint8)
        mapped.fill_(88)
        return x.flatten(1) + mapped.sum()


class WritesWhileLoaded(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        mapped = torch.from_file(self.path, True, 4, dtype=torch.uint8)
        mapped.fill_(88)
        self.training = state[1] or bool(mapped.sum() > 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class Fails(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            raise ValueError("these images are not mine")
        return x.flatten(1)


def saved(module: torch.nn.Module, file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        torch.jit.save(torch.jit.script(module), str(file))
    return file


def test_the_numbers_are_those_of_the_model_and_its_process_ends_with_it(
    tmp_path: Path, capfd
) -> None:
    apart = Apart(saved(Plain(), tmp_path / "m.pt"), "cpu")
    for x in (X, X[:1], X[:0], X):
        assert torch.equal(apart(x), x.flatten(1) * 2)
    assert capfd.readouterr() == ("", "")
    child = apart._child.pid
    os.kill(child, 0)
    del apart
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize("how", [Writes, WritesWhileLoaded])
def test_a_program_changes_no_file(how, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    file = saved(how(str(mine)), tmp_path / "m.pt")  # what is saved has not yet run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(file))(X)  # in this process it does what it says
    assert mine.read_text() == "XXXX"
    mine.write_text("mine")
    with pytest.raises(UserError, match="no TorchScript model") as refused:
        load_features("sscd", str(file))
    assert "\n" not in str(refused.value) and mine.read_text() == "mine"
    failed = refused.value.__cause__
    assert isinstance(failed, ProgramFailed) and "Too many open files" in str(failed)


def test_what_fails_later_is_one_line(tmp_path: Path) -> None:
    apart = Apart(saved(Fails(), tmp_path / "m.pt"), "cpu")
    assert apart(-X).shape == (2, 12)
    with pytest.raises(ProgramFailed, match=r"m\.pt failed: .*not mine") as failed:
        apart(X)
    assert "\n" not in str(failed.value)
    with pytest.raises(ProgramFailed, match="ended its process"):
        apart(-X)
