"""CIFAR-10: 50,000 images whose files must have the official checksums. They are
pickles, which :mod:`membench.datasets.cifar` reads without executing any.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from membench.datasets.cifar import batches_of, files_of
from membench.errors import UserError
from membench.fetching import net

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

ARCHIVES = (
    *("cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz"),
    *("cifar-10-batches-py.tar.xz", "cifar-10-python.tar.xz"),
)

ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
# As Keras and TensorFlow Datasets have it
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
BYTES = 170_498_071


def read_cifar10(root: Path, *, train: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Images ``uint8`` [n, 32, 32, 3] and classes [n].

    From the folder or the archive in ``root``, which is not unpacked. Downloads the
    archive into ``root`` where both are missing and there is a network.

    Raises :class:`UserError` for a batch that is missing or whose checksum is not the
    official one.
    """
    from torchvision.datasets import CIFAR10

    official = {
        name: md5
        for name, md5 in [
            *CIFAR10.train_list,
            *CIFAR10.test_list,
            [CIFAR10.meta["filename"], CIFAR10.meta["md5"]],
        ]
    }
    place = root / CIFAR10.base_folder
    if not any((place / name).is_file() for name in official):
        archive = next((root / n for n in ARCHIVES if (root / n).is_file()), None)
        place = archive or _download(root)
    files = files_of(place)
    if missing := [name for name in official if name not in files]:
        raise UserError(f"{place} lacks {', '.join(missing)}; unpack {ARCHIVE} into {root} anew")
    data = {name: files[name]() for name in official}
    # Before anything is read: the numbers of a benchmark are those of the official files.
    if damaged := [n for n, md5 in official.items() if hashlib.md5(data[n]).hexdigest() != md5]:
        raise UserError(
            f"{place}: wrong checksum of {', '.join(damaged)}; unpack {ARCHIVE} into {root} anew"
        )
    found = batches_of({n: lambda n=n: data[n] for n in data}, place, train=train)  # type: ignore[misc]
    return found.images, found.labels


def _download(root: Path) -> Path:
    if net.offline():
        raise UserError(
            f"{root} holds no CIFAR-10 (cifar-10-batches-py), and --offline forbids to fetch it;"
            " give --data-root"
        )
    try:
        return net.fetch(ARCHIVE, root / ARCHIVES[0], sha256=SHA256, max_bytes=BYTES, progress=True)
    except UserError as error:
        raise UserError(f"{root} holds no CIFAR-10: {error}; or give --data-root") from None
