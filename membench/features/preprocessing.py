"""How an image is brought to SSCD's input.

Published papers differ in it, and their similarities with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from membench.errors import unknown_name

#: Mean and standard deviation a channel, of values in [0, 1].
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Preprocessing:
    """Resizing by PIL's bilinear filter on 8-bit images, as torchvision's transforms
    do on PIL images, then normalising.

    side: of the resized image, in pixels. square: both sides, whatever the aspect
    ratio; otherwise the shorter one, and the longer in proportion, rounded down. crop:
    side of the square that is cut out of the middle; 0: none.
    """

    name: str
    side: int
    square: bool = True
    crop: int = 0
    statistics: Statistics = IMAGENET

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """images ``uint8`` [n, h, w, 3] -> ``uint8`` [n, h', w', 3], resized and
        cropped.
        """
        # On 8-bit images as the authors do, not on tensors, whose resizing differs by
        # up to a grey level.
        height, width = self._size(*images.shape[1:3])
        resized = np.stack(
            [
                np.asarray(Image.fromarray(i).resize((width, height), Image.Resampling.BILINEAR))
                for i in images
            ]
        )
        if not self.crop:
            return resized
        top, left = (round((side - self.crop) / 2) for side in (height, width))
        return resized[:, top : top + self.crop, left : left + self.crop]

    def tensor(self, images: np.ndarray) -> torch.Tensor:
        """images ``uint8`` [n, h, w, 3] -> ``float32`` [n, 3, h', w'], normalised."""
        x = torch.from_numpy(self.pixels(images)).permute(0, 3, 1, 2).contiguous().float() / 255
        mean, std = torch.tensor(self.statistics).view(2, 3, 1, 1)
        return (x - mean) / std

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.square:
            return self.side, self.side
        if height <= width:
            return self.side, int(self.side * width / height)
        return int(self.side * height / width), self.side


#: By name, which stands in the features' id.
PREPROCESSING = {
    p.name: p
    for p in (
        # The size of the authors' evaluation, as their README's skewed variant;
        # MemBench (2025)
        Preprocessing("square288", 288),
        # The authors' first recommendation: the shorter edge, the aspect ratio kept
        Preprocessing("small288", 288, square=False),
        # The authors' skewed variant; NeMo (Hintersdorf et al. 2024)
        Preprocessing("square320", 320),
        # Somepalli et al. 2023 (DCR); Wen et al. 2024
        Preprocessing("wen224", 256, square=False, crop=224, statistics=HALF),
    )
}

DEFAULT = "square288"


def find_preprocessing(name: str) -> Preprocessing:
    """The preprocessing of this name.

    Raises :class:`membench.errors.UserError` for an unknown one.
    """
    if name not in PREPROCESSING:
        raise unknown_name(
            "preprocessing of SSCD", name, PREPROCESSING, f"one of {', '.join(PREPROCESSING)}"
        )
    return PREPROCESSING[name]
