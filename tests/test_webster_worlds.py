"""Further worlds of the catalogue: other captions and images, models of one's own
training, and nothing of one world with another.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from membench.cli.main import main
from membench.errors import UserError
from membench.options import parse_options
from membench.tasks.sd_webster import catalogue
from membench.tasks.sd_webster.recipe import Recipe
from membench.tasks.sd_webster.task import SdWebster
from membench.tasks.sd_webster.train import train
from membench.tasks.sd_webster.world import DATA, models_of, training_images_of, world

HALVES = ("a", "b")
WORLDS = sorted(catalogue.DEALS)


def load(*options: str, control: bool = False):
    return SdWebster(options=parse_options(SdWebster.Options, options, owner="sd_webster")).load(
        "mini", control=control
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both models of world 1 after one step."""
    folder = tmp_path_factory.mktemp("world1")
    with pytest.MonkeyPatch.context() as patch:
        _few(patch)
        train(folder, HALVES, Recipe(world=1, steps=1, batch=2), progress=False)
    # The whole half, of which the training drew nine entries
    for half in HALVES:
        file = folder / half / "training.json"
        told = json.loads(file.read_text())
        assert told["recipe"]["world"] == 1
        told["entries_hash"] = catalogue.build(half, 1).entries_hash()
        file.write_text(json.dumps(told))
    yield folder


def _few(patch: pytest.MonkeyPatch) -> None:
    whole = catalogue.build

    def few(name: str, number: int = 0) -> catalogue.Split:
        return catalogue.Split(name, whole(name, number).entries[:9], number)

    patch.setattr(catalogue, "build", few)


def test_worlds_have_nothing_in_common() -> None:
    splits = [catalogue.build(half, number) for number in WORLDS for half in HALVES]
    public = catalogue.build("public")  # what the shipped VAE has seen
    captions = [{e.caption for e in split.entries} for split in splits]
    looks = [{e.look for e in split.entries} for split in splits]
    assert len(set.union(*captions)) == sum(map(len, captions))
    assert len(set.union(*looks)) == sum(map(len, looks))
    assert not set.union(*captions) & {e.caption for e in public.entries}
    assert not set.union(*looks) & {e.look for e in public.entries}
    # Alike in all that is planted
    planted = [sorted((e.kind, e.copies, e.example) for e in split.entries) for split in splits]
    assert all(other == planted[0] for other in planted[1:])
    # What all models share is the same in each
    assert catalogue.build("public", 1).entries == public.entries


def test_the_hash_of_entries_tells_what_that_of_pixels_tells() -> None:
    whole = catalogue.build("a", 1)
    half = catalogue.Split("a", whole.entries[:20], 1)
    again = catalogue.Split("a", whole.entries[:19] + whole.entries[20:21], 1)
    other = catalogue.Split("a", half.entries, 2)
    for of in (catalogue.Split.content_hash, catalogue.Split.entries_hash):
        assert len({of(half), of(again), of(other)}) == 3


def test_a_world_is_asked_of_its_own_models(models: Path) -> None:
    options = ("world=1", f"models={models}")
    one, mirror = load(*options), load(*options, control=True)
    own = {e.caption for e in world("a", 1).entries if e.kind in ("MV", "TV", "RV") and e.example}
    assert {e.condition.prompt for e in one.examples if e.memorized} == own
    assert not own & {e.condition.prompt for e in load().examples}
    assert np.array_equal(one.training.images(), training_images_of("a", 1))
    development = load()
    for name in ("weights", "data", "prompts"):
        assert one.hashes[name] != development.hashes[name]
    assert one.hashes["weights"] != mirror.hashes["weights"]
    assert one.hashes["data"] == mirror.hashes["data"]
    # The number of the world in the name of its folder
    (models.parent / "of-1").symlink_to(models)
    named = load("world=1", f"models={models.parent}/of-{{world}}")
    assert named.hashes == one.hashes
    b = load(*options, "half=b")
    assert b.hashes["weights"] == mirror.hashes["weights"]
    flipped = {e.condition.id: e.memorized for e in b.examples}
    assert all(flipped[e.condition.id] == 0 for e in one.examples if e.memorized)


def test_models_of_another_world_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a was not trained on half a of world 2"):
        models_of(2, str(models))
    with pytest.raises(UserError, match="world 1 does not ship: membench train sd_webster"):
        models_of(1, "")
    for number in (7, 10**9):
        with pytest.raises(UserError, match=f"world {number} of sd_webster was never dealt"):
            models_of(number, "")
    shutil.copytree(models, other := tmp_path / "swapped")
    (other / "b").rename(other / "c")
    with pytest.raises(UserError, match=r"swapped/b is missing or not whole"):
        models_of(1, str(other))
    (other / "a").rename(other / "b")
    (other / "c").rename(other / "a")
    with pytest.raises(UserError, match="a was not trained on half a of world 1"):
        models_of(1, str(other))
    shutil.copytree(models, told := tmp_path / "told")
    for text in ("{", "[]", "{}", '{"entries_hash": 3}'):
        (told / "b" / "training.json").write_text(text)
        with pytest.raises(UserError, match=r"b(/training\.json does not say| was not trained on)"):
            models_of(1, str(told))


def test_two_recipes_are_no_pair(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, other := tmp_path / "other")
    file = other / "b" / "training.json"
    file.write_text(file.read_text().replace('"batch": 2', '"batch": 3'))
    with pytest.raises(UserError, match="not trained by one recipe: batch is 2 and 3"):
        models_of(1, str(other))


def test_a_folder_of_another_vae_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _few(monkeypatch)
    shutil.copytree(DATA / "a" / "tokenizer", tmp_path / "tokenizer")
    shutil.copytree(DATA / "a" / "vae", tmp_path / "vae")
    # As of a training from the start
    (tmp_path / "vae" / "training.json").write_text('{"recipe": {"start": ""}}')
    with pytest.raises(UserError, match=r"vae is not that of .*, which world 1 takes; train into"):
        train(tmp_path, ("a",), Recipe(world=1, steps=1, batch=2), progress=False)


def test_a_second_stage_stays_in_its_world(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _few(monkeypatch)
    with pytest.raises(UserError, match=r"is of world 1: .* not of world 2 \(--world 1\)"):
        train(tmp_path / "2", ("a",), Recipe(world=2, start=str(models), steps=1), progress=False)
    train(
        tmp_path / "1", ("a",), Recipe(world=1, start=str(models), steps=1, batch=2), progress=False
    )
    told = json.loads((tmp_path / "1" / "a" / "training.json").read_text())
    assert told["before"]["recipe"]["world"] == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--world", "99"], "world 99 of sd_webster was never dealt; choose from 0, 1, 2"),
        (["--world", "1", "--part", "vae"], "world 1 takes the VAE that ships"),
        (["--world", "-1"], "-1"),
    ],
)
def test_the_command_refuses(
    args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main(["train", "sd_webster", "--output", str(out), "--quiet", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line
    assert not list(out.rglob("*.safetensors"))


def test_the_full_profile_has_no_worlds() -> None:
    options = parse_options(SdWebster.Options, ("world=1",), owner="sd_webster")
    with pytest.raises(UserError, match="world=1 is for --profile mini"):
        SdWebster(options=options).load("full")
