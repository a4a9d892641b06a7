"""Data sets as people keep them: each layout gives the same collection, what is bad is
counted and named, hidden files change nothing.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import tarfile
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_files import small_files

from membench.datasets import parquet_images
from membench.datasets.cifar import read_cifar, unpickled
from membench.datasets.collection import Collection, read_collection
from membench.datasets.prompts import read_prompt_file
from membench.datasets.records import Record, read_records
from membench.datasets.sources import _spelled
from membench.errors import UserError

SIDE, N = 8, 6
PIXELS = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
TEXTS = [f"caption {i}" for i in range(N)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(i: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS[i]).save(out, "PNG")
    return out.getvalue()


def folder(root: Path, names: list[str] | None = None) -> Path:
    """Images as files; names: of each, below the root."""
    for i, name in enumerate(names or [f"{i}.png" for i in range(N)]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(i))
    return root


def table(path: Path, rows: list[tuple[str, str]], header: str, separator: str = ",") -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    writer.writerow(header.split(separator))
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")


def right(found: Collection) -> bool:
    return np.array_equal(found.images(), PIXELS) and [list(t) for t in found.captions] == [
        [t] for t in TEXTS
    ]


def test_a_full_disk_of_the_cache_is_named(tmp_path: Path) -> None:
    """By the line of a disk, not of the data; and nothing half written stays."""
    data = folder(tmp_path / "data")
    way_out = r"cannot write in .*collections: File too large; .* set MEMBENCH_CACHE"
    with small_files(N * SIDE * SIDE * 3 - 1), pytest.raises(UserError, match=way_out):
        read_collection(data, SIDE)
    left = Path(os.environ["MEMBENCH_CACHE"], "collections").iterdir()
    assert [file.suffix for file in left] == [".lock"]
    with small_files(N * SIDE * SIDE * 3), pytest.raises(UserError, match=way_out):
        read_collection(data, SIDE)  # its note is longer than its pixels
    assert not list(Path(os.environ["MEMBENCH_CACHE"], "collections").glob("*.json"))
    assert len(read_collection(data, SIDE).ids) == N


@pytest.mark.parametrize("files", ["NFC", "NFD"])
@pytest.mark.parametrize("where", ["metadata.csv", "captions", "paths"])
def test_a_table_may_write_a_name_in_the_other_unicode_form(
    tmp_path: Path, files: str, where: str
) -> None:
    """Files of a Mac are decomposed; a table that is made elsewhere has them composed."""
    other = {"NFC": "NFD", "NFD": "NFC"}[files]
    names = [f"ü/é{i}.png" for i in range(N)]
    folder(tmp_path / "data", [unicodedata.normalize(files, name) for name in names])
    given = tmp_path / ("data/metadata.csv" if where == "metadata.csv" else "c.csv")
    lead = "/away/data/" if where == "paths" else ""
    rows = [(lead + unicodedata.normalize(other, n), t) for n, t in zip(names, TEXTS, strict=True)]
    table(given, rows, "file_name,text")
    own = {} if where == "metadata.csv" else {"captions": given}
    assert right(read_collection(tmp_path / "data", SIDE, max_bad=0, **own))


def test_a_name_in_both_unicode_forms_is_of_neither_in_another() -> None:
    composed, apart = "\u00e9", "e\u0301"
    assert _spelled({apart: 1}) == {composed: 1, apart: 1}
    assert _spelled({composed: 1, apart: 2}) == {composed: 1, apart: 2}
    angstrom = "\u212b"  # a third form, whose composed one is \u00c5
    assert _spelled({angstrom: 1, "A\u030a": 2}) == {angstrom: 1, "A\u030a": 2}


FILES = [f"{i}.png" for i in range(N)]


def _imagefolder_csv(root: Path) -> None:
    table(folder(root) / "metadata.csv", list(zip(FILES, TEXTS, strict=True)), "file_name,text")


def _imagefolder_semicolons_bom(root: Path) -> None:
    table(
        folder(root) / "metadata.csv", list(zip(FILES, TEXTS, strict=True)), "File_Name;TEXT", ";"
    )
    file = root / "metadata.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


def _imagefolder_jsonl(root: Path) -> None:
    lines = [json.dumps({"file_name": f, "text": t}) for f, t in zip(FILES, TEXTS, strict=True)]
    (folder(root) / "metadata.jsonl").write_text("\n".join(lines))


def _nested(root: Path) -> None:
    """A table of its own in each folder."""
    names = [f"{'ab'[i % 2]}/deep/{i}.png" for i in range(N)]
    folder(root, names)
    for part in "ab":
        rows = [(f"deep/{i}.png", TEXTS[i]) for i in range(N) if "ab"[i % 2] == part]
        table(root / part / "metadata.csv", rows, "file_name\ttext", "\t")


def _texts_beside(root: Path) -> None:
    folder(root)
    for i, text in enumerate(TEXTS):
        (root / f"{i}.txt").write_text(text + "\n")


def _img2dataset_files(root: Path) -> None:
    folder(root, [f"00000/{i:09d}.png" for i in range(N)])
    for i, text in enumerate(TEXTS):
        note = {"caption": text, "url": "http://x", "key": f"{i:09d}", "status": "success"}
        (root / "00000" / f"{i:09d}.json").write_text(json.dumps(note))


def shard_of(path: Path, parts: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in parts:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _webdataset(root: Path) -> None:
    for shard in range(2):
        parts = []
        for i in range(shard * 3, shard * 3 + 3):
            beside = [(".txt", TEXTS[i].encode())] if shard else []
            beside += [(".json", json.dumps({"caption": TEXTS[i]}).encode())]
            parts += [(f"./{i:06d}{end}", data) for end, data in [(".png", png(i)), *beside]]
        shard_of(root / f"{shard:05d}.tar", parts)


def _parquet(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(N)]
    frame = pa.table({"image": images, "Caption": TEXTS})
    pq.write_table(frame, root / "train-00000.parquet", row_group_size=4)


LAYOUTS = [
    _imagefolder_csv,
    _imagefolder_semicolons_bom,
    _imagefolder_jsonl,
    _texts_beside,
    _img2dataset_files,
    _webdataset,
    _parquet,
]


@pytest.mark.parametrize("make", LAYOUTS)
def test_each_layout_gives_the_same_collection(tmp_path: Path, make) -> None:
    make(tmp_path / "data")
    found = read_collection(tmp_path / "data", SIDE)
    assert right(found) and found.bad == () and found.rows == N and found.size == (SIDE, SIDE)


def test_nested_folders_with_tables_of_their_own(tmp_path: Path) -> None:
    _nested(tmp_path)
    found = read_collection(tmp_path, SIDE)
    told = {f[0].rsplit("/", 1)[-1]: c for f, c in zip(found.files, found.captions, strict=True)}
    assert told == {f"{i}.png": (TEXTS[i],) for i in range(N)}


def test_a_folder_a_class(tmp_path: Path) -> None:
    """The folder of a split is no class; classes are sorted."""
    folder(tmp_path, [f"train/{('cat', 'ant')[i % 2]}/{i}.png" for i in range(N)])
    found = read_collection(tmp_path, SIDE)
    assert found.classes == {0: "ant", 1: "cat"}
    assert sorted(zip((f[0][-5] for f in found.files), found.labels, strict=True)) == [
        (str(i), 1 - i % 2) for i in range(N)
    ]


def test_numbers_as_classes_are_the_model_s_own(tmp_path: Path) -> None:
    """A class without images shifts no other, and -1 is none."""
    folder(tmp_path, [f"{(10, -1, 2)[i % 3]}/{i}.png" for i in range(N)])
    found = read_collection(tmp_path, SIDE)
    assert found.classes == {2: "2", 10: "10"} and found.unclear == ""
    assert dict(zip((f[0][-5] for f in found.files), found.labels, strict=True)) == {
        str(i): (10, None, 2)[i % 3] for i in range(N)
    }


def named_parquet(path: Path, labels: list[Any], names: list[str]) -> None:
    notes = json.dumps({"info": {"features": {"label": {"names": names}}}})
    told = pa.table({"image": [png(i) for i in range(N)], "label": labels})
    pq.write_table(told.replace_schema_metadata({"huggingface": notes}), path)


def test_hugging_face_s_classes_keep_their_numbers(tmp_path: Path) -> None:
    names = ["T - shirt / top", "Trouser", "Pullover", "Dress"]
    named_parquet(tmp_path / "a.parquet", [0, 1, 2, 0, -1, 1], names)
    found = read_collection(tmp_path, SIDE)
    assert found.labels == (0, 1, 2, 0, None, 1) and found.bad == ()
    assert found.classes == dict(enumerate(names))


def test_classes_that_are_told_by_name_have_the_place_of_the_name(tmp_path: Path) -> None:
    names = ["Trouser", "Pullover", "Dress"]
    named_parquet(tmp_path / "a.parquet", [names[i % 3] for i in range(N)], names)
    found = read_collection(tmp_path, SIDE)
    assert found.labels == tuple(i % 3 for i in range(N)) and found.unclear == ""
    assert found.classes == dict(enumerate(names))


def test_the_names_of_classes_are_those_of_their_column(tmp_path: Path) -> None:
    features = {
        "superclass": {"names": ["animal", "plant"]},
        "label": {"names": ["ant", "bee", "fern"]},
    }
    notes = json.dumps({"info": {"features": features}})
    columns = {"image": [png(i) for i in range(N)], "superclass": [0] * N, "label": [2] * N}
    told = pa.table(columns).replace_schema_metadata({"huggingface": notes})
    pq.write_table(told, tmp_path / "a.parquet")
    found = read_collection(tmp_path, SIDE)
    assert found.bad == () and set(found.labels) == {2}
    assert found.classes == {0: "ant", 1: "bee", 2: "fern"}


def test_a_name_and_a_number_as_classes_are_unclear(tmp_path: Path) -> None:
    folder(tmp_path, [f"{('10', '9', 'none')[i % 3]}/{i}.png" for i in range(N)])
    assert read_collection(tmp_path, SIDE).unclear == (
        "'10' has a number of its own, 'none' has none"
    )


def test_a_table_names_the_classes_of_cifar(tmp_path: Path) -> None:
    """By the archive's own numbers, whichever of them the table has."""
    cifar(tmp_path / "cifar-10-batches-py", rows=1)
    table(tmp_path / "c.csv", [("train/00000", "cat")], "file_name,label")
    found = read_collection(tmp_path / "cifar-10-batches-py", 32, captions=tmp_path / "c.csv")
    assert found.labels[0] == 1 and found.classes == {0: "ant", 1: "cat"}


def test_a_class_that_is_a_number_of_many_digits(tmp_path: Path) -> None:
    """Neither it nor a number beyond the names is a class."""
    labels = ["1", "9" * 5000, "7", "0", "0", "0"]
    named_parquet(tmp_path / "a.parquet", labels, ["mug", "cup"])
    found = read_collection(tmp_path, SIDE, max_bad=2)
    assert found.classes == {0: "mug", 1: "cup"} and found.labels == (1, None, None, 0, 0, 0)
    assert [b.why for b in found.bad] == [
        f"class {'9' * 60}, where 2 are named",
        "class 7, where 2 are named",
    ]


def test_equal_images_are_one_and_counted(tmp_path: Path) -> None:
    """Also in another encoding."""
    folder(tmp_path)
    (tmp_path / "again.png").write_bytes(png(2))
    Image.fromarray(PIXELS[2]).save(tmp_path / "other.bmp")
    found = read_collection(tmp_path, SIDE)
    assert len(found.ids) == N and found.rows == N + 2 and sorted(found.copies) == [1] * 5 + [3]


def test_hidden_files_change_neither_the_collection_nor_its_hash(tmp_path: Path) -> None:
    _imagefolder_csv(tmp_path)
    before = read_collection(tmp_path, SIDE)
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "0.png").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "9.png").write_bytes(png(0))
    after = read_collection(tmp_path, SIDE)
    assert after.hash == before.hash and after.bad == () and right(after)


def test_the_hash_does_not_depend_on_the_place(tmp_path: Path) -> None:
    hashes = set()
    for name in ("here", "there"):
        _imagefolder_csv(tmp_path / name)
        hashes.add(read_collection(tmp_path / name, SIDE).hash)
    assert len(hashes) == 1
    table(tmp_path / "here/metadata.csv", [(f, "other") for f in FILES], "file_name,text")
    assert read_collection(tmp_path / "here", SIDE).hash not in hashes


# ------------------------------------------------------------------------------- captions


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"file_name": f, "caption": t} for f, t in zip(FILES, TEXTS, strict=True)]),
        json.dumps(dict(zip(FILES, TEXTS, strict=True))),
        json.dumps({f: [t] for f, t in zip(FILES, TEXTS, strict=True)}),
        json.dumps({f: {"text": t} for f, t in zip(FILES, TEXTS, strict=True)}),
        json.dumps({"file_name": FILES, "Prompt": TEXTS}),
        json.dumps(
            {
                "images": [{"id": i, "file_name": f} for i, f in enumerate(FILES)],
                "annotations": [{"image_id": i, "caption": t} for i, t in enumerate(TEXTS)],
            }
        ),
        "\n".join(json.dumps({"file": f, "TEXT": t}) for f, t in zip(FILES, TEXTS, strict=True)),
        "IMAGE|Alt Text\n" + "\n".join(f"{f}|{t}" for f, t in zip(FILES, TEXTS, strict=True)),
        "image_id,caption\n"
        + "\n".join(f"{f[:-4]},{t}" for f, t in zip(FILES, TEXTS, strict=True)),
    ],
)
def test_captions_from_a_table_of_any_form(tmp_path: Path, text: str) -> None:
    folder(tmp_path / "data")
    (tmp_path / "captions").write_text(text)
    assert right(read_collection(tmp_path / "data", SIDE, captions=tmp_path / "captions"))


def test_membench_s_table_of_addresses(tmp_path: Path) -> None:
    """As Hong et al. (2024) publish it: a list as Python writes it, which is read as
    literals.
    """
    (tmp_path / "SD1_final.csv").write_text(
        ",prompt,urls\n0,a flag,['http://x/1']\n1,a rug,\"['http://x/1', 'http://x/2']\"\n"
        "2,a trap,\"[__import__('os').abort()]\"\n"
    )
    found = read_records(tmp_path / "SD1_final.csv")
    assert [r.texts() for r in found] == [["a flag"], ["a rug"], ["a trap"]]
    assert [r.urls() for r in found] == [["http://x/1"], ["http://x/1", "http://x/2"], []]


def test_captions_of_the_same_name_in_another_folder(tmp_path: Path) -> None:
    """Paths may be longer than those below the data, but not name other folders."""
    names = ["train/0001.png", "train/0002.png", "a/b/3.png", "a/4.png", "5.png", "6.png"]
    folder(tmp_path / "data", names)
    rows = [
        ("train/0001.png", "right"),
        *((f"val/{n}.png", "wrong") for n in ("0001", "0002", "3")),
        ("/home/me/data/a/b/3.png", "longer"),
        ("4.png", "bare"),
        ("./5.png", "here"),
        ("/data/6.png", "above"),
    ]
    table(tmp_path / "c.csv", rows, "file_name,text")
    found = read_collection(tmp_path / "data", SIDE, captions=tmp_path / "c.csv", max_bad=3)
    assert dict(zip((f[0] for f in found.files), found.captions, strict=True)) == {
        "train/0001.png": ("right",),
        "train/0002.png": (),
        "a/b/3.png": ("longer",),
        "a/4.png": ("bare",),
        "5.png": ("here",),
        "6.png": ("above",),
    }
    assert [b.why.split()[0] for b in found.bad] == ["val/0001.png", "val/0002.png", "val/3.png"]


def test_a_number_that_pandas_made_a_fraction() -> None:
    assert Record("", {"label": 1.0}).text("label") == "1"
    assert Record("", {"label": float("nan")}).text("label") == ""


# ---------------------------------------------------------------------------- what is bad


def test_a_bad_image_and_a_bad_row_are_counted_and_named(tmp_path: Path) -> None:
    _imagefolder_csv(tmp_path)
    (tmp_path / "broken.png").write_bytes(png(0)[:50])
    with open(tmp_path / "metadata.csv", "a") as file:
        file.write("gone.png,a caption\n")
    found = read_collection(tmp_path, SIDE, max_bad=2)
    assert [(b.name, b.why.split(":")[0]) for b in found.bad] == [
        ("metadata.csv, line 8", "gone.png is not there"),
        ("broken.png", "damaged"),
    ]
    assert right(found)
    with pytest.raises(UserError, match=r"2 of 7 .*metadata.csv, line 8.*--max-bad"):
        read_collection(tmp_path, SIDE, max_bad=1)


@pytest.mark.parametrize(("second", "lost"), [("", 251), ('"', 100)])
def test_a_stray_quote_costs_each_line_that_it_swallows(
    tmp_path: Path, second: str, lost: int
) -> None:
    """To the end, or to the next quote."""
    rows = [f"{i}.png,caption {i}" for i in range(1, 301)]
    rows[49] = '50.png,"caption 50'
    rows[148] = f"149.png,{second}caption 149"
    (tmp_path / "t.csv").write_text("file_name,text\n" + "\n".join(rows) + "\n\n")
    found = read_records(tmp_path / "t.csv")
    assert len(found) == 300 and sum(bool(r.error) for r in found) == lost
    assert [r.where for r in found if r.error][:2] == ["line 51", "line 52"]


def test_names_that_are_not_utf8_are_told_by_escapes(tmp_path: Path) -> None:
    """Its pixels are an image whatever its name is."""
    name = os.fsdecode(b"caf\xe9.png")
    folder(tmp_path / "data", [name, *(f"{i}.png" for i in range(1, N))])
    (tmp_path / "data" / os.fsdecode(b"\xff.png")).write_bytes(b"none")
    captions = tmp_path / os.fsdecode(b"\xff.csv")
    table(captions, [("1.png", "one")], "file_name,text")
    found = read_collection(tmp_path / "data", SIDE, captions=captions, max_bad=1)
    assert found.files[-1] == ("caf\\udce9.png",) and found.rows == N
    assert [b.name for b in found.bad] == ["\\udcff.png"]
    assert found == replace(
        read_collection(tmp_path / "data", SIDE, captions=captions, max_bad=1), images=found.images
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_with_the_line_ends_of_any_system(tmp_path: Path, end: str) -> None:
    folder(tmp_path)
    rows = ["file_name;text", *(f"{i}.png;caption {i}" for i in range(N))]
    (tmp_path / "metadata.csv").write_bytes(f"{end}{end.join(rows)}{end}".encode())
    assert right(read_collection(tmp_path, SIDE))


@pytest.mark.parametrize("header", ["x" * 200_000, '"file_name",te"x"t,"', 'file_name,"te"xt'])
def test_a_damaged_header_is_one_line(tmp_path: Path, header: str) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\na.png,hello\n")
    with pytest.raises(UserError, match=r"t.csv is damaged CSV: its header \("):
        read_records(tmp_path / "t.csv")


@pytest.mark.parametrize("odd", [[1], {"a": 1}, None])
def test_coco_s_ids_that_are_none(tmp_path: Path, odd: object) -> None:
    images = [{"id": odd, "file_name": "a"}, {"id": 1, "file_name": "b"}, 3]
    notes = [{"image_id": odd, "caption": "x"}, {"image_id": 1, "caption": "y"}]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": notes}, indent=1))
    found = [(r.text("file"), r.texts()) for r in read_records(tmp_path / "c.json")]
    assert found == [("", ["x"]), ("b", ["y"])]
    assert [p.text for p in read_prompt_file(tmp_path / "c.json")] == ["x", "y"]


@pytest.mark.parametrize("cell", ["[{[]:1}]", "[1,", "[{1:[]}]", "[" * 5_000, "[1]"])
def test_a_cell_of_addresses_that_is_no_list_of_texts(tmp_path: Path, cell: str) -> None:
    table(tmp_path / "t.csv", [("a", cell)], "prompt,urls")
    assert read_records(tmp_path / "t.csv")[0].urls() == []
    assert [p.url for p in read_prompt_file(tmp_path / "t.csv")] == [cell]


HALF = "half a surrogate pair"


@pytest.mark.parametrize("column", ["text", "label"])
def test_half_a_surrogate_pair_is_a_bad_row(tmp_path: Path, column: str) -> None:
    rows = [{"file_name": f"{i}.png", "text": "x", "label": "y"} for i in range(N)]
    rows[1][column] = "\ud800"
    folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_collection(tmp_path, SIDE, max_bad=1)
    assert len(found.ids) == N and found.classes == {0: "y"}
    [bad] = found.bad
    assert bad.name == "metadata.jsonl, line 2"
    assert bad.why == f"{column} holds {HALF}, which is not a text"


def test_half_a_surrogate_pair_beside_an_image(tmp_path: Path) -> None:
    """The image is left out and named: it does not lose its caption unseen."""
    folder(tmp_path)
    (tmp_path / "1.json").write_text('{"caption": "\\ud800"}')
    found = read_collection(tmp_path, SIDE, max_bad=1)
    assert len(found.ids) == N - 1
    assert [(b.name, HALF in b.why) for b in found.bad] == [("1.png", True)]


def test_a_caption_beside_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "0.json").write_text('{"caption": "a mug')
    (tmp_path / "1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "2.txt").write_text("  ")  # none
    (tmp_path / "3.json").write_text('{"text": {}}')
    found = read_collection(tmp_path, SIDE, max_bad=3)
    ends = [f"{i}.png, its .{end}" for i, end in ((0, "json"), (1, "txt"), (3, "json"))]
    assert [b.name for b in found.bad] == ends
    assert "damaged JSON" in found.bad[0].why and "utf-8" in found.bad[1].why


@pytest.mark.parametrize(
    "note",
    [
        {"version": "5.0.1", "shapes": [], "imagePath": "a.png", "imageHeight": 32},  # labelme
        ["a", "b"],
        [{"caption": "of nothing"}],
        7,
    ],
)
def test_json_beside_an_image_that_is_no_caption(tmp_path: Path, note: object) -> None:
    folder(tmp_path)
    (tmp_path / "0.json").write_text(json.dumps(note))
    (tmp_path / "1.json").write_text('{"Caption": ["a", "b"], "id": 3}')
    found = read_collection(tmp_path, SIDE)
    assert found.captions[:2] == ((), ("a", "b")) and found.bad == ()


def test_half_a_surrogate_pair_in_a_shard(tmp_path: Path) -> None:
    images = [(f"{i}.png", png(i)) for i in range(2)]
    notes = [("0.json", b'{"caption": "\\ud800"}'), ("1.json", b'{"caption": "a"}')]
    shard_of(tmp_path / "0.tar", [*images, *notes])
    found = read_collection(tmp_path, SIDE, max_bad=1)
    assert found.captions == (("a",),) and HALF in found.bad[0].why


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["I.05.01.png", "I.05.01.txt", "I.05.02.png", "I.05.02.txt", "I.06.png"],
            {"I.05.01.png": ("I.05.01.txt",), "I.05.02.png": ("I.05.02.txt",), "I.06.png": ()},
        ),
        (
            ["0.depth.png", "0.png", "0.txt", "0.depth.txt", "0.mask.png"],
            {"0.depth.png": ("0.depth.txt",), "0.png": ("0.txt",), "0.mask.png": ()},
        ),
        (["0.input.png", "0.txt"], {"0.input.png": ("0.txt",)}),
        (
            ["0.left.png", "0.right.png", "0.txt"],
            dict.fromkeys(["0.left.png", "0.right.png"], ("0.txt",)),
        ),
    ],
)
def test_names_with_dots_in_a_shard(tmp_path: Path, names: list[str], told: dict[str, Any]) -> None:
    """No image is lost, and none has the caption of another."""
    parts = [(n, png(i) if n.endswith("png") else n.encode()) for i, n in enumerate(names)]
    shard_of(tmp_path / "s.tar", parts)
    found = read_collection(tmp_path, SIDE)
    assert found.bad == ()
    assert dict(zip((f[0][6:] for f in found.files), found.captions, strict=True)) == told


def test_two_files_of_one_name_in_a_shard(tmp_path: Path) -> None:
    shard_of(tmp_path / "s.tar", [(f"0.{end}", png(i)) for i, end in enumerate(["png", "PNG"])])
    found = read_collection(tmp_path, SIDE, max_bad=1)
    assert [(b.name, b.why) for b in found.bad] == [("s.tar/0.PNG", "a second file of this name")]


def test_a_snapshot_in_the_hub_s_cache_is_links_to_its_blobs(tmp_path: Path) -> None:
    """Its files lie beside it; those of another repository do not."""
    wanted = read_collection(folder(tmp_path / "plain"), SIDE)
    hub = tmp_path / "datasets--owner--name"
    snapshot = hub / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (hub / "blobs").mkdir()
    for i, file in enumerate(sorted((tmp_path / "plain").iterdir())):
        file.rename(hub / "blobs" / f"{i:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i:040x}")
    assert read_collection(snapshot, SIDE).hash == wanted.hash
    first = min(snapshot.iterdir())
    (tmp_path / "secret.png").write_bytes(png(0))
    first.unlink()
    first.symlink_to(tmp_path / "secret.png")
    found = read_collection(snapshot, SIDE, max_bad=10)
    assert [b.name for b in found.bad] == [first.name]


def test_pictures_that_are_not_there_or_not_read_are_told(tmp_path: Path) -> None:
    """Of a training set that was fetched in part (Git annex, DVC) the rest are links to
    nothing; a camera's HEIC no decoder here takes. A model may have seen each.
    """
    data = folder(tmp_path / "data")
    (data / "gone.jpg").symlink_to(data / ".git" / "annex" / "gone.jpg")
    (data / "circle.png").symlink_to(data / "circle.png")
    (data / "notes").symlink_to(data / "nowhere")
    (data / "IMG.HEIC").write_bytes(b"ftypheic")
    found = read_collection(data, SIDE, max_bad=9)
    assert {b.name: b.why for b in found.bad} == {
        "gone.jpg": "a link to nothing; fetch it",
        "circle.png": "a link to nothing; fetch it",
        "IMG.HEIC": ".HEIC is not read; save it as PNG",
    }
    assert found.rows == N
    (data / "gone.jpg").unlink()
    (data / "0.jfif").write_bytes(png(0))
    again = read_collection(data, SIDE, max_bad=9)
    assert "gone.jpg" not in {b.name for b in again.bad} and again.rows == N + 1
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "gone.jpg").symlink_to(bare / "nowhere.jpg")
    with pytest.raises(UserError, match=r"holds no image \(gone\.jpg: a link to nothing"):
        read_collection(bare, SIDE)


def test_links_out_of_the_data(tmp_path: Path) -> None:
    """Of an image, a caption, a table and a shard; links inside are followed."""
    data = folder(tmp_path / "data")
    for name, content in (("a.png", png(0)), ("a.txt", b"secret"), ("m.csv", b"file_name,text\n")):
        (tmp_path / name).write_bytes(content)
    (data / "0.png").unlink()
    (data / "0.png").symlink_to(tmp_path / "a.png")
    (data / "1.txt").symlink_to(tmp_path / "a.txt")
    (data / "2.json").symlink_to(tmp_path / "a.txt")
    (data / "metadata.csv").symlink_to("../m.csv")
    (data / "again.png").symlink_to("3.png")
    found = read_collection(data, SIDE, max_bad=10)
    assert found.rows == N and sorted(found.copies) == [1, 1, 1, 1, 2]
    assert not any(found.captions)
    assert {b.why for b in found.bad} == {"a link out of the folder; copy it"}
    assert [b.name for b in found.bad] == [
        "0.png",
        "1.txt",
        "2.json",
        "metadata.csv",
    ]
    shard_of(tmp_path / "s.tar", [("0.png", png(0))])
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").symlink_to(tmp_path / "s.tar")
    with pytest.raises(UserError, match=r"holds no image .0\.tar: a link out of the folder"):
        read_collection(tmp_path / "shards", SIDE)
    (tmp_path / "alias").symlink_to(data)  # the folder itself may be one
    assert read_collection(tmp_path / "alias", SIDE, max_bad=10).hash == found.hash
    cifar(tmp_path / "cifar-10-batches-py")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "cifar-10-batches-py").symlink_to(tmp_path / "cifar-10-batches-py")
    with pytest.raises(UserError, match=r"leads out of .*linked; name it itself"):
        read_collection(tmp_path / "linked", 32)


def test_classes_of_a_table_that_pandas_wrote(tmp_path: Path) -> None:
    """Whole numbers beside a gap are floats there, and the gap may be written as nan."""
    data = folder(tmp_path / "data")
    names = [f"{i}.png" for i in range(N)]
    given = [0.0, 10.0, 2.0, *[float("nan")] * (N - 3)]
    frame = pd.DataFrame({"file_name": names, "label": given})
    for rep in ("", "nan", "NaN"):
        frame.to_csv(data / "metadata.csv", index=False, na_rep=rep)
        found = read_collection(data, SIDE)
        by_file = {files[0]: n for files, n in zip(found.files, found.labels, strict=True)}
        assert [by_file[name] for name in names[:3]] == [0, 10, 2]
        assert set(by_file.values()) == {0, 10, 2, None} and not found.unclear


def test_an_image_with_two_classes_is_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    rows = "file_name,text,label\n0.png,a,ant\n0.png,b,ant\n0.png,c,cat\n1.png,d,cat\n"
    (tmp_path / "c.csv").write_text(rows)
    (data / "metadata.csv").write_text(rows)
    for captions in (None, tmp_path / "c.csv"):
        if captions:
            (data / "metadata.csv").unlink()
        found = read_collection(data, SIDE, captions=captions, max_bad=1)
        [bad] = found.bad
        assert "line 4" in bad.name
        assert bad.why == "0.png is of class 'ant' before, and of 'cat' here"
        at = next(k for k, files in enumerate(found.files) if "0.png" in files)
        assert found.classes[found.labels[at]] == "ant"


def test_links_to_folders_are_not_followed_and_named(tmp_path: Path) -> None:
    """Half of the data left out without a word would be found not to be memorized."""
    data, more = folder(tmp_path / "data"), folder(tmp_path / "more")
    wanted = read_collection(data, SIDE)
    (data / "again").symlink_to(data, target_is_directory=True)  # what is read anyway
    assert read_collection(data, SIDE).hash == wanted.hash
    (data / "sub").mkdir()
    (data / "sub" / "more").symlink_to(more, target_is_directory=True)
    with pytest.raises(UserError, match=r"such as sub/more .a link out of the folder; copy it"):
        read_collection(data, SIDE)
    found = read_collection(data, SIDE, max_bad=1)
    assert found.hash == wanted.hash and [b.name for b in found.bad] == ["sub/more"]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(more, target_is_directory=True)
    with pytest.raises(UserError, match=r"holds no image .train: a link out of the folder"):
        read_collection(tmp_path / "linked", SIDE)


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "data")
    with open(data / "0.png", "r+b") as file:
        file.truncate((64 << 20) + 1)
    for name in ("1.txt", "2.json"):
        with open(data / name, "wb") as file:
            file.truncate((1 << 20) + 1)
    found = read_collection(data, SIDE, max_bad=2)
    assert [b.name for b in found.bad] == ["1.png, its .txt", "0.png"]  # JSON that long is none
    assert all("more than the" in b.why for b in found.bad) and found.rows == N - 1
    _parquet(tmp_path / "table")
    monkeypatch.setattr(parquet_images, "IMAGE_BYTES", len(png(3)) - 1)
    with pytest.raises(UserError, match=r"bytes, more than the .* of an image"):
        read_collection(tmp_path / "table", SIDE)


def test_captions_that_name_absent_files(tmp_path: Path) -> None:
    folder(tmp_path / "data")
    table(tmp_path / "c.csv", [("gone.png", "x")], "file_name,text")
    with pytest.raises(UserError, match=r"c.csv names no image of the data .*gone.png") as error:
        read_collection(tmp_path / "data", SIDE, captions=tmp_path / "c.csv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", ["missing", "empty", "texts", "own"])
def test_a_folder_without_images(tmp_path: Path, what: str) -> None:
    place = tmp_path / "data"
    if what != "missing":
        place.mkdir()
    if what == "texts":
        (place / "notes.txt").write_text("x")
    if what == "own":
        (folder(place) / "audit.json").write_text("{}")
    words = {"missing": "is not there", "own": "membench's own output"}.get(what, "holds no image")
    with pytest.raises(UserError, match=words):
        read_collection(place, SIDE)


def test_a_folder_that_changes_while_it_is_read(tmp_path: Path, monkeypatch) -> None:
    from membench.datasets import collection

    folder(tmp_path)
    real = collection._square

    def slow(item, *rest):
        (tmp_path / "late.png").write_bytes(png(0))
        return real(item, *rest)

    monkeypatch.setattr(collection, "_square", slow)
    with pytest.raises(UserError, match="changed while it was read"):
        read_collection(tmp_path, SIDE)
    monkeypatch.undo()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    folder(tmp_path)
    before = read_collection(tmp_path, SIDE)
    (tmp_path / "0.png").write_bytes(png(1))
    os.utime(tmp_path / "0.png", ns=(1, 1))
    assert len(read_collection(tmp_path, SIDE).ids) == N - 1 and len(before.ids) == N


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_file_whose_time_was_set_back_is_read_again(tmp_path: Path, how: str) -> None:
    """Of the same size: an image without compression."""
    for i in range(N):
        Image.fromarray(PIXELS[i]).save(tmp_path / f"{i}.bmp")
    before = read_collection(tmp_path, SIDE)
    file, other = tmp_path / "0.bmp", tmp_path.with_suffix(".bmp")
    time = file.stat().st_mtime_ns
    Image.fromarray(255 - PIXELS[0]).save(file if how == "in place" else other)
    if how == "replaced":
        other.replace(file)
    os.utime(file, ns=(time, time))
    assert file.stat().st_mtime_ns == time
    assert read_collection(tmp_path, SIDE).ids != before.ids


# ---------------------------------------------------------------------------------- CIFAR


def cifar(root: Path, rows: int = 3) -> Path:
    root.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(1, 6):
        data = rng.integers(0, 256, (rows, 3072), dtype=np.uint8)
        labels = [int(x) for x in rng.integers(0, 2, rows)]
        # As the official files: written by Python 2, whose keys are bytes
        (root / f"data_batch_{i}").write_bytes(pickle.dumps({"data": data, "labels": labels}, 2))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": ["ant", "cat"]}, 2))
    return root


@pytest.mark.parametrize("form", ["folder", "tar.gz", "tar.xz"])
def test_cifar_unpacked_or_not(tmp_path: Path, form: str) -> None:
    made = cifar(tmp_path / "made" / "cifar-10-batches-py")
    place = tmp_path / "made"
    if form != "folder":
        place = tmp_path / "packed"
        place.mkdir()
        with tarfile.open(place / f"cifar-10-python.{form}", f"w:{form[4:]}") as tar:
            tar.add(made, "cifar-10-batches-py")
    found = read_collection(place, 32)
    wanted = read_cifar(made)
    assert np.array_equal(found.images(), wanted.images) and found.classes == {0: "ant", 1: "cat"}
    assert list(found.labels) == wanted.labels.tolist() and len(found.ids) == 15


def test_cifar_named_from_inside_and_by_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cifar(tmp_path / "cifar-10-batches-py")
    (tmp_path / "mine").symlink_to(made)
    monkeypatch.chdir(made)
    found = [read_collection(place, 32) for place in (made, Path(), tmp_path / "mine")]
    assert len({c.hash for c in found}) == 1
    assert [c.kind for c in found] == ["cifar-10-batches-py"] * 2 + ["mine"]


@pytest.mark.parametrize("names", [5, None, "abc", [b"ant"], [["ant"]], {"ant": 0}])
def test_cifar_whose_list_of_classes_is_none(tmp_path: Path, names: object) -> None:
    made = cifar(tmp_path / "cifar-10-batches-py")
    (made / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, 2))
    with pytest.raises(UserError, match=r"batches\.meta lists no names of classes; get it again"):
        read_collection(made, 32)


@pytest.mark.parametrize("end", ["", ".bin"])
def test_cifar_without_one_of_its_batches(tmp_path: Path, end: str) -> None:
    made = cifar(tmp_path / "cifar-10-batches-py")
    for i in range(1, 6):
        if end:
            (made / f"data_batch_{i}").unlink()
            (made / f"data_batch_{i}.bin").write_bytes(bytes(3073))
    (made / f"data_batch_3{end}").unlink()
    with pytest.raises(UserError, match=r"cifar-10-batches-py lacks data_batch_3; get it again"):
        read_collection(tmp_path, 32)


def test_a_pickle_that_calls_anything_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    with pytest.raises(UserError, match=r"no batch of CIFAR .*asks for posix.mkdir"):
        unpickled(pickle.dumps({"data": Trap()}), "data_batch_1")
    assert not (tmp_path / "sprung").exists()
