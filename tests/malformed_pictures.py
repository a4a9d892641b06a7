"""Pictures as people have them, and as nobody should: whichever is read is read right,
or left out with a reason.
"""

from __future__ import annotations

import csv
import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from membench.datasets.collection import read_collection
from membench.datasets.ground_truth import read_ground_truth
from membench.datasets.prompts import Prompt

Call = Callable[[], object]


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def declared(width: int, height: int) -> bytes:
    """A PNG that says it is of that size, and holds nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), kind, data]
        parts += [struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(parts)


def pictures(rng: random.Random) -> dict[str, bytes]:
    """By name of the file."""
    colours = np.random.default_rng(rng.randrange(10**6)).integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(colours)
    grey = Image.fromarray(colours[..., 0])
    deep = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = rng.randrange(0, 12)
    frames = [Image.fromarray(255 - colours)]
    jpeg = encoded(image, "JPEG")
    return {
        "animated.gif": encoded(image, "GIF", save_all=True, append_images=frames),
        "animated.png": encoded(image, "PNG", save_all=True, append_images=frames),
        "animated.webp": encoded(image, "WEBP", save_all=True, append_images=frames),
        "deep.png": encoded(deep, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "bits.png": encoded(grey.convert("1"), "PNG"),
        "palette.png": encoded(image.convert("P"), "PNG", transparency=0),
        "alpha.png": encoded(image.convert("RGBA"), "PNG"),
        "grey_alpha.png": encoded(grey.convert("LA"), "PNG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "turned.jpg": encoded(image, "JPEG", exif=turned),
        "odd_exif.jpg": jpeg[:2] + b"\xff\xe1\x00\x10Exif\0\0MM\0\x2a\xff\xff\xff\xff" + jpeg[2:],
        "float.tiff": encoded(Image.fromarray(colours[..., 0].astype(np.float32)), "TIFF"),
        "lab.tiff": encoded(image.convert("LAB"), "TIFF"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "thin.png": encoded(Image.new("RGB", (1, 400)), "PNG"),
        "cut.jpg": jpeg[: rng.randrange(len(jpeg))],
        "nothing.png": b"",
        "text.png": b"<html>",
        "huge.png": declared(2**31 - 1, 2**31 - 1),
        "wide.png": declared(60_000, 60_000),
        "flat.png": declared(0, 5),
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "icon.ico": encoded(image, "ICO"),
        "a\nb.png": encoded(image, "PNG"),
        "\u202e.png": encoded(image, "PNG"),
    }


def folders(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    """Folders of these, read as an audit's data and as a run's ground truth."""
    whole = encoded(Image.new("RGB", (12, 12), (9, 9, 9)), "PNG")
    found = pictures(rng)
    for k, name in enumerate(sorted(found)):
        place = folder / str(k)
        place.mkdir()
        (place / "whole.png").write_bytes(whole)
        (place / name).write_bytes(found[name])
        yield (
            f"picture {name!r}",
            lambda p=place: read_collection(p, 8, max_bad=float("inf")).images(),
        )
        yield f"truth {name!r}", lambda p=place, n=name: truth(p, n)
    for k, make in enumerate((circle, dangling, folder_of_png, pipe)):
        place = folder / f"odd{k}"
        place.mkdir()
        (place / "whole.png").write_bytes(whole)
        make(place)
        yield make.__name__, lambda p=place: read_collection(p, 8, max_bad=float("inf")).images()


def truth(place: Path, name: str) -> object:
    """The picture as a run's ground truth."""
    with open(place / "truth.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("prompt", "file"), ("a mug", name)])
    prompt = Prompt("a mug", 1, "MV", "mine", "", "", "")
    return read_ground_truth(place, [prompt], 8, root=place / "cache").images()


def circle(place: Path) -> None:
    (place / "loop").symlink_to(place, target_is_directory=True)
    (place / "self.png").symlink_to(place / "self.png")


def dangling(place: Path) -> None:
    (place / "gone.png").symlink_to(place / "nowhere.png")


def folder_of_png(place: Path) -> None:
    (place / "folder.png").mkdir()


def pipe(place: Path) -> None:
    os.mkfifo(place / "pipe.png")
