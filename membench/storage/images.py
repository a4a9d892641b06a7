"""Images of unknown origin: decoded in full or refused, and brought to a model's
square.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from membench.storage.files import DamagedFile

# Only raster formats with a decoder inside Pillow: PostScript would start Ghostscript,
# SVG and PDF can name other files.
EXTENSIONS = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
}

MAX_PIXELS = 64_000_000


@cache
def formats() -> tuple[str, ...]:
    """The formats that this Pillow can decode (not every build has AVIF); MPO, of some
    cameras, is found by its JPEG.
    """
    Image.init()
    return tuple(name for name in EXTENSIONS if name in Image.OPEN)


class NotAnImage(Exception):
    """Bytes that no decoder takes, or not to their end.

    Its text says why, in a few words.
    """


class TooManyPixels(Exception):
    """An image whose header claims more pixels than are allowed."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """The image in a file's bytes, in RGB, and the file's format ("JPEG", "PNG" ...:
    a key of ``EXTENSIONS``).

    Of several frames the first. Turned as its EXIF orientation says; transparent pixels
    lie on white; palettes, grey, 16-bit grey (its high byte), CMYK and others are
    converted by Pillow, without colour management. The bytes are checked
    (:meth:`PIL.Image.Image.verify`) and decoded to the end.

    Raises :class:`TooManyPixels` by the header, before anything is decoded (beyond
    Pillow's own 179 million whatever ``max_pixels``), and :class:`NotAnImage` for all
    that is not a whole image.
    """
    try:
        for verify in (True, False):  # a verified image cannot be loaded any more
            with Image.open(io.BytesIO(data), formats=formats()) as image:
                if image.width * image.height > max_pixels:
                    raise TooManyPixels(
                        f"{image.width} x {image.height} pixels, more than {max_pixels:,}"
                    )
                if verify:
                    image.verify()
                else:
                    kind = str(image.format)
                    image.load()
                    return _rgb(ImageOps.exif_transpose(image), kind), kind
    except TooManyPixels:
        raise
    except Image.DecompressionBombError as error:
        # "Image size (N pixels) exceeds limit of M pixels, could be ..."
        pixels, limit = (int(number) for number in re.findall(r"\d+", str(error)))
        raise TooManyPixels(f"{pixels:,} pixels, more than {min(limit, max_pixels):,}") from None
    except MemoryError:
        raise
    except Image.UnidentifiedImageError:
        raise NotAnImage(f"no {', '.join(formats())}") from None
    except (
        Exception
        # What a decoder raises on hostile bytes is not a closed list: OSError,
        # SyntaxError, struct.error, KeyError ...
    ) as error:
        raise NotAnImage(" ".join(f"damaged: {error or type(error).__name__}".split())) from None
    raise AssertionError("unreachable")


def _rgb(image: Image.Image, kind: str) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would cut values above 255 off
        values = np.asarray(image).astype(np.int64)
        if image.mode == "I" and kind != "PNG":  # a PNG has 16 bits, a TIFF of 32 any range
            low, high = int(values.min()), int(values.max())
            if not (low >= 0 and 255 < high <= 65535):
                raise ValueError(
                    f"pixels of 32 bits from {low} to {high}, whose range is not that of 16 bits"
                )
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return image.convert("RGB")


def square(image: Image.Image, side: int) -> np.ndarray:
    """The centred square of an RGB image, resized to ``uint8`` [side, side, 3] by
    Pillow's Lanczos filter (antialiased).

    Up to a pixel's fraction at the border it is what resizing the shorter edge to
    ``side`` and then cropping the centre gives, but never larger than needed: a strip
    of 1 x 60,000 pixels stays harmless.
    """
    edge = min(image.size)
    left, upper = (image.width - edge) / 2, (image.height - edge) / 2
    box = (left, upper, left + edge, upper + edge)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))


MOST_PIXELS = 64_000_000  # of a stored image


def png_bytes(image: np.ndarray) -> bytes:
    """PNG of a ``uint8`` [h, w, 3] image: the same bytes each time, no metadata.

    Raises ValueError for another array.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 [h, w, 3], got {image.dtype} {list(image.shape)}")
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=6)
    return out.getvalue()


def pngs(images: Sequence[np.ndarray]) -> list[bytes]:
    """:func:`png_bytes` of each, several at a time: zlib leaves Python's lock alone."""
    threads = min(len(images), os.cpu_count() or 1)
    if threads < 2:
        return [png_bytes(image) for image in images]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(png_bytes, images))


def png_bits(image: np.ndarray) -> int:
    """Bits of the PNG of a ``uint8`` [h, w, 3] image: a proxy of its visual complexity
    (Kamkari et al., NeurIPS 2024).

    Depends a little on the build of zlib: compare sizes of one machine. Raises
    ValueError for another array.
    """
    return 8 * len(png_bytes(image))


def png_image(data: bytes) -> np.ndarray:
    """The ``uint8`` [h, w, 3] image of a PNG.

    Raises DamagedFile for other bytes, and for an image of more than ``MOST_PIXELS``.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DamagedFile(
                    f"an image of {image.width} x {image.height} pixels is larger than membench"
                    " stores"
                )
            return np.array(image.convert("RGB"))
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise DamagedFile(
            f"an image is not a PNG ({' '.join(str(error).split())[:80] or type(error).__name__})"
        ) from None
