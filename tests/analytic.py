"""A denoiser whose eps is known in closed form: data on one or several flat pieces of
known dimension.

Piece k: x0 = mean_k + U_k a, a ~ N(0, 1) in d_k dimensions, so that p_t is a mixture of
N(alpha mean_k, abar U_k U_k' + sigma^2).
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler

from membench.models.pixel import PixelDenoiser


class Pieces(torch.nn.Module):
    """eps = -sigma grad log p_t, written from the mixture's density. dims: d_k; the
    means lie far apart.
    """

    def __init__(
        self, scheduler: DDIMScheduler, size: int, dims: tuple[int, ...], apart: float
    ) -> None:
        super().__init__()
        self.scheduler, self.size, self.dims = scheduler, size, dims
        source = torch.Generator().manual_seed(0)
        self.bases = [torch.linalg.qr(torch.randn(size, d, generator=source))[0] for d in dims]
        self.means = [
            apart * torch.randn(size, generator=source) if len(dims) > 1 else torch.zeros(size)
            for _ in dims
        ]
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # a Denoiser asks for device and dtype

    def forward(self, x: torch.Tensor, t: int, *_: object) -> SimpleNamespace:
        abar = float(self.scheduler.alphas_cumprod[t])
        sigma2, flat = 1 - abar, x.flatten(1)
        logs, scores = [], []
        for d, u, mean in zip(self.dims, self.bases, self.means, strict=True):
            r = flat - abar**0.5 * mean
            along = (r @ u) @ u.T  # variance abar + sigma^2 = 1 along the piece, sigma^2 across it
            across = r - along
            logs.append(
                -(along**2).sum(1) / 2
                - (across**2).sum(1) / (2 * sigma2)
                - (self.size - d) / 2 * torch.tensor(sigma2).log()
            )
            scores.append(-along - across / sigma2)
        weights = torch.stack(logs).softmax(dim=0)
        score = (weights[:, :, None] * torch.stack(scores)).sum(dim=0)
        return SimpleNamespace(sample=(-(sigma2**0.5) * score).view_as(x))

    def draw(self, piece: int, n: int, seed: int = 1) -> torch.Tensor:
        """Clean points [n, 1, h, w] of one piece."""
        source = torch.Generator().manual_seed(seed)
        side = int(self.size**0.5)
        points = (
            self.means[piece]
            + torch.randn(n, self.dims[piece], generator=source) @ self.bases[piece].T
        )
        return points.view(n, 1, side, side)


def pieces(*dims: int, size: int = 100, apart: float = 3.0, batch_size: int = 64) -> PixelDenoiser:
    """A PixelDenoiser of ``size`` = D pixels, one channel, without a condition."""
    scheduler = DDIMScheduler(clip_sample=False)
    side = int(size**0.5)
    return PixelDenoiser(
        Pieces(scheduler, size, dims, apart),
        scheduler,
        shape=(1, side, side),
        batch_size=batch_size,
    )
