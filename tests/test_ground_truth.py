"""Which image belongs to which prompt, in every layout, and what a folder may not
hold.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from membench.datasets import ground_truth
from membench.datasets.ground_truth import GroundTruth, links_of, read_ground_truth
from membench.datasets.prompts import Prompt, example_id
from membench.errors import UserError
from membench.fetching.download_status import Row, StatusTable
from membench.fetching.image_download import Link

A = Prompt("A rug", 1, "MV", "set", url="http://one.example/a", index="11")
B = Prompt("A poster", 1, "TV", "set", url="http://one.example/b", index="22")
C = Prompt("A mug", 1, "RV", "set", url="http://one.example/c", index="33")
COCO = Prompt("a dog on a sofa", 0, "N", "coco", index="11")  # numbered too, but not by LAION
PROMPTS = [A, B, C, COCO]
SIDE = 16
COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}

Read = Callable[..., GroundTruth]


def png(colour: str, note: str = "") -> bytes:
    out = io.BytesIO()
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("note", note)
    Image.new("RGB", (40, 24), colour).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def read(tmp_path: Path) -> Read:
    return lambda folder, prompts=PROMPTS, side=SIDE: read_ground_truth(
        folder, prompts, side, root=tmp_path / "cache"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def colours(truth: GroundTruth) -> dict[str, list[str]]:
    """By prompt, the colours of its images, sorted."""
    images = truth.images()
    assert (
        images.dtype == np.uint8
        and images.shape == (len(truth.ids), SIDE, SIDE, 3)
        and truth.copies == (1,) * len(truth.ids)
    )
    names = {example_id(p.text): p.text for p in PROMPTS}
    named = [
        next(name for name, rgb in COLOURS.items() if (image == rgb).all()) for image in images
    ]
    assert all(positions == sorted(set(positions)) for positions in truth.owners.values())
    return {
        names[example]: sorted(named[i] for i in positions)
        for example, positions in truth.owners.items()
    }


# ------------------------------------------------------------------------------ layouts


def test_folders_of_an_index(folder: Path, read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    first = put(folder / "gt_images/11/0.png", png("red"))
    put(folder / "gt_images/22/0.png", png("green"))
    put(folder / "gt_images/22/1.png", png("blue"))
    put(folder / "gt_images/22/notes.txt", b"none of ours")
    put(folder / "gt_images/22/.DS_Store", b"\0")
    put(folder / "gt_images/99/0.png", b"of no prompt, and never read")
    truth = read(folder)
    assert colours(truth) == {A.text: ["red"], B.text: ["blue", "green"]}
    assert set(truth.ids) >= {hashlib.sha256(first.read_bytes()).hexdigest()[:16]} and list(
        truth.ids
    ) == sorted(truth.ids)
    assert truth.missing == (C, COCO)  # COCO's 11 is not LAION's
    assert (
        capsys.readouterr().err
        == "membench: 2 of 4 prompts have no ground-truth image (N 1, RV 1); 1 ground-truth"
        " image of no prompt left out\n"
    )
    assert colours(read(folder / "gt_images")) == colours(truth)


def test_json_lines_tell_captions_and_addresses(folder: Path, read: Read) -> None:
    put(folder / "gt_images/11/0.png", png("red"))
    put(folder / "gt_images/500/0.png", png("blue"))
    rows = [
        {"caption": B.text, "index": 11, "url": "http://two.example/x"},
        {"caption": "Other", "index": 500, "url": C.url},
    ]
    put(folder / "set.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    by_text = Prompt(B.text, 1, "memorized", "mine.txt")
    no_address = Prompt("of an index, but whose?", 1, "memorized", "mine.txt", index="11")
    truth = read(folder, [by_text, C, no_address])
    assert colours(truth) == {B.text: ["red"], C.text: ["blue"]}  # by caption; by address
    assert truth.missing == (no_address,)
    (folder / "set.jsonl").unlink()
    assert list(read(folder, [by_text, C, no_address]).owners) == [example_id(no_address.text)]


def img2dataset(
    folder: Path, layout: str, rows: list[dict[str, object]], **changed: object
) -> None:
    """What img2dataset 1.47 writes: shard 00000 of these rows, each with its image
    under "data" if it came.
    """
    metadata = []
    members: dict[str, bytes] = {}
    for i, row in enumerate(rows):
        data = row.pop("data", None)
        told = {
            "key": f"{i:09}",
            "status": "success" if data else "failed_to_download",
            "error_message": None if data else "HTTP Error 404",
        }
        told |= {
            "width": 40,
            "height": 24,
            "original_width": 40,
            "original_height": 24,
            "exif": "{}",
            "sha256": "0" * 64,
        } | row
        metadata.append(told | changed)
        if data:
            members[f"{i:09}.png"] = data  # type: ignore[assignment]
            members[f"{i:09}.txt"] = str(row["caption"]).encode()
        if layout != "tar":
            members[f"{i:09}.json"] = json.dumps(told | changed).encode()
    if layout != "json":
        put(folder / "00000_stats.json", b'{"count": 4, "successes": 3}')
        pd.DataFrame(metadata).to_parquet(folder / "00000.parquet")
    if layout == "tar":
        with tarfile.open(folder / "00000.tar", "w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        for name, data in members.items():
            put(folder / "00000" / name, data)


def shard() -> list[dict[str, object]]:
    return [
        {"url": A.url, "caption": "an older caption", "data": png("red")},
        {"url": B.url, "caption": B.text},  # did not come
        {"url": "http://two.example/moved", "caption": C.text, "data": png("blue")},
        {"url": "http://two.example/other", "caption": "of no prompt", "data": png("white")},
    ]


@pytest.mark.parametrize("layout", ["files", "tar", "json"])
def test_img2dataset(
    folder: Path, read: Read, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    img2dataset(folder, layout, shard())
    number = Prompt(
        "whose index is a key", 1, "MV", "set", url="http://three.example/x", index="000000003"
    )
    truth = read(folder, [*PROMPTS, number])
    assert colours(truth) == {A.text: ["red"], C.text: ["blue"]} and truth.missing == (
        B,
        COCO,
        number,
    )
    assert "1 ground-truth image of no prompt left out" in capsys.readouterr().err
    other = folder.with_name("as_files")
    put(other / "truth.csv", f"prompt,file\n{A.text},a\n{C.text},b\n".encode())
    put(other / "a", png("red"))
    put(other / "b", png("blue"))
    assert read(other).hash == truth.hash  # wherever they lie


def test_a_shard_folder_of_img2dataset_alone(folder: Path, read: Read) -> None:
    img2dataset(folder, "files", shard())
    assert colours(read(folder / "00000")) == {A.text: ["red"], C.text: ["blue"]}


def test_bars_of_img2dataset_are_told(
    folder: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    img2dataset(folder, "files", shard(), width=256, height=256)
    read(folder)
    assert (
        "3 of 3 images in" in (told := capsys.readouterr().err)
        and "--resize_mode border (the default) adds white bars" in told
    )


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda f: (f / "00000/000000002.png").unlink(),
            r"00000/000000002.jpg is not there, though img2dataset has downloaded it",
        ),
        (
            lambda f: put(f / "00000.parquet", b"PAR1"),
            r"00000.parquet is damaged; download its shard again",
        ),
        (
            lambda f: (shutil.rmtree(f / "00000"), put(f / "00000.tar", b"x" * 600)),
            r"00000.tar is damaged",
        ),
        (
            lambda f: (
                pd.read_parquet(f / "00000.parquet")
                .assign(key="../00000")
                .to_parquet(f / "00000.parquet")
            ),
            "not a file's name",
        ),
        (
            lambda f: (
                pd.read_parquet(f / "00000.parquet")
                .assign(key="x" * 9000)
                .to_parquet(f / "00000.parquet")
            ),
            r"x\.jpg is not there, though img2dataset has downloaded it",
        ),
    ],
)
def test_a_damaged_output_of_img2dataset(
    folder: Path, read: Read, spoil: Callable[[Path], object], told: str
) -> None:
    img2dataset(folder, "files", shard())
    spoil(folder)
    with pytest.raises(UserError, match=told) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_files_of_an_index_or_example_id(
    folder: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder / "11.jpeg", png("red"))
    put(folder / f"{example_id(B.text)}.webp", png("green"))
    put(folder / "33/a.png", png("blue"))
    put(folder / "11.json", b"{}")
    truth = read(folder, [A, B, C])
    assert (
        colours(truth) == {A.text: ["red"], B.text: ["green"], C.text: ["blue"]}
        and not truth.missing
    )
    assert not capsys.readouterr().err
    assert set(read(folder, [COCO]).owners) == {example_id(COCO.text)}  # nobody else has the number


def test_a_table_of_prompts_and_files(folder: Path, read: Read) -> None:
    put(folder / "in/x.png", png("red"))
    put(folder / "11.png", png("blue"))  # by the table only
    with open(folder / "truth.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["file", "prompt", "note"], ["in/x.png", A.text, ""], ["in/x.png", C.text, "again"]]
        )
        csv.writer(file).writerow(["11.png", C.text, "a, b"])
    assert colours(read(folder)) == {A.text: ["red"], C.text: ["blue", "red"]}


def downloaded(folder: Path, rows: list[tuple[str, str, str, bytes]]) -> None:
    table = StatusTable(folder)
    for i, (name, url, status, data) in enumerate(rows):
        file = f"images/{i}.png" if data else ""
        if data:
            put(folder / file, data)
        table.enter(
            Row(
                name,
                url,
                status,
                file,
                40,
                24,
                len(data),
                hashlib.sha256(data).hexdigest() if data else "",
                "",
                1,
                url,
            )
        )
    folder.mkdir(exist_ok=True)
    table.save()


def test_a_download(folder: Path, read: Read) -> None:
    rows = [
        ("11", A.url, "ok", png("red")),
        ("22", B.url, "gone", b""),
        ("33", C.url, "placeholder?", png("white")),
    ]
    downloaded(
        folder,
        [
            *rows,
            ("33/2", "http://one.example/c2", "ok", png("blue")),
            ("x", B.url, "ok", png("green")),
        ],
    )
    truth = read(folder)
    assert colours(truth) == {A.text: ["red"], B.text: ["green"], C.text: ["blue"]}
    assert truth.missing == (COCO,)
    alone = [COCO, B]
    # The address of 11 is known, and is not COCO's
    assert set(read(folder, alone).owners) == {example_id(B.text)}


def test_links_of_prompts() -> None:
    twin = Prompt("A rug, twice", 1, "MV", "set", url=A.url, index="11")
    second = Prompt(A.text, 1, "MV", "set", url="http://two.example/a", index="11")
    own = Prompt("no index", 1, "MV", "set", url="http://one.example/own")
    expected = [
        Link("11", A.url),
        Link("11/2", second.url),
        Link("22", B.url),
        Link(example_id(own.text), own.url),
    ]
    prompts = [own, second, B, twin, A, COCO]
    assert (
        links_of(prompts) == sorted(expected, key=lambda link: link.id) == links_of(prompts[::-1])
    )


# ------------------------------------------------------------------------ what it gives


def test_equal_files_are_one_picture(folder: Path, read: Read) -> None:
    for name in ("11/a.png", "11/b.png", "22/a.png"):
        put(folder / name, png("red"))
    put(folder / "33/a.png", png("red", "other bytes"))
    truth = read(folder)
    assert len(truth.ids) == 2
    assert colours(truth) == {A.text: ["red"], B.text: ["red"], C.text: ["red"]}
    assert (
        truth.owners[example_id(A.text)]
        == truth.owners[example_id(B.text)]
        != truth.owners[example_id(C.text)]
    )


def test_the_hash_is_of_contents_and_owners(folder: Path, read: Read, tmp_path: Path) -> None:
    put(folder / "11/a.png", png("red"))
    put(folder / "22/a.png", png("blue"))
    truth = read(folder)
    elsewhere = shutil.copytree(folder, tmp_path / "else" / "where")
    (elsewhere / "22/a.png").rename(elsewhere / "22/renamed.PNG")
    same = read(elsewhere, PROMPTS[::-1])
    assert same.hash == truth.hash and same.owners == truth.owners and same.ids == truth.ids
    assert (same.images() == truth.images()).all()
    (elsewhere / "22").rename(elsewhere / "33")
    others = [read(elsewhere), read(folder, side=8), read(folder, [A, C, COCO])]
    put(folder / "22/a.png", png("blue", "another file"))
    hashes = [truth.hash, read(folder).hash, *(other.hash for other in others)]
    assert len(set(hashes)) == 5
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4  # owners alone change no pixels


def test_pixels_are_made_once(folder: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "11.png", png("red"))
    read(folder)
    monkeypatch.setattr(ground_truth, "decode", lambda *args: pytest.fail("decoded again"))
    assert colours(read(folder)) == {A.text: ["red"]}


def test_prompts_of_one_text_are_one_example(
    folder: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder / "11.png", png("red"))
    put(folder / "12.png", png("blue"))
    again = Prompt(A.text, 1, "MV", "set", url="http://one.example/a12", index="12")
    truth = read(folder, [A, again, B, Prompt(B.text, 1, "TV", "other")])
    assert colours(truth) == {A.text: ["blue", "red"]} and truth.missing == (B,)
    assert "1 of 2 prompts" in capsys.readouterr().err


# ---------------------------------------------------------------------- a user's errors


def refused(read: Read, folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(folder)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), str(
        caught.value
    )


def test_files_that_are_no_pictures(
    folder: Path, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = png("red")
    for name, data, why in [
        ("11.png", good[:60], "cannot be read as an image"),
        ("11.html", b"<html>", "cannot be read as an image"),
        ("11.svg", b"<svg/>", "cannot be read as an image"),
        ("11.gif", b"", "cannot be read as an image"),
    ]:
        path = put(folder / name, data)
        refused(read, folder, str(path), why)
        path.unlink()
    assert not list((tmp_path / "cache").glob("*.npy"))
    os.mkfifo(folder / "11.png")
    refused(read, folder, "11.png", "is not a file")
    (folder / "11.png").unlink()
    path = put(folder / "11.png", good)
    monkeypatch.setattr(ground_truth, "MAX_BYTES", len(good) - 1)
    refused(read, folder, str(path), f"{len(good):,} bytes")


def test_bombs(folder: Path, read: Read) -> None:
    from test_pictures import png_claiming

    path = put(folder / "11.png", png_claiming(60_000, 60_000))
    refused(read, folder, str(path), "pixels")
    put(path, png_claiming(10_000, 10_000))
    refused(read, folder, str(path), "10000 x 10000 pixels, more than")


def test_links_out_of_the_folder(folder: Path, read: Read, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.png", png("red"))
    inside = put(folder / "kept.png", png("red"))
    link = folder / "11.png"
    link.symlink_to(outside)
    refused(read, folder, str(link), "lies outside")
    link.unlink()
    link.symlink_to(inside)
    assert colours(read(folder)) == {A.text: ["red"]}
    (tmp_path / "alias").symlink_to(folder)
    assert colours(read(tmp_path / "alias")) == {A.text: ["red"]}  # the folder itself may be one
    link.unlink()
    link.symlink_to(folder / "never.png")
    refused(read, folder, str(link), "cannot be read")
    link.unlink()
    link.symlink_to(link)
    refused(read, folder, str(link), "cannot be read")
    for name in (str(outside), "../outside.png"):
        put(folder / "truth.csv", f"prompt,file\n{A.text},{name}\n".encode())
        refused(read, folder, "outside.png lies outside")


def test_a_table_that_names_what_an_archive_lacks(folder: Path, read: Read) -> None:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("there.png"))
    put(folder / "truth.csv", f"prompt,file\n{A.text},a.tar/gone.png\n".encode())
    with pytest.raises(UserError, match=r"a\.tar holds no gone\.png; mend the table"):
        read(folder)


def test_malformed_tables(folder: Path, read: Read) -> None:
    put(folder / "11.png", png("red"))
    for text, why in [
        (b"prompt;file\n", "no column file and prompt; it has prompt;file"),
        (b"prompt,file\nA rug,\n", "line 2: the file is empty"),
        (b"prompt,file\n\nA rug\n", "line 3: the file is empty"),
        (b"prompt,file\n,11.png\n", "line 2: the prompt is empty"),
        (b"prompt,file\nA rug, red,11.png\n", "line 2: more fields than the header has; quote"),
        (b"prompt,file\nA r\xfcg,11.png\n", "not UTF-8 (byte 15)"),
        (b'prompt,file\n"A rug,11.png\n', "cannot be read"),
        (b"prompt,file\nA rug,12.png\n", "12.png cannot be read"),
        (b"prompt,file\nA rug,1\x002.png\n", "cannot be read: embedded null byte"),
        (b"prompt,file\n", "holds no image"),
        (b"prompt,file\nAnother,11.png\n", "none of the 1 images"),
    ]:
        put(folder / "truth.csv", text)
        refused(read, folder, why)


def test_a_download_that_was_changed(folder: Path, read: Read) -> None:
    downloaded(folder, [("11", A.url, "ok", png("red"))])
    path = folder / "images/0.png"
    path.write_bytes(png("blue"))
    refused(read, folder, str(path), "not what was downloaded")
    path.unlink()
    refused(read, folder, str(path), "cannot be read")
    put(folder / "status.parquet", b"PAR1")
    refused(read, folder, "status.parquet is damaged")


def test_folders_without_pictures(folder: Path, read: Read) -> None:
    refused(read, folder, "is not a folder", "gt_images/INDEX")
    folder.mkdir()
    refused(read, folder, "holds no image")
    put(folder / "99.png", png("red"))
    refused(read, folder, "none of the 1 images")
    with pytest.raises(ValueError, match="side is 0"):
        read(folder, side=0)
