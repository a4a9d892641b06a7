"""CIFAR-10 as torchvision reads it: 50,000 images whose files must have the official
checksums, since they are pickles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from membench.errors import UserError
from membench.fetching import net

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"


def read_cifar10(root: Path, *, train: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Images ``uint8`` [n, 32, 32, 3] and classes [n].

    Downloads them into ``root`` where they are missing and there is a network.

    Raises :class:`UserError` for a batch that is missing or whose checksum is not the
    official one.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder = root / CIFAR10.base_folder
    files = [
        *CIFAR10.train_list,
        *CIFAR10.test_list,
        [CIFAR10.meta["filename"], CIFAR10.meta["md5"]],
    ]
    missing = [name for name, _ in files if not (folder / name).is_file()]
    if len(missing) == len(files):
        _download(root)
    elif missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}; unpack {ARCHIVE} into {root} anew")
    # Before anything is unpickled: nothing but the official files is read.
    damaged = [name for name, md5 in files if not check_integrity(str(folder / name), md5)]
    if damaged:
        raise UserError(
            f"{folder}: wrong checksum of {', '.join(damaged)}; unpack {ARCHIVE} into {root} anew"
        )
    data = CIFAR10(str(root), train=train, download=False)
    return np.asarray(data.data), np.asarray(data.targets)


def _download(root: Path) -> None:
    from torchvision.datasets import CIFAR10

    if net.offline():
        raise UserError(
            f"{root} holds no CIFAR-10 (cifar-10-batches-py), and --offline forbids to fetch it;"
            " give --data-root"
        )
    try:
        CIFAR10(str(root), download=True)
    except OSError as error:  # urllib's
        raise UserError(
            f"{root} holds no CIFAR-10, and {ARCHIVE} cannot be fetched ({error}); give --data-root"
        ) from None
    except RuntimeError as error:  # torchvision's word for an archive that is not the official one
        raise UserError(f"{root}: {error}; delete what is there and try again") from None
