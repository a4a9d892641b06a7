"""Latents to images and back, by the decoder that a latent model was trained with: a
VAE (AutoencoderKL) or a VQModel.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from membench.models.denoiser import Denoiser
from membench.models.image_values import from_uint8, same_size, to_uint8
from membench.models.loading import halvings

# Through a decoder at once: 16 images of 64x64 (of more, the maps of a layer are memory
# that the system gives and takes back every time), on a GPU 8 of 512x512
PIXELS = {"cpu": 16 * 64 * 64, "cuda": 8 * 512 * 512}


class LatentStates(Denoiser):
    """A denoiser of latents. A subclass gives ``vae``; its latents are the decoder's
    times ``scaling_factor``.
    """

    latents = True
    _exact_vae: Any = None

    @property
    def vae(self) -> Any:
        raise NotImplementedError

    def ready_images(self) -> None:
        """Loads the decoder, so that one that does not do is refused before an image is
        generated for it.
        """
        _ = self.vae

    def decode(self, x: torch.Tensor) -> np.ndarray:
        """What overflows in half precision is decoded once more in float32.

        Rows that stay NaN become NaN in ``x``, too.
        """
        with torch.no_grad():
            factor = halvings(self.vae.config)
            self.cost.decodes += len(x)
            return self.halving(
                "images",
                self._at_once(self.shape[1] * factor * self.shape[2] * factor),
                lambda n: self._decoded(x, n),
            )

    def _decoded(self, x: torch.Tensor, most: int) -> np.ndarray:
        images = []
        with self.refusals():
            for part in x.split(most):
                scaled = part / self.vae.config.scaling_factor
                out = self.vae.decode(scaled.to(self.vae.dtype)).sample
                if len(bad := _not_finite(out)) and self.vae.dtype != torch.float32:
                    self._exact_vae = self._exact_vae or copy.deepcopy(self.vae).float()
                    out = out.float()
                    out[bad] = self._exact_vae.decode(scaled[bad].float()).sample
                    bad = _not_finite(out)
                part[bad] = torch.nan  # a view: the caller sees which images have failed
                images.append(to_uint8(out))
        return np.concatenate(images)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        """The mean of a VAE's posterior, of a VQModel the vectors that are not yet
        quantised; scaled as the network was trained.
        """
        with torch.no_grad():
            x = from_uint8(images).to(self.device, self.vae.dtype)
            latents = self.halving(
                "images",
                self._at_once(images.shape[1] * images.shape[2]),
                lambda n: self._encoded(x, n),
            )
            same_size(images, tuple(latents.shape[1:]), self.shape)
            self.cost.encodes += len(images)
            return latents

    def _encoded(self, x: torch.Tensor, most: int) -> torch.Tensor:
        with self.refusals():
            found = torch.cat([means(self.vae, part).float() for part in x.split(most)])
            return found * self.vae.config.scaling_factor

    def _at_once(self, pixels: int) -> int:
        """Images of so many pixels through the decoder at once: its activations are
        larger by far than the U-Net's.
        """
        return max(1, min(self.batch_size, PIXELS.get(self.device.type, PIXELS["cpu"]) // pixels))


def means(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Images [n, 3, h, w] in [-1, 1] to latents, without noise and unscaled."""
    out = vae.encode(images)
    return out.latents if hasattr(out, "latents") else out.latent_dist.mean


def _not_finite(images: torch.Tensor) -> torch.Tensor:
    """Positions of the images [n, 3, h, w] that hold NaN or infinity."""
    return (~images.isfinite().flatten(1).all(dim=1)).nonzero().flatten()
