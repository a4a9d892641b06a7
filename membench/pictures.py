"""Pictures of unknown origin: decoded in full or refused, and brought to a model's square."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps

# Only raster formats with a decoder inside Pillow: PostScript would start Ghostscript, SVG and PDF can name other files.
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
    """The formats that this Pillow can decode (not every build has AVIF); MPO, of some cameras, is found by its JPEG."""
    Image.init()
    return tuple(name for name in EXTENSIONS if name in Image.OPEN)


class NotAnImage(Exception):
    """Bytes that no decoder takes, or not to their end. Its text says why, in a few words."""


class TooManyPixels(Exception):
    """A picture whose header claims more pixels than are allowed."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """The picture in a file's bytes, in RGB, and the file's format ("JPEG", "PNG" ...: a key of ``EXTENSIONS``).

    Of several frames the first. Turned as its EXIF orientation says; transparent pixels lie on white; palettes, grey, 16-bit grey (its high
    byte), CMYK and others are converted by Pillow, without colour management. The bytes are checked (:meth:`PIL.Image.Image.verify`) and
    decoded to the end.

    Raises :class:`TooManyPixels` by the header, before anything is decoded (beyond Pillow's own 179 million whatever ``max_pixels``), and
    :class:`NotAnImage` for all that is not a whole picture.
    """
    try:
        for verify in (True, False):  # a verified image cannot be loaded any more
            with Image.open(io.BytesIO(data), formats=formats()) as image:
                if image.width * image.height > max_pixels:
                    raise TooManyPixels(f"{image.width} x {image.height} pixels, more than {max_pixels:,}")
                if verify:
                    image.verify()
                else:
                    kind = str(image.format)
                    image.load()
                    return _rgb(ImageOps.exif_transpose(image)), kind
    except TooManyPixels:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error).partition(",")[0]) from None
    except MemoryError:
        raise
    except Image.UnidentifiedImageError:
        raise NotAnImage(f"no {', '.join(formats())}") from None
    except (
        Exception
    ) as error:  # what a decoder raises on hostile bytes is not a closed list: OSError, SyntaxError, struct.error, KeyError ...
        raise NotAnImage(" ".join(f"damaged: {error or type(error).__name__}".split())) from None
    raise AssertionError("unreachable")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would cut values above 255 off
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return image.convert("RGB")


def square(image: Image.Image, side: int) -> np.ndarray:
    """The centred square of an RGB picture, resized to ``uint8`` [side, side, 3] by Pillow's Lanczos filter (antialiased).

    Up to a pixel's fraction at the border it is what resizing the shorter edge to ``side`` and then cropping the centre gives, but
    never larger than needed: a strip of 1 x 60,000 pixels stays harmless.
    """
    edge = min(image.size)
    left, upper = (image.width - edge) / 2, (image.height - edge) / 2
    box = (left, upper, left + edge, upper + edge)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))
