"""A GPU gives what the CPU gives, in each precision. Skipped without one;
``MEMBENCH_TEST_DEVICE=cpu`` runs the same tests on the CPU, in half precision too
(benchmarks/gpu.sh).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_tiny_pipeline

import membench
from membench.models.batch_size import LARGEST, automatic
from membench.models.conditioning import Conditioning
from membench.models.derivative import jvp
from membench.models.latent import LatentDenoiser, load_model
from membench.models.sampling import ddim
from membench.types import Condition

DEVICE = os.environ.get("MEMBENCH_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="no CUDA device here"
)

# Relative error of a prediction against float32 on the CPU, in L2. Float32: sums in
# another order through some twenty layers. The halves: 8 and 11 bits of mantissa, an
# error of 2^-9 and 2^-12 a rounding, of which a tiny U-Net makes some hundreds.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
CONDITIONS = [Condition("a", "a red mug"), Condition("b", "two blue boats")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("device") / "tiny", "epsilon")


def loaded(folder: Path, device: str, dtype: str) -> tuple[LatentDenoiser, torch.Tensor]:
    """The model there, and noise, which is the same on every device."""
    model = load_model(folder, device, dtype, 4)
    assert isinstance(model, LatentDenoiser)
    return model, model.noise([(c.id, 0) for c in CONDITIONS], seed=0)


def told(model: LatentDenoiser) -> Conditioning:
    return model.condition(CONDITIONS)


def relative(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((ours.cpu() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_predictions(folder: Path, dtype: str) -> None:
    exact, x = loaded(folder, "cpu", "float32")
    model, there = loaded(folder, DEVICE, dtype)
    assert model.device.type == torch.device(DEVICE).type and torch.equal(there.cpu(), x)
    for t in (981, 501, 1):
        ours, wanted = model.eps(there, t, told(model)), exact.eps(x, t, told(exact))
        assert ours.dtype == torch.float32
        assert relative(ours, wanted) < TOLERANCE[dtype], t


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_derivatives(folder: Path, dtype: str) -> None:
    exact, x = loaded(folder, "cpu", "float32")
    model, there = loaded(folder, DEVICE, dtype)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    _, wanted = jvp(exact, x, 501, told(exact), v)
    _, ours = jvp(model, there, 501, told(model), v.to(DEVICE))
    assert relative(ours, wanted) < 4 * TOLERANCE[dtype]  # two factors at each layer


def test_images_are_within_one_grey_level(folder: Path) -> None:
    images = []
    for device in ("cpu", DEVICE):
        model, x = loaded(folder, device, "float32")
        images.append(model.decode(ddim(model, x, told(model), steps=5, guidance=3.0)))
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


def test_the_batch_size_fits_and_changes_nothing(folder: Path) -> None:
    model, x = loaded(folder, DEVICE, "float32")
    before = model.cost.forwards
    found = automatic(model)
    assert found & (found - 1) == 0 and 1 <= found <= LARGEST and model.cost.forwards == before
    small = model.eps(x, 501, told(model))
    model.batch_size = found
    assert relative(model.eps(x, 501, told(model)), small.cpu()) < TOLERANCE["float32"]


@pytest.mark.skipif(
    DEVICE == "cpu" or shutil.which("cc") is None, reason="a rehearsal, or no compiler here"
)
def test_the_compiled_network_is_the_network(folder: Path) -> None:
    model, x = loaded(folder, DEVICE, "float32")
    plain = model.eps(x, 501, told(model)).cpu()
    model.compile()
    assert relative(model.eps(x, 501, told(model)), plain) < TOLERANCE["float32"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_from_end_to_end(folder: Path, tmp_path: Path, dtype: str) -> None:
    """Scores and images there are those of the CPU."""
    settings = [f"model={folder}", "prompts=" + str(tmp_path / "mine.txt"), "steps=5"]
    (tmp_path / "mine.txt").write_text("a red mug\ntwo blue boats\na green rug\n")
    runs = [
        membench.run(
            "cfg_norm",
            "sd_webster",
            "full",
            options=["draws=2", "steps=2"],
            task_options=settings,
            out=tmp_path / device / kind,
            device=device,
            dtype=kind,
            progress=False,
        )
        for device, kind in (("cpu", "float32"), (DEVICE, dtype))
    ]
    exact, ours = (run.scores.set_index("id").score for run in runs)
    assert np.allclose(ours[exact.index], exact, rtol=2 * TOLERANCE[dtype])
    # Images were made, and there is nothing to compare them with
    assert runs[1].samples.status.tolist() == ["not compared"] * 3
