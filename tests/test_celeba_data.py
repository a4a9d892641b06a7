"""CelebA's layout: which images are taken and what is said about the others; pixels;
what is read again and what is not.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from membench.errors import UserError
from membench.storage import host
from membench.tasks.celeba import data as celeba_data
from membench.tasks.celeba.data import read_celeba
from membench.tasks.celeba.task import Celeba, CelebaOptions

NAMES = tuple(f"{i:06}.jpg" for i in range(1, 8))
KINDS = ("Bald", "Smiling", "Young")
VALUES = np.random.default_rng(3).choice([-1, 1], (7, 3))
FILES = ("identity_CelebA.txt", "list_attr_celeba.txt", "list_eval_partition.txt")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    return celeba(tmp_path / "celeba")


def celeba(root: Path) -> Path:
    """Seven images of 178 x 218, written in no order, all annotated."""
    (root / "img_align_celeba").mkdir(parents=True)
    for i in (3, 0, 6, 1, 5, 2, 4):
        picture(root / "img_align_celeba" / NAMES[i], seed=i)
    (root / FILES[0]).write_text("".join(f"{n} {100 + i // 2}\n" for i, n in enumerate(NAMES)))
    rows = "".join(
        f"{n} {'  '.join(f'{v:2}' for v in row)}\n" for n, row in zip(NAMES, VALUES, strict=True)
    )
    (root / FILES[1]).write_text(
        f"7\n{' '.join(KINDS)} \n{rows}"
    )  # two blanks before a 1, and one behind the names, as in the official file
    (root / FILES[2]).write_text("".join(f"{n} {i % 3}\n" for i, n in enumerate(NAMES)))
    return root


def picture(
    file: Path, seed: int = 0, size: tuple[int, int] = (178, 218), mode: str = "RGB"
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (28, 23, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(
        file, "JPEG", quality=95
    )


def by_hand(file: Path, size: int) -> np.ndarray:
    """float [size, size, 3]: rows 57 to 184 and columns 25 to 152, under a triangle as
    wide as two pixels of the coarser grid.
    """
    pixels = np.asarray(Image.open(file).convert("RGB"), dtype=float)[57:185, 25:153]
    middles, scale = (np.arange(size) + 0.5) * 128 / size, max(128 / size, 1)
    weights = np.maximum(1 - np.abs(np.arange(128) + 0.5 - middles[:, None]) / scale, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ih,hwc,jw->ijc", weights, pixels, weights, optimize=True)


def same(image: np.ndarray, file: Path) -> bool:
    """Up to Pillow's rounding: of weights, after the first axis, and at the end."""
    return bool(np.abs(image - by_hand(file, len(image))).max() <= 1.2)


def read(root: Path, size: int = 16) -> celeba_data.CelebA:
    return read_celeba(root, size, progress=False)


def edit(file: Path, line: int, text: str) -> None:
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n")


# ------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("size", [64, 128, 15])
def test_pixels_and_annotations(size, root, monkeypatch) -> None:
    monkeypatch.setattr(celeba_data, "BLOCK", 3)
    data = read(root, size)
    assert data.names == NAMES and data.notes == ()
    assert (
        isinstance(data.images, np.memmap)
        and data.images.dtype == np.uint8
        and data.images.shape == (7, size, size, 3)
    )
    for name, image in zip(NAMES, data.images, strict=True):
        assert same(image, root / "img_align_celeba" / name), name
    assert (
        data.identities.tolist() == [100, 100, 101, 101, 102, 102, 103]
        and data.identities.dtype == np.int64
    )
    assert data.partition.tolist() == [0, 1, 2, 0, 1, 2, 0] and data.partition.dtype == np.int8
    assert data.attribute_names == KINDS
    assert (
        data.attributes is not None
        and np.array_equal(data.attributes, VALUES)
        and data.attributes.dtype == np.int8
    )


def test_the_crop_is_the_literature_s_and_the_resize_antialiased(root) -> None:
    """Closed form: an image dark outside the crop and bright inside; and stripes of
    one pixel, which average to grey.
    """
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[121 - 64 : 121 + 64, 89 - 64 : 89 + 64] = 255
    file = root / "img_align_celeba" / NAMES[0]
    Image.fromarray(pixels).save(file, "JPEG", quality=100, subsampling=0)
    assert read(root, 128).images[0].min() > 250
    stripes = np.zeros((218, 178, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(file, "JPEG", quality=100, subsampling=0)
    assert np.abs(read(root, 32).images[0].astype(int) - 127.5).max() < 12


def test_a_grey_picture_has_three_channels(root) -> None:
    picture(root / "img_align_celeba" / NAMES[0], mode="L")
    assert np.ptp(read(root).images[0].astype(int), axis=2).max() == 0


def test_threads_and_blocks_change_nothing(root, cache, monkeypatch) -> None:
    first = np.array(read(root).images)
    for block, cores in ((1, 8), (2, 1), (100, 3)):
        shutil.rmtree(cache)
        monkeypatch.setattr(celeba_data, "BLOCK", block)
        monkeypatch.setattr(host, "cores", lambda n=cores: n)
        assert np.array_equal(read(root).images, first)


# -------------------------------------------------------------------------------- cache


def test_an_untouched_folder_is_not_read_again_and_a_touched_one_not_decoded(
    root, monkeypatch
) -> None:
    first = read(root)
    read_bytes: list[Path] = []
    whole = celeba_data._bytes
    monkeypatch.setattr(
        celeba_data, "_bytes", lambda file: (read_bytes.append(file), whole(file))[1]
    )
    monkeypatch.setattr(celeba_data.Image, "open", None)
    again = read(root)
    assert (
        again.key == first.key and np.array_equal(again.images, first.images) and read_bytes == []
    )
    os.utime(root / "img_align_celeba" / NAMES[2], (1, 1))
    assert read(root).key == first.key and len(read_bytes) == 7
    moved = root.rename(root.with_name("elsewhere"))
    assert read(moved).key == first.key


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_changed_file_gives_another_key(keep_times, root) -> None:
    first, file = read(root), root / "img_align_celeba" / NAMES[2]
    stat, data = file.stat(), bytearray(file.read_bytes())
    picture(root / "other.jpg", seed=99)
    changed = (root / "other.jpg").read_bytes()[: len(data)]
    changed = changed[:-2].ljust(len(data) - 2, b"\0") + b"\xff\xd9"  # as long as before, and whole
    file.write_bytes(changed)
    if keep_times:  # as a copy that preserves them
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    second = read(root)
    assert second.key != first.key
    assert same(second.images[2], file) and not np.array_equal(second.images[2], first.images[2])
    assert np.array_equal(second.images[3], first.images[3])


def test_size_and_choice_of_pictures_are_in_the_key(root) -> None:
    first = read(root)
    assert read(root, 17).key != first.key
    (root / "img_align_celeba" / NAMES[6]).unlink()
    fewer = read(root)
    assert (
        fewer.key != first.key
        and fewer.names == NAMES[:6]
        and np.array_equal(fewer.images, first.images[:6])
    )


# ---------------------------------------------------------------------- what is missing


def test_missing_pictures_and_missing_annotations_are_counted(root) -> None:
    folder = root / "img_align_celeba"
    for name in NAMES[:3]:
        (folder / name).unlink()
    picture(folder / "999999.jpg")
    (folder / "Thumbs.db").write_text("")
    edit(root / FILES[0], 5, "")
    data = read(root)
    assert data.names == NAMES[3:]
    assert data.notes == (
        "3 annotated images are not there and left out",
        "1 image is without annotation and left out",
        "1 image is not named in identity_CelebA.txt",
    )
    assert data.identities.tolist() == [101, -1, 102, 103] and data.partition.tolist() == [
        0,
        1,
        2,
        0,
    ]
    assert same(data.images[0], folder / NAMES[3])
    assert data.attributes is not None and np.array_equal(data.attributes, VALUES[3:])


@pytest.mark.parametrize("annotated", [True, False])
def test_hidden_files_are_no_pictures(annotated, root) -> None:
    """macOS's ``._NAME`` beside each image; neither a note nor the key knows of them."""
    if not annotated:
        for file in FILES:
            (root / file).unlink()
    before = read_celeba(root, 16, progress=False)
    for name in (*[f"._{name}" for name in NAMES], ".jpg", ".hidden.JPG", "._more.jpg"):
        (root / "img_align_celeba" / name).write_bytes(b"\0\5\x16\7")
    after = read_celeba(root, 16, progress=False)
    assert (after.names, after.key, after.notes) == (
        NAMES,
        before.key,
        before.notes,
    ) and np.array_equal(after.images, before.images)
    for name in NAMES:
        (root / "img_align_celeba" / name).unlink()
    with pytest.raises(UserError, match=r"holds no \.jpg"):
        read_celeba(root, 16, progress=False)


def test_annotation_files_may_be_missing(root) -> None:
    (root / FILES[1]).unlink()
    some = read(root)
    assert (
        some.attributes is None
        and some.attribute_names == ()
        and some.identities[6] == 103
        and some.partition[2] == 2
    )
    assert some.notes == ("list_attr_celeba.txt is not there",)
    for file in (FILES[0], FILES[2]):
        (root / file).unlink()
    picture(root / "img_align_celeba" / "a.jpg", seed=9)
    none = read(root)
    assert none.names == (*NAMES, "a.jpg") and set(none.identities) == set(none.partition) == {-1}
    assert none.notes == tuple(f"{file} is not there" for file in FILES)


def test_a_picture_that_some_file_does_not_name_is_unknown_there(root) -> None:
    lines = (root / FILES[1]).read_text().splitlines()
    (root / FILES[1]).write_text("\n".join(["6", *lines[1:-1]]))  # nor a line end
    edit(root / FILES[2], 2, "")
    data = read(root)
    assert (
        data.attributes is not None
        and data.attributes[6].tolist() == [0, 0, 0]
        and np.array_equal(data.attributes[:6], VALUES[:6])
    )
    assert data.partition.tolist() == [0, -1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("what", ["root", "folder", "file", "empty", "foreign"])
def test_another_layout_is_refused(what, root) -> None:
    folder = root / "img_align_celeba"
    shutil.rmtree(folder if what != "root" else root)
    if what == "file":
        folder.write_text("")
    elif what in ("empty", "foreign"):
        folder.mkdir()
    if what == "foreign":
        picture(folder / "x.jpg")
    with pytest.raises(
        UserError, match=r"img_align_celeba/\*\.jpg, identity_CelebA\.txt, .* side by side"
    ) as error:
        read(root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="size is 0"):
        read(root, 0)


# ------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("length", [0, 2, 300, 0.5, -100])
def test_a_truncated_picture_is_named(length, root, cache) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    file = root / "img_align_celeba" / NAMES[4]
    data = file.read_bytes()
    file.write_bytes(data[: int(length * len(data)) if isinstance(length, float) else length])
    with pytest.raises(
        UserError,
        match=(
            rf"{file} is not a whole JPEG .*; fetch it again, or delete it, and it counts as"
            r" missing"
        ),
    ) as error:
        read(root)
    assert "\n" not in str(error.value) and not list(cache.glob("celeba-????????????????.npy"))
    file.unlink()
    assert read(root).notes == ("1 annotated image is not there and left out",)


def test_the_first_of_several_damaged_pictures_is_named(root) -> None:
    for i in (5, 2, 3):
        (root / "img_align_celeba" / NAMES[i]).write_bytes(b"no image")
    for _ in range(3):
        with pytest.raises(UserError, match=NAMES[2]) as error:
            read(root)
        assert "BytesIO" not in str(error.value)


def test_a_link_to_nothing_among_the_images_is_named(root) -> None:
    link = root / "img_align_celeba" / NAMES[2]
    link.unlink()
    link.symlink_to("/nowhere/else.jpg")
    with pytest.raises(UserError, match=rf"{NAMES[2]} cannot be read \(a link to nothing\)"):
        read(root)
    link.unlink()
    link.symlink_to(NAMES[2])
    with pytest.raises(UserError, match=rf"{NAMES[2]} cannot be read \(Too many levels"):
        read(root)


def test_other_pictures_are_refused(root) -> None:
    picture(root / "img_align_celeba" / NAMES[1], size=(178, 219))
    with pytest.raises(
        UserError, match=rf"{NAMES[1]} is 178 x 219, not 178 x 218: take the aligned images"
    ):
        read(root)
    Image.new("RGB", (178, 218)).save(root / "img_align_celeba" / NAMES[1], "PNG")
    with pytest.raises(UserError, match=rf"{NAMES[1]} is not a whole JPEG"):
        read(root)


@pytest.mark.parametrize(
    ("file", "line", "text", "why"),
    [
        (0, 3, "000003.jpg", "line 3: expected a file name and 1 number, not '000003.jpg'"),
        (0, 3, "000003.jpg 5 6", "line 3: expected a file name and 1 number"),
        (0, 3, "000003.jpg five", "line 3: identity cannot be 'five'"),
        (0, 3, "000003.jpg -1", "line 3: identity cannot be '-1'"),
        (0, 3, "000003.jpg 99999999999999999999", "line 3: identity cannot be"),
        (0, 3, f"000003.jpg {'9' * 5000}", "line 3: identity cannot be '999"),
        (1, 1, "9" * 5000, "line 1: expected the number of images, not '999"),
        (0, 3, "000002.jpg 5", "line 3: 000002.jpg stands there twice"),
        (1, 1, "many", "line 1: expected the number of images, not 'many'"),
        (1, 1, "8", "its first line announces 8 images, but 7 follow"),
        (1, 2, "", "line 2: expected the attributes' names"),
        (1, 2, "Bald Bald Young", "line 2: expected the attributes' names"),
        (1, 5, "000003.jpg 1 -1", "line 5: expected a file name and 3 numbers"),
        (1, 5, "000003.jpg 1 0 1", "line 5: Smiling cannot be '0'"),
        (1, 5, "000003.jpg 1 1 1.0", "line 5: Young cannot be '1.0'"),
        (2, 7, "000007.jpg 3", "line 7: partition cannot be '3'"),
    ],
)
def test_a_malformed_line_is_named(file, line, text, why, root) -> None:
    edit(root / FILES[file], line, text)
    with pytest.raises(UserError) as error:
        read(root)
    assert (
        str(root / FILES[file]) in str(error.value)
        and why in str(error.value)
        and "fetch it again" in str(error.value)
    )


@pytest.mark.parametrize("content", [b"", b"7\n", b"\xff\xfe\x00"])
def test_a_damaged_attribute_file_is_named(content, root) -> None:
    (root / FILES[1]).write_bytes(content)
    with pytest.raises(UserError, match=r"list_attr_celeba\.txt.*; fetch it again from http"):
        read(root)


def test_the_training_split_alone(root) -> None:
    """Images 1, 4 and 7 are of split 0: no stretch of the names, and still a memory
    map of these alone.
    """
    data = read_celeba(root, 16, training=True, progress=False)
    assert data.names == (NAMES[0], NAMES[3], NAMES[6]) and list(data.partition) == [0, 0, 0]
    assert isinstance(data.images, np.memmap) and data.images.shape == (3, 16, 16, 3)
    for image, name in zip(data.images, data.names, strict=True):
        assert same(image, root / "img_align_celeba" / name)
    (root / FILES[2]).write_text("".join(f"{n} 2\n" for n in NAMES))
    with pytest.raises(UserError, match=r"no image .* is of the training split"):
        read_celeba(root, 16, training=True, progress=False)
    (root / FILES[2]).unlink()
    with pytest.raises(UserError, match=r"lacks list_eval_partition\.txt"):
        read_celeba(root, 16, training=True, progress=False)


def test_the_task_s_training_set_changes_with_the_split(root, capsys) -> None:
    def training(split: str):
        return Celeba(CelebaOptions(data_root=str(root), split=split)).training(root)

    whole, part = training("all"), training("train")
    assert (
        len(whole.ids) == 7
        and part.ids == (NAMES[0], NAMES[3], NAMES[6])
        and part.images().shape == (3, 64, 64, 3)
    )
    assert part.groups == ["100", "101", "103"] and set(part.kinds) == {"x1"}
    (root / FILES[2]).write_text("".join(f"{n} {(i + 1) % 3}\n" for i, n in enumerate(NAMES)))
    assert len({whole.hash, part.hash, training("train").hash}) == 3
    (root / "img_align_celeba" / NAMES[1]).unlink()
    assert len(training("all").ids) == 6
    assert "1 annotated image is not there" in capsys.readouterr().err


def test_a_picture_that_is_there_several_times_counts_once(root, capsys) -> None:
    """Three files of the same bytes would be three neighbours of each copy of theirs, and
    three images that come back.
    """
    folder = root / "img_align_celeba"
    for name in (NAMES[3], NAMES[6]):
        shutil.copy(folder / NAMES[1], folder / name)
    data = read(root)
    kept = (0, 1, 2, 4, 5)
    assert data.names == tuple(NAMES[i] for i in kept) and data.copies.tolist() == [1, 3, 1, 1, 1]
    assert data.identities.tolist() == [100, 100, 101, 102, 102]
    assert all(same(x, folder / n) for x, n in zip(data.images, data.names, strict=True))
    assert data.notes == ("2 images are the same file as another, counted with it",)

    def training():
        return Celeba(CelebaOptions(data_root=str(root), split="all")).training(root)

    found = training()
    assert found.ids == data.names and list(found.kinds) == ["x1", "x3", "x1", "x1", "x1"]
    assert found.images().shape == (5, 64, 64, 3)
    assert data.notes[0] in capsys.readouterr().err
    picture(folder / NAMES[6], seed=6)  # two of the three are left
    assert training().hash != found.hash and list(training().kinds)[1] == "x2"


# --------------------------------------------------------------------- as others keep it


def kaggle(root: Path) -> Path:
    """The same as in Kaggle's archive: images in a folder in a folder, annotations as
    CSV with a byte order mark, no identities.
    """
    other = root.parent / "kaggle"
    shutil.copytree(root / "img_align_celeba", other / "img_align_celeba" / "img_align_celeba")
    rows = [",".join([n, *map(str, row)]) for n, row in zip(NAMES, VALUES, strict=True)]
    table = "\n".join([",".join(["image_id", *KINDS]), *rows]) + "\n"
    (other / "list_attr_celeba.csv").write_text(table, encoding="utf-8-sig")
    table = "".join(f"{n},{i % 3}\n" for i, n in enumerate(NAMES))
    (other / "list_eval_partition.csv").write_text(
        f"image_id,partition\n{table}", encoding="utf-8-sig"
    )
    return other


def test_kaggle_s_layout(root) -> None:
    official, found = read(root), read(kaggle(root))
    assert np.array_equal(official.images, found.images) and official.key == found.key
    assert found.attribute_names == KINDS and np.array_equal(found.attributes, VALUES)
    assert found.partition.tolist() == official.partition.tolist()
    assert found.notes == ("identity_CelebA.txt is not there",)


def test_a_bad_line_of_a_csv_is_named_by_its_number(root) -> None:
    other = kaggle(root)
    edit(other / "list_eval_partition.csv", 4, f"{NAMES[2]},7")
    with pytest.raises(UserError, match=r"list_eval_partition.csv, line 4: .* cannot be '7'"):
        read(other)
    edit(other / "list_eval_partition.csv", 4, f"{NAMES[2]},2")
    edit(other / "list_attr_celeba.csv", 3, f"{NAMES[1]},1,1")
    with pytest.raises(UserError, match=r"list_attr_celeba.csv, line 3: expected a file name"):
        read(other)


def test_torchvision_s_folder_and_a_byte_order_mark(root) -> None:
    """Its root holds a folder ``celeba``."""
    official = read(root)
    text = (root / FILES[2]).read_text()
    (root / FILES[2]).write_text(text, encoding="utf-8-sig")
    found = read(root.parent)
    assert np.array_equal(official.images, found.images)
    assert found.partition.tolist() == official.partition.tolist()
