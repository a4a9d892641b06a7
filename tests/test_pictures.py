"""Images of any kind become RGB squares, and whatever is none is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from membench.storage.images import NotAnImage, TooManyPixels, decode, square


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def test_pictures_of_all_modes_are_decoded() -> None:
    red = np.array([255, 0, 0], np.uint8)

    def first(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
        out = io.BytesIO()
        image.save(out, kind, **options)
        found, name = decode(out.getvalue())
        assert found.mode == "RGB" and name == kind
        return np.asarray(found)

    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    half = Image.new("RGBA", (20, 20), (255, 0, 0, 128))
    assert (first(clear) == 255).all()
    assert first(half)[0, 0] == pytest.approx([255, 127, 127], abs=1)
    assert (first(Image.new("RGBA", (20, 20), (255, 0, 0, 255))) == red).all()
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert (first(palette) == red).all() and (first(palette, "GIF") == red).all()
    assert (first(palette, transparency=1) == 255).all()
    # Not cut off at 255
    assert (first(Image.fromarray(np.full((20, 20), 0x8000, np.uint16))) == 128).all()
    assert first(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")[0, 0] == pytest.approx(
        red, abs=3
    )
    assert (first(Image.new("1", (20, 20), 1)) == 255).all() and (
        first(Image.new("L", (20, 20), 7)) == 7
    ).all()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    assert (first(frames[0], "GIF", save_all=True, append_images=frames[1:]) == red).all()
    upper = Image.new("RGB", (32, 16), "white")
    upper.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the left half becomes the upper one
    turned = first(upper, exif=exif.tobytes())
    assert turned.shape == (32, 16, 3) and (turned[:16] == red).all() and (turned[16:] == 255).all()
    with pytest.raises(NotAnImage, match="floating"):
        first(Image.new("F", (20, 20)), "TIFF")


def test_a_wrong_checksum_is_damage() -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, "PNG")
    data = bytearray(out.getvalue())
    data[-16] ^= 1  # the CRC of the pixels: Pillow alone would read them
    with pytest.raises(NotAnImage, match="checksum"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("high", "wanted"), [(0x8000, 128), (0xFFFF, 255), (255, None), (70_000, None), (-1, None)]
)
def test_grey_of_32_bits(high: int, wanted: int | None) -> None:
    """Its high byte where the values are those of 16 bits; else nobody knows the range,
    and an image of 0 to 255 would be black.
    """
    out = io.BytesIO()
    values = np.full((4, 4), high, np.int32)
    values[0] = 0
    Image.fromarray(values).save(out, "TIFF")
    if wanted is None:
        with pytest.raises(NotAnImage, match="pixels of 32 bits from"):
            decode(out.getvalue())
        return
    assert (np.asarray(decode(out.getvalue())[0])[1:] == wanted).all()
    dark = io.BytesIO()
    Image.fromarray(np.full((4, 4), 7, np.uint16)).save(dark, "PNG")
    assert not np.asarray(decode(dark.getvalue())[0]).any()


def test_a_bomb_is_known_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    # The second is beyond Pillow's own bound
    for width, height, claimed in (
        (8001, 8000, "8001 x 8000 pixels, more than 64,000,000"),
        (60_000, 60_000, "3,600,000,000 pixels, more than 64,000,000"),
    ):
        with pytest.raises(TooManyPixels, match=f"^{claimed}$"):
            decode(png_claiming(width, height))


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (80, 80), (65, 64)])
def test_the_square_is_the_resized_and_cropped_centre(size: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], 2).astype(np.uint8))
    side = 32
    scale = side / min(size)
    resized = image.resize(
        (round(size[0] * scale), round(size[1] * scale)), Image.Resampling.LANCZOS
    )
    left, upper = (resized.width - side) // 2, (resized.height - side) // 2
    reference = np.asarray(resized.crop((left, upper, left + side, upper + side))).astype(int)
    found = square(image, side).astype(int)
    assert found.shape == (side, side, 3)
    assert (
        np.abs(found - reference)[1:-1, 1:-1].max() <= 4 and np.abs(found - reference).max() <= 10
    )
    assert np.abs(found - reference).mean() < 1.5


def test_a_strip_stays_small() -> None:
    assert square(Image.new("RGB", (1, 60_000), "red"), 64).shape == (64, 64, 3)
