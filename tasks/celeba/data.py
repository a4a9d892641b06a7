"""CelebA (Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015) in its
official layout, whole or any part of it; also as torchvision unpacks it, and as Kaggle
has it, with CSV annotations.

The crop is that of StyleGAN (``create_celeba``: cx = 89, cy = 121, half a side of 64
pixels) and of DDIM, whose CelebA 64x64 is the usual one: columns 25 to 152 and rows 57
to 184 of the aligned 178 x 218 images. As in DDIM the 128 x 128 crop is then resized
by Pillow's bilinear filter, which is antialiased (torchvision's ``Resize`` of a Pillow
image).
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from membench.errors import UserError
from membench.storage import host
from membench.storage.cache import cached_array
from membench.storage.hashing import content_key

from .layout import (
    ATTRIBUTES,
    HOME,
    IDENTITY,
    PARTITION,
    counted,
    expected,
    home,
    image_folder,
    listing,
    read_tables,
)

WIDTH, HEIGHT = 178, 218  # of the aligned images
CROP = (25, 57, 153, 185)  # left, upper, right, lower; the latter two excluded
BLOCK = 512  # images read at once
DIGEST = 16  # bytes of an image's BLAKE2b


@dataclass(frozen=True, eq=False)
class CelebA:
    """n different annotated images, in the order of their file names, each with what is
    known of it.

    copies: int64 [n], how many files hold the same bytes; an image has the name and the
    annotations of the first.
    images: ``uint8`` [n, size, size, 3], a read-only memory map. key: its content key,
    the same wherever the same files lie. identities: int64 [n], -1 where unknown.
    names: the files'. partition: int8 [n], 0 train, 1 validation, 2 test, -1 unknown.
    attributes: int8 [n, 40], 1 and -1 as in the file, 0 where unknown; None and no
    attribute_names without the file. notes: what is missing or left out, a line each.
    """

    images: np.ndarray
    copies: np.ndarray
    key: str
    identities: np.ndarray
    names: tuple[str, ...]
    partition: np.ndarray
    attributes: np.ndarray | None
    attribute_names: tuple[str, ...]
    notes: tuple[str, ...]


def read_celeba(root: Path, size: int, *, training: bool = False, progress: bool = True) -> CelebA:
    """Every image in ``root/img_align_celeba`` that an annotation file names, once,
    cropped and resized to size x size pixels.

    training: of the training split only.

    Each of the three annotation files may be missing; without any, all images are
    taken. The pixels are kept by :func:`membench.storage.cache.cached_array` under the
    BLAKE2b of the files' bytes; these digests are kept too, under the files' names,
    sizes and times (modification and inode change, ns), so that a folder that nobody
    touched is not read again.

    Raises :class:`UserError` for a folder of another layout, an annotation line that is
    malformed, and an image that cannot be decoded or is not an aligned one; ValueError
    for ``size`` < 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}, but must be at least 1")
    root = home(root)
    folder = image_folder(root)
    found = listing(root)
    tables, attribute_names = read_tables(root)
    annotated = set().union(*(t.rows for t in tables.values())) if tables else set(found)
    names = tuple(sorted(annotated & found.keys()))
    if not names:
        raise UserError(
            f"none of the {len(found)} images in {folder} is named in"
            f" {', '.join(sorted(tables))}; {expected()}"
        )
    if training:
        if PARTITION not in tables:
            raise UserError(
                f"{root} lacks {PARTITION}, which says what the training split is; get it, or"
                " choose split=all"
            )
        split = tables[PARTITION].of(names, -1)[:, 0]
        names = tuple(name for name, part in zip(names, split, strict=True) if part == 0)
        if not names:
            raise UserError(
                f"no image in {folder} is of the training split of {PARTITION}; choose split=all"
            )
    listed = names
    key, images, first, copies = _images(folder, names, [found[n] for n in names], size, progress)
    names = tuple(names[i] for i in first)
    notes = [
        f"{file} is not there" for file in (IDENTITY, ATTRIBUTES, PARTITION) if file not in tables
    ]
    notes += counted(len(annotated - found.keys()), "annotated image", "not there and left out")
    notes += counted(len(found.keys() - annotated), "image", "without annotation and left out")
    for file, table in tables.items():
        notes += counted(len(set(listed) - table.rows.keys()), "image", f"not named in {file}")
    notes += counted(len(listed) - len(names), "image", "the same file as another, counted with it")

    def known(file: str, unknown: int) -> np.ndarray:
        return (
            tables[file].of(names, unknown) if file in tables else np.full((len(names), 1), unknown)
        )

    return CelebA(
        images=images,
        copies=copies,
        key=key,
        identities=known(IDENTITY, -1)[:, 0].astype(np.int64),
        names=names,
        partition=known(PARTITION, -1)[:, 0].astype(np.int8),
        attributes=known(ATTRIBUTES, 0).astype(np.int8) if ATTRIBUTES in tables else None,
        attribute_names=attribute_names,
        notes=tuple(notes),
    )


# ------------------------------------------------------------------------------- images


def _images(
    folder: Path,
    names: tuple[str, ...],
    stats: list[tuple[int, int, int]],
    size: int,
    progress: bool,
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """(content key, pixels ``uint8`` [n, size, size, 3]) of the different images; of each
    the place of its first file among ``names``, ascending, and how many files it has.
    """

    def read(files: Sequence[str], make: Callable[[Path], np.ndarray]) -> Iterator[np.ndarray]:
        # Threads, since Pillow and hashlib let go of the interpreter; map keeps the
        # order, and with it which error comes first.
        with ThreadPoolExecutor(min(8, host.cores())) as pool:
            for start in range(0, len(files), BLOCK):
                yield np.stack(
                    list(pool.map(lambda name: make(folder / name), files[start : start + BLOCK]))
                )

    state = hashlib.sha256(
        repr([str(folder.resolve()), *zip(names, stats, strict=True)]).encode()
    ).hexdigest()
    parts = {"folder": state, "digest": f"blake2b-{DIGEST}"}
    digests = cached_array(
        "celeba-digests",
        parts,
        (len(names), DIGEST),
        np.uint8,
        lambda: read(names, _digest),
        progress=progress,
    )
    # Images that are there twice would be two neighbours of each copy (normalised_l2)
    _, place, times = np.unique(digests, axis=0, return_index=True, return_counts=True)
    order = np.argsort(place)
    first, copies = place[order], times[order]
    contents = hashlib.sha256(digests[first].tobytes()).hexdigest()
    pixels = {"files": contents, "crop": CROP, "resize": "pillow-bilinear", "size": size}
    different = [names[i] for i in first]
    shape = (len(different), size, size, 3)
    images = cached_array(
        "celeba",
        pixels,
        shape,
        np.uint8,
        lambda: read(different, lambda file: _picture(file, size)),
        progress=progress,
    )
    return content_key(pixels), images, first, copies


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error


def _digest(file: Path) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(_bytes(file), digest_size=DIGEST).digest(), np.uint8)


def _picture(file: Path, size: int) -> np.ndarray:
    """``uint8`` [size, size, 3]."""
    try:
        with Image.open(io.BytesIO(_bytes(file)), formats=("JPEG",)) as image:
            if image.size != (WIDTH, HEIGHT):
                raise UserError(
                    f"{file} is {image.width} x {image.height}, not {WIDTH} x {HEIGHT}: take the"
                    f" aligned images of {HOME}"
                )
            return np.asarray(
                image.convert("RGB").crop(CROP).resize((size, size), Image.Resampling.BILINEAR)
            )
    # Whatever Pillow raises for damage
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = re.sub(r" ?<_io\.BytesIO[^>]*>", "", " ".join(str(error).split()))[:100]
        raise UserError(
            f"{file} is not a whole JPEG ({why}); fetch it again, or delete it, and it counts as"
            " missing"
        ) from error
