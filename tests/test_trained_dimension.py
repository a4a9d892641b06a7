"""A network that has learned its data: LID by FLIPD and by the normal bundle is about
the dimension of each piece.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from analytic import pieces
from diffusers import DDIMScheduler
from scipy.stats import mannwhitneyu

from membench.detectors.flipd import Flipd
from membench.detectors.normal_bundle import NormalBundle
from membench.models.conditioning import Conditioning
from membench.models.pixel import PixelDenoiser

DIMS, SIZE = (2, 12), 64
SAMPLING = {"steps": 4, "guidance": 1.0}
NAMES = [str(i) for i in range(20)]


class Residual(torch.nn.Module):
    """Three residual blocks on the pixels and Fourier features of log SNR; predicts
    eps.
    """

    def __init__(self, scheduler: DDIMScheduler, width: int = 192) -> None:
        super().__init__()
        self.abar = scheduler.alphas_cumprod
        self.first = torch.nn.Linear(SIZE + 33, width)
        self.layers = torch.nn.ModuleList([block(width) for _ in range(3)])
        self.last = torch.nn.Linear(width, SIZE)
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, 6.9, 16)))

    def forward(self, x: torch.Tensor, t: torch.Tensor | int) -> SimpleNamespace:
        abar = self.abar[torch.as_tensor(t).expand(len(x))]
        snr = (((1 - abar) / abar).log() / 10)[:, None]
        h = self.first(
            torch.cat(
                [x.flatten(1), (snr * self.frequencies).sin(), (snr * self.frequencies).cos(), snr],
                dim=1,
            )
        )
        for layer in self.layers:
            h = h + layer(h)
        return SimpleNamespace(sample=self.last(h).view_as(x))


def block(width: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.SiLU(),
        torch.nn.Linear(width, width),
        torch.nn.SiLU(),
        torch.nn.Linear(width, width),
    )


@pytest.fixture(scope="module")
def trained() -> tuple[PixelDenoiser, list[torch.Tensor]]:
    """The model, and 20 points of each piece that it was not trained on."""
    torch.manual_seed(0)
    true, scheduler = pieces(*DIMS, size=SIZE, apart=1.0), DDIMScheduler(clip_sample=False)
    data = torch.cat([true.network.draw(piece, 4000, seed=5 + piece) for piece in (0, 1)])
    network, steps = Residual(scheduler), 1500
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x0, t = data[torch.randint(len(data), (256,))], torch.randint(1000, (256,))
        noise = torch.randn_like(x0)
        loss = torch.nn.functional.mse_loss(
            network(scheduler.add_noise(x0, noise, t), t).sample, noise
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model = PixelDenoiser(network, scheduler, shape=(1, 8, 8), batch_size=256)
    return model, [true.network.draw(piece, len(NAMES), seed=99) for piece in (0, 1)]


def test_flipd_is_about_the_dimension_and_tells_the_pieces_apart(trained) -> None:
    model, points = trained
    detector = Flipd(Flipd.Options(t0=0.1, trace="exact"), seed=0, sampling=SAMPLING)
    low, high = (detector.lid(model, x, Conditioning(None), NAMES) for x in points)
    assert abs(float(low.mean()) - 2) < 3 and abs(float(high.mean()) - 12) < 3
    # Every point of 12 dimensions above every one of 2
    assert mannwhitneyu(high, low).statistic == len(low) * len(high)


def test_the_normal_bundle_finds_the_dimension_to_one(trained) -> None:
    model, points = trained
    detector = NormalBundle(NormalBundle.Options(t0=0.03), seed=0, sampling=SAMPLING)
    for x, d in zip(points, DIMS, strict=True):
        found = torch.tensor(detector.lid(model, x[:9], Conditioning(None), NAMES[:9]))
        assert abs(int(found.median()) - d) <= 1
