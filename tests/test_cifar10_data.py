"""CIFAR-10 on disk: what is missing or not official is refused before a byte of it is
unpickled.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from torchvision.datasets import CIFAR10

from membench.errors import UserError
from membench.fetching import net
from membench.tasks.cifar10 import data
from membench.tasks.cifar10.data import CLASSES, read_cifar10

BATCHES = [name for name, _ in CIFAR10.train_list]
FILES = [*BATCHES, "test_batch", "batches.meta"]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10" / "cifar-10-batches-py.tar.xz"


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a test must not download")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def pixels(batch: int) -> np.ndarray:
    """Two images of a batch, channels first, as the files hold them."""
    return np.random.default_rng(batch).integers(0, 256, (2, 3 * 32 * 32), dtype=np.uint8)


def fake(root: Path) -> Path:
    """The six batches and the names of the classes, two images each."""
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    for i, name in enumerate(FILES[:-1]):
        (folder / name).write_bytes(pickle.dumps({"data": pixels(i), "labels": [i, 9 - i]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))
    return folder


def declare(monkeypatch, folder: Path) -> None:
    """Makes these files the official ones."""
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in FILES}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in BATCHES])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})


class Trap:
    """Whoever unpickles it leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.file,)


def test_images_and_classes_in_the_order_of_the_files(tmp_path, monkeypatch) -> None:
    declare(monkeypatch, fake(tmp_path))
    images, classes = read_cifar10(tmp_path)
    assert images.shape == (10, 32, 32, 3) and images.dtype == np.uint8
    wanted = np.concatenate([pixels(i) for i in range(5)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(images[..., 2], wanted[:, 2]) and np.array_equal(
        images[3, 5], wanted[3, :, 5].T
    )
    assert classes.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    test_images, test_classes = read_cifar10(tmp_path, train=False)
    assert np.array_equal(test_images[0, 0, :, 0], pixels(5)[0, :32]) and test_classes.tolist() == [
        5,
        4,
    ]


@pytest.mark.parametrize("made", ["nothing", "root", "folder"])
def test_an_empty_root_offline(tmp_path, made: str) -> None:
    root = tmp_path / "data"
    if made != "nothing":
        (root / CIFAR10.base_folder if made == "folder" else root).mkdir(parents=True)
    with pytest.raises(UserError, match=r"data holds no CIFAR-10 .*offline.*--data-root"):
        read_cifar10(root)
    assert not list(tmp_path.rglob("*.gz"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_missing(tmp_path, monkeypatch, name: str) -> None:
    folder = fake(tmp_path)
    declare(monkeypatch, folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"lacks {name}; unpack https://.* anew"):
        read_cifar10(tmp_path)


def test_files_that_are_not_the_official_ones(tmp_path) -> None:
    """The checksums are torchvision's: fake files, none of which is the real one, are
    named each.
    """
    fake(tmp_path)
    with pytest.raises(
        UserError,
        match=r"wrong checksum of data_batch_1, data_batch_2, .*, test_batch, batches.meta",
    ):
        read_cifar10(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_unpickled_where_one_checksum_is_wrong(tmp_path, monkeypatch, name: str) -> None:
    """Neither the file that was changed nor one that was not, whose own checksum is
    right.
    """
    folder = fake(tmp_path)
    for other in FILES:  # as if the official files were traps too
        (folder / other).write_bytes(pickle.dumps(Trap(tmp_path / f"sprung by {other}")))
    declare(monkeypatch, folder)
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for train in (True, False):
        with pytest.raises(UserError, match=f"wrong checksum of {name}; unpack"):
            read_cifar10(tmp_path, train=train)
    assert not list(tmp_path.glob("sprung*"))
    pickle.loads((folder / name).read_bytes())
    assert (tmp_path / "sprung").is_dir()  # the trap works


# ----------------------------------------------------------------------------- download


def served(monkeypatch, body: bytes | UserError) -> list[str]:
    """What the server gives in place of the archive, and what is asked for."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def request(want: Any, temporary: Path) -> None:
        asked.append(want.url)
        assert want.max_bytes < 1 << 28
        if isinstance(body, UserError):
            raise body
        temporary.write_bytes(body)

    monkeypatch.setattr(net._Want, "request", request)
    return asked


def archive(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(folder, arcname=CIFAR10.base_folder)
    return out.getvalue()


def test_it_is_fetched_where_it_is_missing(tmp_path, monkeypatch, capsys) -> None:
    """Over https, by its SHA-256, and read in place."""
    folder = fake(tmp_path / "there")
    declare(monkeypatch, folder)
    body = archive(folder)
    monkeypatch.setattr(data, "SHA256", hashlib.sha256(body).hexdigest())
    asked = served(monkeypatch, body)
    for _ in range(2):
        images, _ = read_cifar10(tmp_path / "here")
        assert np.array_equal(images, read_cifar10(tmp_path / "there")[0])
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]
    kept = [p.name for p in (tmp_path / "here").iterdir() if not p.name.startswith(".")]
    assert kept == ["cifar-10-python.tar.gz"]
    assert capsys.readouterr().out == ""  # stdout is data


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (UserError("no route"), "holds no CIFAR-10: no route; or give --data-root"),
        (b"a login page", "gave a file with SHA256 .* 6d958be074577803.*it is not kept"),
    ],
)
def test_it_cannot_be_fetched(tmp_path, monkeypatch, body: bytes | UserError, words: str) -> None:
    served(monkeypatch, body)
    with pytest.raises(UserError, match=words) as error:
        read_cifar10(tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("[!.]*"))


# ---------------------------------------------------------------------------- real data


@pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"{ARCHIVE} is not there")
@pytest.mark.skipif(
    os.environ.get("MEMBENCH_SLOW") != "1",
    reason="reading 180 MB takes a quarter of a minute: MEMBENCH_SLOW=1",
)
def test_the_real_data_set(tmp_path) -> None:
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(tmp_path, filter="data")
    images, classes = read_cifar10(tmp_path)
    assert images.shape == (50_000, 32, 32, 3) and images.dtype == np.uint8
    assert np.bincount(classes).tolist() == [5000] * 10
    means = images.reshape(-1, 3).mean(axis=0) / 255  # as everybody normalises it
    assert np.allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-4)
    shutil.rmtree(tmp_path / CIFAR10.base_folder)
