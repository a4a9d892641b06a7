"""A task whose examples are images: a pool that a small unconditional UNet2DModel could
have drawn. For whole runs in tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from membench.models.pixel import PixelDenoiser
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import Band, Condition, Example, Space, Training

SIDE, POOL = 8, 70
SPACE = Space("normalised-l2/test", False, (Band("all", 0.0, 1.0),), 1.0, 1.5, "test")


@dataclass(frozen=True)
class Options:
    pass


def pool() -> np.ndarray:
    """Half of the images are plain, half are noise: ``uint8`` [POOL, 8, 8, 3]."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (POOL, SIDE, SIDE, 3), dtype=np.uint8)
    plain = np.broadcast_to(rng.integers(0, 256, (POOL, 1, 1, 3), dtype=np.uint8), noise.shape)
    return np.where((np.arange(POOL) % 2 == 0)[:, None, None, None], plain, noise).astype(np.uint8)


def model() -> PixelDenoiser:
    from diffusers import DDIMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return PixelDenoiser(network, DDIMScheduler(clip_sample=False), shape=(3, SIDE, SIDE))


class PixelTask(Task):
    info: ClassVar[TaskInfo] = TaskInfo(
        "pixels", 1, ("mini",), SPACE, {"steps": 3, "guidance": 1.0}, "images"
    )
    Options: ClassVar[type] = Options

    def __init__(self, options: Options = Options()) -> None:
        pass

    def load(
        self,
        profile: str,
        *,
        control: bool = False,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
    ) -> LoadedTask:
        images = pool()
        examples = [
            Example(
                Condition(f"image-{i:03d}", None, image),
                int(i % 2 == 0),
                "plain" if i % 2 == 0 else "noise",
                f"g{i}",
                f"s{i % 2}",
            )
            for i, image in enumerate(images)
        ]
        return LoadedTask(
            info=self.info,
            profile=profile,
            examples=examples,
            training=Training(lambda: images[:5], [str(i) for i in range(5)], [1] * 5),
            model=model,
            hashes={"weights": "w", "data": "d", "prompts": "p"},
            control=control,
        )
