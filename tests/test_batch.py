"""How many images at once: the rule of the CPU, the line through measured peaks, and
what a loaded model is set to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, save_tiny_pipeline
from diffusers import DDIMScheduler

from membench.cli.main import main
from membench.errors import UserError
from membench.models.batch_size import SHARE, Tuned, automatic, by_memory, by_size, fitting
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.pixel import PixelDenoiser
from membench.runs.job import load_task
from membench.runs.spec import Spec
from membench.types import Condition


class Network(torch.nn.Module):
    """Only a configuration, and how many rows it was given."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.config = {"block_out_channels": channels}
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor, t: int) -> SimpleNamespace:
        self.rows.append(len(x))
        return SimpleNamespace(sample=x)


def model(channels: tuple[int, ...], *shape: int) -> PixelDenoiser:
    return PixelDenoiser(Network(*channels), DDIMScheduler(), shape=shape)


@pytest.mark.parametrize(
    ("channels", "shape", "expected"),
    [
        ((320, 640, 1280, 1280), (4, 64, 64), 8),  # Stable Diffusion 1: 2^24 / (320 * 4096) = 12.8
        ((320, 640, 1280, 1280), (4, 96, 96), 4),  # 2 at 768 pixels: 5.7
        ((128, 256, 256, 256), (3, 32, 32), 64),  # google/ddpm-cifar10-32
        ((128, 128, 256), (3, 256, 256), 2),
        ((2048,), (3, 128, 128), 1),
    ],
)
def test_the_rule_of_the_cpu(
    channels: tuple[int, ...], shape: tuple[int, ...], expected: int
) -> None:
    assert by_size(model(channels, *shape)) == automatic(model(channels, *shape)) == expected


def test_the_shipped_models_keep_their_64() -> None:
    """So that no number of the mini profiles moves."""
    found = {}
    for file in (ROOT / "tasks" / "data").rglob("unet/config.json"):
        config = json.loads(file.read_text())
        side = config["sample_size"]
        found[file] = by_size(
            model(tuple(config["block_out_channels"]), config["in_channels"], side, side)
        )
    assert len(found) == 14 and set(found.values()) == {64}


def test_the_largest_power_of_two_whose_peak_fits() -> None:
    gib = 2**30
    # 3 GiB fixed and 0.5 an image: 16 images take 11, 32 take 19.
    peaks = (4 * gib, 5 * gib)
    assert [fitting((2, 4), peaks, memory * gib) for memory in (10.9, 11, 18.9, 19, 1000)] == [
        8,
        16,
        16,
        32,
        256,
    ]
    # Not even one by the line, though two were measured: the run will tell
    assert fitting((2, 4), peaks, 3.1 * gib) == 1
    assert fitting((2, 4), (gib, gib), 2 * gib) == 256  # a workspace that hides the images


@pytest.mark.parametrize("seed", range(5))
def test_the_line_against_a_search(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    fixed, each, memory = (int(torch.randint(1, 10**9, (1,), generator=draw)) for _ in range(3))
    memory = fixed + each * 3 + memory * 40
    fits = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if fixed + each * n <= memory]
    assert fitting((2, 4), (fixed + 2 * each, fixed + 4 * each), memory) == max(fits)


@dataclass
class FakeMeter:
    """A device on which a batch of n images takes fixed + n * each bytes, and the first
    call a workspace beside.
    """

    network: Network
    fixed: int = 1000
    each: int = 100
    memory: int = 10_000
    calls: list[int] = field(default_factory=list)

    def free(self) -> int:
        return self.memory

    def peak(self, act) -> int:
        act()
        rows = self.network.rows[-1]
        self.calls.append(rows)
        taken = self.fixed + rows * self.each
        if taken > self.memory:
            raise UserError("out of memory")
        return taken + (5000 if len(self.calls) == 1 and self.memory > 7000 else 0)


@pytest.mark.parametrize(
    ("memory", "expected"), [(10_000, 64), (9_250, 64), (9_249, 32), (10**9, 256), (1_399, 2)]
)
def test_memory_is_measured_on_one_pair_and_on_two(memory: int, expected: int) -> None:
    """SHARE * memory >= 1000 + 100 n; where two pairs do not fit, one is what is known
    to fit.
    """
    m = model((8,), 3, 8, 8)
    meter = FakeMeter(m.network, memory=memory)
    assert by_memory(m, meter) == expected
    assert meter.calls == [2, 2, 4] and SHARE == 0.8
    assert m.cost.forwards == 0 and m.batch_size == 64


def test_a_device_that_not_even_a_pair_fits_on() -> None:
    m = model((8,), 3, 8, 8)
    with pytest.raises(UserError, match="out of memory"):
        by_memory(m, FakeMeter(m.network, memory=1199))
    assert m.batch_size == 64


def test_memory_of_a_text_to_image_model(tiny_pipeline_folder) -> None:
    m = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
    rows: list[int] = []
    m.network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))

    class Meter:
        def free(self) -> int:
            return 100_000

        def peak(self, act) -> int:
            act()
            return 1000 * rows[-1]

    assert by_memory(m, Meter()) == 64 and rows == [2, 2, 4]


@pytest.mark.parametrize(("wanted", "expected"), [(0, 64), (5, 5)])
def test_a_loaded_model_is_set_to_it(wanted: int, expected: int) -> None:
    task = load_task(Spec("cfg_norm", "sd_webster", batch_size=wanted))
    assert isinstance(task.model, Tuned) and task.model.batch_size == 0
    assert task.model().batch_size == task.model.batch_size == expected


def test_out_of_memory_is_one_line(tiny_pipeline_folder) -> None:
    m = LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=6)

    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore lines")

    m._run = m.network
    m.network.forward = full
    x = torch.zeros(1, *m.shape)
    with pytest.raises(
        UserError,
        match=(
            r"^out of memory on cpu at batch size 6: set --batch-size 3; what is finished is kept$"
        ),
    ):
        m.eps(x, 5, m.null_like(m.condition([]), 1))
    m.batch_size = 1
    with pytest.raises(UserError, match="at batch size 1: take a larger device"):
        m.raw_eps(x, 5, m.null_like(m.condition([]), 1))
    m.network.forward = lambda *args: 1 / 0
    with pytest.raises(ZeroDivisionError):
        m.eps(x, 5, m.null_like(m.condition([]), 1))


def test_pictures_that_do_not_fit_go_by_halves(tiny_pipeline_folder, monkeypatch) -> None:
    """Of what takes more memory than an evaluation fewer go at once, with the same
    images, and no count twice.
    """
    from diffusers import AutoencoderKL

    m = LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=8)
    x = torch.randn(7, *m.shape, generator=torch.Generator().manual_seed(2))
    expected, sizes, decode = m.decode(x.clone()), [], AutoencoderKL.decode

    def small(self: object, z: torch.Tensor, *rest: object, **more: object) -> object:
        sizes.append(len(z))
        if len(z) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(self, z, *rest, **more)

    monkeypatch.setattr(AutoencoderKL, "decode", small)
    m.cost.decodes = 0
    assert (
        np.abs(m.decode(x.clone()).astype(int) - expected).max() <= 1
        and sizes == [7, 4, 2, 2, 2, 1]
        and m.cost.decodes == 7
    )
    sizes.clear()
    m.decode(x.clone())
    # It is not tried again; evaluations keep their own
    assert sizes == [2, 2, 2, 1] and m.batch_size == 8
    monkeypatch.setattr(
        AutoencoderKL,
        "decode",
        lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")),
    )
    with pytest.raises(UserError, match="out of memory on cpu"):
        m.decode(x)


def test_derivatives_that_do_not_fit_go_by_halves(tiny_pipeline_folder) -> None:
    from membench.models import derivative, trace

    m = LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=8)
    x, told = (
        torch.randn(3, *m.shape, generator=torch.Generator().manual_seed(3)),
        m.condition([Condition(str(i), "a mug") for i in range(3)]),
    )
    vectors = trace.random_probes(m.shape, ["a", "b", "c"], 0, 4, "rademacher")
    how = derivative.choose(m, "jvp")
    eps, forms = derivative.quadratic_forms(m, x, 5, told, vectors, 4, how)
    jvps, forward, tried = m.cost.jvps, m._forward, []

    def small(y: torch.Tensor, t: int, condition: object) -> torch.Tensor:
        tried.append(len(y))
        if len(y) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(y, t, condition)

    m._forward = small
    m.cost.jvps = 0
    again, others = derivative.quadratic_forms(m, x, 5, told, vectors, 4, how)
    assert m.cost.jvps == jvps == 12 and tried[0] == 2 and tried[-1] == 1
    assert torch.allclose(again, eps, atol=1e-5) and torch.allclose(
        others, forms, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("size", ["0", "-3", "many"])
def test_a_batch_size_that_is_none(capsys, size: str) -> None:
    assert (
        main(["run", "--detector", "cfg_norm", "--task", "sd_webster", f"--batch-size={size}"]) == 2
    )
    assert f"--batch-size {size}: it must be auto or a number" in capsys.readouterr().err


def test_the_run_says_what_it_used(tmp_path: Path, capsys) -> None:
    folder = save_tiny_pipeline(tmp_path / "model", "epsilon")
    base = [
        "run",
        "--detector",
        "cfg_norm",
        "--task",
        "sd_webster",
        "--model",
        str(folder),
        "--limit",
        "3",
        "--quiet",
    ]
    for name, more, expected in (
        ("a", [], 64),
        ("b", ["--batch-size", "auto"], 64),
        ("c", ["--batch-size", "2"], 2),
    ):
        assert main([*base, "--set", "images=0", "--runs", str(tmp_path / name), *more]) == 0, (
            capsys.readouterr().err
        )
        [file] = (tmp_path / name).rglob("run.json")
        info = json.loads(file.read_text())
        assert info["batch_size"] == expected and info["compile"] is False
    keys = {file.parent.name for file in tmp_path.rglob("run.json")}
    assert len(keys) == 1
