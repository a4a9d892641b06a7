"""An audit as a user meets it: on models that are known to have memorized their data,
on their mirrors, and with what goes wrong.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from diffusers import DDPMPipeline, DDPMScheduler
from foreign_models import save_tiny_xl
from PIL import Image

import membench
from membench.auditing import work
from membench.auditing.material import read_material, told_classes
from membench.auditing.settings import Settings, parse_budget, parse_limit, parse_max_bad
from membench.auditing.subject import Subject, find_subject
from membench.cli.main import main
from membench.datasets.collection import Collection
from membench.errors import UserError
from membench.storage.cached_folders import cached_folder
from membench.storage.images import png_image
from membench.tasks.cifar10.data import CLASSES
from membench.tasks.cifar10.scenes import WORLD
from membench.tasks.cifar10.task import DATA as PIXELS
from membench.tasks.cifar10.task import RUNGS
from membench.tasks.pixels.mirror_task import pair_of
from membench.tasks.sd_webster.products import draw
from membench.tasks.sd_webster.world import DATA as CATALOGUE
from membench.tasks.sd_webster.world import world
from membench.testing.tiny import tiny_pixel_model

OWN, MIRROR = (PIXELS / half / f"step-{RUNGS[-1]:05d}" for half in "ab")
TEXT = CATALOGUE / "a"


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One for all tests: what one has asked a model, the next finds."""
    monkeypatch.setenv("MEMBENCH_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture
def own_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, where it matters what is asked."""
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of half a that were shown 16 and 64 times, and as many shown once, a
    folder a class.
    """
    half, root = pair_of(WORLD, 0).halves["a"], tmp_path_factory.mktemp("scenes")
    for i, (image, label, copies) in enumerate(
        zip(half.images, half.labels, half.copies, strict=True)
    ):
        (root / CLASSES[label]).mkdir(exist_ok=True)
        if copies == 1 and half.kinds[i] != "x1":
            continue
        for k in range(2 if copies > 4 else 1):
            Image.fromarray(image).save(root / CLASSES[label] / f"{copies}-{i}-{k}.png")
    return root


def audited(
    capsys: pytest.CaptureFixture[str], out: Path, *args: object, code: int = 0
) -> tuple[dict[str, Any], str]:
    """audit.json and stdout."""
    assert main(["audit", "--quiet", "--output", str(out), *map(str, args)]) == code
    return json.loads((out / "audit.json").read_bytes()), capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["audit", "--quiet", *map(str, args)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("membench: ") and err.count("\n") == 1, err
    return err


# -------------------------------------------------------------------------- what is found


@pytest.mark.parametrize("way", ["classes", "null class"])
def test_a_memorizing_model_and_its_mirror(tmp_path, capsys, scenes, way: str) -> None:
    """Of the model, training images that were shown often; of the mirror, as the model
    that is audited, none. All of it is found again without asking the model.
    """
    how = ["--data", scenes, "--budget", 1600]
    how += ["--unconditional"] if way == "null class" else []
    told, out = audited(
        capsys, tmp_path / "a", "--model", OWN, *how, "--fail-on", "copies>0", code=3
    )
    assert told["numbers"]["copies"] >= 5 and "training images came back" in out
    assert told["answer"].endswith("There is no control, so chance resemblance is not excluded.")
    # Nothing would read what a class scores: the whole budget is images, 20 each
    assert told["ranking"]["scored"] == 0 and told["evaluations"] == 1600
    assert sum(told["images"].values()) == 80
    assert out.rstrip().endswith("failed: copies>0")
    times = [int(Path(row["file"]).name.split("-")[0]) for row in told["returned"]]
    assert np.mean(np.array(times) >= 16) > 0.8
    absent = ["--output", str(tmp_path / "a"), "--model", str(OWN), "--fail-on", "share>0"]
    assert main(["audit", "--quiet", *absent, *map(str, how)]) == 2  # no gate that is always green
    assert "asked no random captions" in capsys.readouterr().err
    none, out = audited(capsys, tmp_path / "b", "--model", MIRROR, *how, "--fail-on", "copies>0")
    assert none["numbers"]["copies"] == 0 and out.startswith("No training image came back")
    assert "chance" not in none["answer"]  # where nothing resembles, chance has nothing to excuse
    copies = pd.read_parquet(tmp_path / "a" / "copies.parquet")
    assert len(copies) >= told["numbers"]["copies"]
    one = copies.iloc[0]
    assert np.array_equal(png_image(one.training_image), np.asarray(Image.open(scenes / one.file)))
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.index(told["answer"]) < page.index("<h2>Pairs") < page.index("could not be judged")
    rows = list(csv.DictReader((tmp_path / "a" / "returned.csv").open()))
    assert [r["file"] for r in rows] == [r["file"] for r in told["returned"]]
    assert told["answer"] in (tmp_path / "a" / "model_card.md").read_text()


def test_what_was_computed_is_found_again(tmp_path, own_cache, capsys, scenes, monkeypatch) -> None:
    """By another audit, too, which asks for more: it makes the rest only."""
    asked: list[int] = []
    real = work.contract.extract

    def counted(detector, model, requests):
        asked.append(len(requests))
        return real(detector, model, requests)

    monkeypatch.setattr(work.contract, "extract", counted)
    how = ["--model", OWN, "--data", scenes, "--unconditional"]
    first, _ = audited(capsys, tmp_path / "a", *how, "--budget", 240)
    assert sum(asked) == 12
    again, _ = audited(capsys, tmp_path / "b", *how, "--budget", 240)
    assert sum(asked) == 12 and again["numbers"] == first["numbers"]
    audited(capsys, tmp_path / "c", *how, "--budget", 300)
    assert sum(asked) == 15


def test_another_audit_is_not_overwritten(tmp_path, capsys, scenes) -> None:
    """The default folder goes by last names, which two models may share."""
    how = ["--unconditional", "--budget", 400, "--output", tmp_path / "out"]
    assert (
        main(["audit", "--quiet", "--model", str(OWN), "--data", str(scenes), *map(str, how)]) == 0
    )
    held = (tmp_path / "out" / "audit.json").read_bytes()
    capsys.readouterr()
    err = refused(capsys, "--model", MIRROR, "--data", scenes, *how)
    assert f"holds the audit of another model, {OWN}" in err
    fewer = tmp_path / scenes.name
    shutil.copytree(scenes, fewer)
    next(fewer.rglob("*.png")).unlink()
    err = refused(capsys, "--model", OWN, "--data", fewer, *how)
    assert f"holds the audit of other data, {scenes}" in err
    assert (tmp_path / "out" / "audit.json").read_bytes() == held


def test_a_mirror_as_a_control(tmp_path, capsys, scenes) -> None:
    how = ["--model", OWN, "--data", scenes, "--unconditional", "--budget", 1600]
    told, _ = audited(capsys, tmp_path / "a", *how, "--mirror", MIRROR)
    [control] = told["controls"]
    assert (control["name"], control["images"], control["used"]) == ("mirror", 40, True)
    assert told["numbers"]["copies"] > 0 and told["similarity"]["chance_limit"] < 0.1


def test_a_mirror_that_has_seen_the_data(tmp_path, capsys, scenes) -> None:
    """A later snapshot of the model itself: a warning, and the copies still count."""
    how = ["--model", OWN, "--data", scenes, "--unconditional", "--budget", 1600]
    earlier = PIXELS / "a" / f"step-{RUNGS[-2]:05d}"
    told, _ = audited(capsys, tmp_path / "a", *how, "--mirror", earlier)
    assert told["mirror_suspect"] >= 2 and "may have seen these data" in told["warnings"][0]
    assert told["numbers"]["copies"] > 0 and not told["controls"][0]["used"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part of the catalogue as an imagefolder: 16 images that were shown 40 times and 16
    that were shown once, with captions, and 300 others without.
    """
    root, rows = tmp_path_factory.mktemp("shop"), []
    for kind, copies in (("MV", 3), ("N", 1)):
        for i, e in enumerate([e for e in world("a").entries if e.kind == kind][:16]):
            for k in range(copies):
                name = f"{kind}-{i}-{k}.png"
                Image.fromarray(draw(e.look)).save(root / name)
                rows.append((name, e.caption))
    for i, e in enumerate([e for e in world("a").entries if e.kind == "extra"][:300]):
        Image.fromarray(draw(e.look)).save(root / f"other-{i}.png")
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text"), *rows])
    return root


def test_a_stable_diffusion_xl_is_a_model_of_captions(tmp_path: Path) -> None:
    subject = find_subject(str(save_tiny_xl(tmp_path / "xl")))
    assert (subject.kind, subject.embeddings) == ("text", 0)
    model = subject.load(0, device="cpu", dtype="float32", batch_size=1)
    assert model.has_null and subject.side == model.decode(model.noise([("a", 0)], 0)).shape[1]


def test_captions_of_a_text_model(tmp_path, capsys, shop) -> None:
    told, out = audited(capsys, tmp_path / "a", "--model", TEXT, "--data", shop, "--budget", 1100)
    kinds = [row["file"][:2] for row in told["returned"]]
    assert kinds.count("MV") >= 14 and "N-" not in kinds
    assert all(row["own"] and row["copies"] == 3 for row in told["returned"])
    assert told["ranking"]["scored"] == 32 and told["images"]["unseen"] > 5
    assert "Of " in out and "unseen ones" in out


@pytest.mark.parametrize("budget", [20, 40])
def test_a_small_budget_is_kept(tmp_path, capsys, shop, budget: int) -> None:
    told, _ = audited(capsys, tmp_path / "a", "--model", TEXT, "--data", shop, "--budget", budget)
    assert 20 <= told["evaluations"] <= budget


def test_a_dry_run_says_what_it_would_do(tmp_path, capsys, shop) -> None:
    how = ["--model", TEXT, "--data", shop, "--budget", 1100, "--dry-run"]
    assert main(["audit", "--quiet", "--output", str(tmp_path / "a"), *map(str, how)]) == 0
    out = capsys.readouterr().out
    assert "364 images, 332 different" in out and "at most 55, 20 each" in out
    assert "not judged: 300 training images without a caption" in out  # before the budget is spent
    assert not (tmp_path / "a").exists()


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(("shipped", "layer"), [(True, "attentions.0"), (False, "attentions.1")])
def test_only_a_mini_model_is_asked_as_one(tmp_path: Path, shipped: bool, layer: str) -> None:
    """The paper's layer is of real Stable Diffusion; the mini network has another."""
    subject = Subject("m", TEXT if shipped else tmp_path, "text", 64, 0, "w")
    how: dict[str, Any] = {"seed": 0, "dtype": "float32", "profile": subject.profile}
    asked = work.Asked("attention_entropy", None, "w", {"steps": 2, "guidance": 3.0}, **how)  # type: ignore[arg-type]
    assert asked.detector.options.layer == f"down_blocks.1.{layer}"


@pytest.mark.parametrize(("shipped", "layer"), [(True, "attentions.0"), (False, "attentions.1")])
def test_what_screens_holds_detectors_of_the_same_kind(
    tmp_path: Path, shipped: bool, layer: str
) -> None:
    """With the options that they would have if they were asked themselves."""
    subject = Subject("m", TEXT if shipped else tmp_path, "text", 64, 0, "w")
    how: dict[str, Any] = {"seed": 0, "dtype": "float32", "profile": subject.profile}
    how["options"] = ("detectors=attention_entropy,cfg_norm",)
    asked = work.Asked("combined", None, "w", {"steps": 2, "guidance": 3.0}, **how)  # type: ignore[arg-type]
    inside = asked.detector.holds["attention_entropy"].options
    assert inside.layer == f"down_blocks.1.{layer}"
    assert asked.parts["holds"]["attention_entropy"]["options"]["layer"] == inside.layer


def test_a_mirror_that_cannot_be_sampled_alike_costs_nothing(
    tmp_path, own_cache, capsys, scenes, monkeypatch
) -> None:
    """It is refused before the model is asked anything, and a dry run says so."""
    for name in ("score", "extract"):
        monkeypatch.setattr(work.contract, name, lambda *args: pytest.fail("asked"))
    shutil.copytree(MIRROR, mirror := tmp_path / "mirror")
    file = mirror / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_train_timesteps": 15}))
    err = refused(capsys, "--model", OWN, "--data", scenes, "--mirror", mirror, "--budget", 900)
    assert f"--mirror {mirror}: 20 sampling steps: choose 1 to 15" in err


def test_a_model_of_the_cache_is_what_was_written(tmp_path, capsys, scenes) -> None:
    place = cached_folder(
        tmp_path / "given", lambda aside: shutil.copytree(OWN, aside, dirs_exist_ok=True)
    )
    how = ["--model", place, "--data", scenes, "--unconditional", "--budget", "40", "--dry-run"]
    assert main(["audit", "--quiet", *map(str, how)]) == 0
    capsys.readouterr()
    file = place / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace("0.02", "0.03"))
    assert "not what was written there" in refused(capsys, *how)


def test_a_model_and_data_of_different_sizes(tmp_path, capsys, scenes) -> None:
    err = refused(capsys, "--model", TEXT, "--data", scenes)
    assert "are 16x16" in err and "generates 64x64" in err and "--enlarge" in err


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        (".", "../net", "scenes-net"),
        ("..", "owner/name", "at-name"),
        ("captions.csv", "../net/", "captions.csv-net"),
    ],
)
def test_an_audit_lies_in_a_folder_of_its_datas_and_its_models_name(
    tmp_path, monkeypatch, data: str, model: str, name: str
) -> None:
    (tmp_path / "at" / "scenes").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "at" / "scenes")
    asked = []

    def run_audit(settings: object, folder: Path, **_: object) -> dict:
        asked.append(folder)
        return {"plan": [("model", "m")], "not_judged": []}

    monkeypatch.setattr("membench.api.run_audit", run_audit)
    assert main(["audit", "--dry-run", "--model", model, "--data", data]) == 0
    membench.audit(model, data, dry_run=True)
    assert asked == [Path("results/audits") / name] * 2


def test_a_data_folder_of_no_images(tmp_path, capsys) -> None:
    (tmp_path / "data").mkdir()
    assert "holds no image" in refused(capsys, "--model", OWN, "--data", tmp_path / "data")


def test_captions_of_absent_files(tmp_path, capsys, shop) -> None:
    (tmp_path / "c.csv").write_text("file_name,text\ngone.png,a rug\n")
    err = refused(capsys, "--model", TEXT, "--data", shop, "--captions", tmp_path / "c.csv")
    assert "c.csv names no image" in err and "gone.png" in err


def test_a_budget_too_small_for_one_image(tmp_path, capsys, scenes) -> None:
    err = refused(
        capsys, "--model", OWN, "--data", scenes, "--budget", 19, "--output", tmp_path / "a"
    )
    assert "pays for no image" in err and "one image takes 20" in err


def test_a_mirror_that_is_the_model(capsys, scenes) -> None:
    assert "is the model itself" in refused(
        capsys, "--model", OWN, "--data", scenes, "--mirror", OWN
    )


def test_a_mirror_of_another_kind(capsys, scenes) -> None:
    err = refused(capsys, "--model", OWN, "--data", scenes, "--mirror", TEXT)
    assert "is no mirror of" in err and "text of 64 pixels" in err


def test_classes_without_a_null_class(tmp_path, capsys) -> None:
    """Guidance was planned and ended while the first image was drawn; two numbers of
    classes read alike.
    """
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    models = []
    for embeddings in (2, 3):
        network = tiny_pixel_model(embeddings - 1).network
        models.append(tmp_path / str(embeddings))
        DDPMPipeline(network, DDPMScheduler()).save_pretrained(models[-1])
    asked = ["--model", models[0], "--data", tmp_path / "data", "--dry-run"]
    assert "has no null class; leave it out" in refused(capsys, *asked, "--guidance", 3)
    err = refused(capsys, *asked, "--mirror", models[1])
    assert "class of 8 pixels and 3 embeddings" in err and "and 2 embeddings" in err


def test_a_checkpoint_in_one_file(tmp_path, capsys, scenes) -> None:
    """It was told of options that an audit has not."""
    (tmp_path / "style.safetensors").write_bytes(b"")
    err = refused(capsys, "--model", tmp_path / "style.safetensors", "--data", scenes)
    assert "from_single_file" in err and "--set" not in err


def test_data_that_are_the_model_s_own_output(tmp_path, own_cache, capsys, scenes) -> None:
    """To the last bit: a second audit of what a first one generated."""
    how = ["--unconditional", "--budget", 400]
    audited(capsys, tmp_path / "a", "--model", OWN, "--data", scenes, *how)
    [stored] = list((own_cache / "audits").glob("images-*/*.parquet"))
    (tmp_path / "made").mkdir()
    for i, image in enumerate(pd.read_parquet(stored).image):
        (tmp_path / "made" / f"{i}.png").write_bytes(image)
    err = refused(
        capsys, "--model", OWN, "--data", tmp_path / "made", *how, "--output", tmp_path / "b"
    )
    assert "own output" in err
    assert "own output" in refused(capsys, "--model", OWN, "--data", tmp_path / "a", *how)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--budget", "soon", "write a time"),
        ("--budget", "0", "write a time"),
        ("--fail-on", "copy>0", "Did you mean 'copies'"),
        ("--fail-on", "copies", "write NAME"),
        ("--max-bad", "101%", "write a share"),
        ("--draws", "0", "from 1 to"),
        ("--screen", "cfg_nrm", "Did you mean 'cfg_norm'"),
        ("--data", "nowhere", "is not there"),
    ],
)
def test_options(capsys, shop, option: str, value: str, words: str) -> None:
    data = [] if option == "--data" else ["--data", shop]
    assert words in refused(capsys, "--model", TEXT, *data, option, value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--unseen", "/nope"], "--unseen is not read here: {} is told classes"),
        (["--draws", "7"], "--draws is not read here"),
        (["--screen", "dsm"], "--screen is not read here"),
        (["--unconditional", "--unseen", "/nope"], "--unseen is not read here: {} is asked"),
        (["--unconditional", "--guidance", "3"], "--guidance is not read here: {} is asked"),
        (["--similarity-weights", "w.pt"], "16 pixels are compared by pixels"),
        (["--similarity", "l2", "--similarity-weights", "w.pt"], "are compared by pixels"),
        (["--steps", "5000"], "choose 1 to 1000"),
        (["--similarity", "clip"], "clip needs --similarity-weights MODEL:TAG"),
    ],
)
def test_options_that_nothing_would_read(capsys, scenes, more: list[str], words: str) -> None:
    """Refused before any work, so that a dry run says so, too."""
    err = refused(capsys, "--model", OWN, "--data", scenes, "--dry-run", *more)
    assert words.format(OWN) in err


def test_words_of_options() -> None:
    assert parse_budget("90s").minutes == 1.5 and parse_budget("2h").minutes == 120
    assert parse_budget("5000").evaluations == 5000
    assert parse_max_bad("1%") == 0.01 and parse_max_bad("3") == 3
    assert parse_limit("copies >= 2").met({"copies": 2.0})
    assert not parse_limit("share>0.1").met({"share": float("nan")})
    with pytest.raises(UserError, match="no number 'recall'"):
        parse_limit("recall<1")


def test_a_collection_knows_its_rows(scenes) -> None:
    from membench.datasets.collection import read_collection

    found: Collection = read_collection(scenes, 16)
    assert found.rows == sum(found.copies) and set(found.classes.values()) == set(CLASSES)


@pytest.mark.parametrize(
    ("classes", "embeddings", "told"),
    [
        ([0, 1, 2, 3], 4, 4),
        ([0, 1, 2, 3], 5, 4),  # and the null class
        ([0, 1, 3], 4, 4),  # class 2 has no image
        ([0, 1, 3], 5, 5),  # so that nobody knows whether 4 is the null class
        ([0, 1, 3], 6, None),
        ([0, 1, 2, 3], 3, None),
        ([], 5, 5),
    ],
)
def test_how_many_classes_the_model_is_told(classes, embeddings: int, told: int | None) -> None:
    subject = Subject("m", Path("m"), "class", 8, embeddings, "")
    data: Any = SimpleNamespace(classes={n: f"c{n}" for n in classes}, unclear="")
    if told is not None:
        assert told_classes(Settings("m", Path("d")), subject, data) == told
        return
    with pytest.raises(UserError, match=f"told one of {embeddings} classes; the data have 4"):
        told_classes(Settings("m", Path("d")), subject, data)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([*map(str, range(9)), "2021"], "the data have 2022, the last '2021'"),
        (["0", "x"], "'0' has a number of its own, 'x' has none"),
    ],
)
def test_classes_that_are_not_the_model_s(tmp_path, capsys, names: list[str], words: str) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
        image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image.save(tmp_path / "data" / name / "a.png")
    assert words in refused(capsys, "--model", OWN, "--data", tmp_path / "data")


def test_the_model_is_asked_its_own_classes(tmp_path) -> None:
    """Of folders that are named by number, one of them missing."""
    rng = np.random.default_rng(0)
    for number in (0, 2, 9):
        (tmp_path / "data" / str(number)).mkdir(parents=True)
        image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image.save(tmp_path / "data" / str(number) / "a.png")
    subject = Subject("m", Path("m"), "class", 16, 10, "")
    found = read_material(Settings("m", tmp_path / "data"), subject, False)
    assert {
        c.class_label: [found.files[g][0] for g in groups] for c, groups in found.prompts.items()
    } == {0: ["0/a.png"], 2: ["2/a.png"], 9: ["9/a.png"]}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"draws": 0}, "--draws 0: it must be from 1"),
        ({"steps": -3}, "--steps -3"),
        ({"guidance": float("nan")}, "--guidance nan"),
        ({"attack": "foo"}, "--attack foo: choose from random, side"),
        ({"budget": "soon"}, "--budget soon"),
        ({"budget": [1]}, "--budget '.1.': it must be a text"),
        ({"draws": "many"}, "--draws 'many': it must be a whole number"),
        ({"draws": 1.5}, "--draws '1.5': it must be a whole number"),
        ({"guidance": True}, "--guidance 'True': it must be a number"),
        ({"unconditional": "no"}, "--unconditional 'no': it must be True or False"),
        ({"screen": 3}, "--screen '3': it must be names"),
        ({"captions": 3}, "--captions '3': it must be a text"),
        ({"max_bad": "much"}, "--max-bad much: write a share"),
        ({"max_bad": -1}, "--max-bad -1: it must not be negative"),
        ({"similarity": "l3"}, "--similarity l3: choose from auto, l2"),
        ({"dtype": "int3"}, "--dtype int3: choose from float32"),
    ],
)
def test_settings_from_python_are_held_to_the_same_ranges(
    settings: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        membench.audit("m", tmp_path, **settings)


def test_settings_from_python_take_plain_values() -> None:
    made = Settings("m", Path("d"), captions="c.csv", unseen="u.txt", budget=200)  # type: ignore[arg-type]
    assert made.captions == Path("c.csv") and made.unseen == Path("u.txt")
    assert made.budget == "200"
    told = Settings("m", "d", screen="cfg_norm", draws="3", max_bad="1%", guidance="2.5")  # type: ignore[arg-type]
    assert (told.data, told.screen, told.draws) == (Path("d"), ("cfg_norm",), 3)
    assert (told.max_bad, told.guidance) == (0.01, 2.5)
    for seed in (2**53 + 1, 2**63 - 1):  # beyond what a float can tell apart
        assert Settings("m", Path("d"), seed=seed).seed == seed
    assert Settings("m", Path("d"), screen="cfg_norm, dsm").screen == ("cfg_norm", "dsm")  # type: ignore[arg-type]
