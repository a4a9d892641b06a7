"""The command line as a user meets it: one clear line and exit code 2 for each mistake,
and a light start.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, save_tiny_pipeline
from test_whole_models import PARTS, TOKENIZER

from membench.cli.common import RUNS, Parser, seeds_of
from membench.cli.main import COMMANDS, main, parser
from membench.tasks.sd_webster.options import SdWebsterOptions
from membench.tasks.sd_webster.task import SdWebster
from membench.tasks.sd_webster.world import DATA

RUN = [
    "run",
    "--detector",
    "cfg_norm",
    "--task",
    "sd_webster",
    "--quiet",
    "--limit",
    "4",
    "--set",
    "draws=1",
    "--set",
    "images=1",
]


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs a command that must fail, and returns its one line."""
    assert main([str(a) for a in args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("membench: ") and err.count("\n") == 1, err
    return err


# -------------------------------------------------------------------------------- start


def test_list_and_help_are_light() -> None:
    """No torch, and less than a quarter of the time of ``import torch``: the processor's,
    which others that share it do not change.
    """

    def seconds(*command: str) -> float:
        start = os.times()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        end = os.times()
        return sum(end[2:4]) - sum(start[2:4])  # of children that have ended

    torch = seconds("-c", "import torch")
    assert seconds("-m", "membench", "list") < torch / 4
    assert seconds("-m", "membench", "--help") < torch / 4
    heavy = "{'torch._C', 'transformers', 'diffusers', 'pandas', 'pyarrow', 'sklearn', 'numpy'}"
    # One process for all: what the first imported would still be there after the last
    lines = ["import sys", "from membench.cli.main import main"]
    for command in (["list"], ["--help"], ["run", "--help"]):
        lines += [f"try: main({command})", "except SystemExit: pass"]
        lines += [f"assert not {heavy} & set(sys.modules), {command}"]
    code = "\n".join(lines)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_membench_alone_prints_its_help(capsys) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert all(f"  {name} " in out or f"  {name}\n" in out for name in COMMANDS) and err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_s_help_fits_and_has_examples_that_parse(
    capsys, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and max(map(len, out.splitlines())) <= 80
    _, _, examples = out.partition("\nexamples:\n")
    # As a shell reads them
    shown = examples.replace("\\\n", " ").splitlines()
    assert [shlex.split(line) for line in shown] == [
        ["membench", *shlex.split(example)] for example in COMMANDS[name].EXAMPLES
    ]
    for line in shown:
        args, rest = parser().parse_known_args(shlex.split(line)[1:])
        assert args.command == name and not rest


def test_flags_mean_one_thing() -> None:
    """--runs is where runs are, --output what is written, --seeds a list of seeds, in
    each command that has it.
    """
    for name, module in COMMANDS.items():
        of = Parser(prog=name)
        module.arguments(of)
        flags = set(of.options())
        assert not flags & {"--out", "--seed", "--save", "--folder"}, name
        if "--runs" in flags:
            assert of.get_default("runs") in (RUNS, [RUNS])
        if "--seeds" in flags:
            assert seeds_of(of.get_default("seeds"))


def test_the_halves_of_the_catalogue_change_roles() -> None:
    """Options are chosen on one half's model and reported on the other's."""
    a, b = (SdWebster(SdWebsterOptions(half=half, examples="half")) for half in ("a", "b"))
    for control in (False, True):
        assert (
            a.load("mini", control=control).hashes["weights"]
            == b.load("mini", control=not control).hashes["weights"]
        )
    first, second = a.load("mini"), b.load("mini")
    assert first.hashes["data"] != second.hashes["data"]
    assert not {e.id for e in first.examples} & {e.id for e in second.examples}


def test_task_options_on_the_command_line(capsys) -> None:
    assert "half must be one of a, b" in refused(capsys, *RUN, "--set", "sd_webster.half=c")
    assert "'cifar' is not a name of this run (cfg_norm, sd_webster)" in refused(
        capsys, *RUN, "--set", "cifar.half=b"
    )
    assert "--budget 0: it must be at least 1" in refused(capsys, *RUN, "--budget", 0)


def test_list_names_everything_with_a_line_of_text(capsys) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  cfg_norm +\S.*Wen", out, re.M) and re.search(
        r"^  random +\S.*Carlini", out, re.M
    )
    assert re.search(r"^  sd_webster +\S", out, re.M)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cfg_norm", ["draws", "guidance", "7.5"]),
        ("sd_webster", ["normalised-l2", "bands", "mini", "model str empty folder, hub id"]),
        ("cifar10", ["a copy is <= 1.0"]),
    ],
)
def test_show(capsys, name: str, words: list[str]) -> None:
    assert main(["show", name]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(word in out for word in words)


# ----------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["run", "--detector", "cfg_nrom", "--task", "sd_webster"],
            ["unknown detector 'cfg_nrom'", "'cfg_norm'", "membench list detectors"],
        ),
        (
            ["run", "--detector", "random,cfg", "--task", "sd_webster"],
            ["unknown detector 'cfg'", "membench list detectors"],
        ),
        (
            ["run", "--detector", "cfg_norm", "--task", "sd_webstr"],
            ["unknown task 'sd_webstr'", "'sd_webster'", "membench list tasks"],
        ),
        (
            [*RUN, "--profile", "mimi"],
            ["unknown profile 'mimi'", "'mini'", "membench show sd_webster"],
        ),
        ([*RUN, "--set", "random.draws=3"], ["'random' is not a name"]),
        (
            ["run", "--detector", "cfg_norm,random", "--task", "sd_webster", "--set", "images=1"],
            ["detector random", "images"],
        ),
        ([*RUN, "--set", "drawz=3"], ["'drawz'", "'draws'"]),
        ([*RUN, "--set", "steps=three"], ["steps", "three"]),
        ([*RUN, "--set", "steps=0"], ["steps", "0"]),
        ([*RUN, "--set", "guidance=nan"], ["guidance", "nan"]),
        ([*RUN, "--set", "steps=51"], ["steps=51 is more than trajectory=50"]),
        ([*RUN, "--set", "trajectory=1001"], ["1001", "1000"]),
        ([*RUN, "--limit", "0"], ["--limit 0"]),
        ([*RUN, "--limit", "many"], ["--limit", "many"]),
        ([*RUN, "--batch-size", "0"], ["--batch-size 0"]),
        ([*RUN, "--device", "cuda:99"], ["cuda:99"]),
        ([*RUN, "--device", "quantum"], ["quantum"]),
        ([*RUN, "--seeds", "0,0"], ["--seeds '0,0'", "different whole numbers"]),
        ([*RUN, "--seeds", "x"], ["--seeds 'x'"]),
        ([*RUN, "--seeds", ","], ["--seeds ','"]),
        ([*RUN, "--profile", ""], ["argument after --profile is empty"]),
        ([*RUN, "--profile="], ["--profile has an empty value"]),
        ([*RUN, "--model", " "], ["argument after --model is empty"]),
        ([*RUN, "--set", ""], ["argument after --set is empty"]),
        (["show", ""], ["an argument is empty"]),
        ([*RUN, "--runs", "a\0b"], ["'a\\x00b' holds a NUL character"]),
        # A word of the user's makes no line of its own, and colours nothing
        ([*RUN, "--batch-size", "a\nmembench: b"], ["--batch-size a\\nmembench: b: it must be"]),
        ([*RUN, "--plugin", "\x1b[31m\u202e.py"], ["no plug-in file \\x1b[31m\\u202e.py"]),
        ([*RUN, "--device", "hpu"], ["device 'hpu' cannot be used here"]),
        ([*RUN, "--device", "gpu"], ["torch knows no such name; write auto, cpu, cuda"]),
        ([*RUN, "--device", "meta"], ["device 'meta' cannot be used here"]),
        ([*RUN, "--device", "mkldnn"], ["device 'mkldnn' cannot be used here"]),
        ([*RUN, "--device", "cpu:5"], ["device 'cpu:5' cannot be used here: there is one"]),
        ([*RUN, "--seeds", "1,-2"], ["--seeds '1,-2'"]),
        (
            [*RUN, "--seed", "2"],
            ["unknown option --seed. Did you mean '--seeds' or '--set'? See: membench run --help"],
        ),
        ([*RUN, "--out", "runs"], ["unknown option --out.", "See: membench run --help"]),
        ([*RUN, "more"], ["unexpected argument 'more'. See: membench run --help"]),
        (
            ["rnu", "--task", "sd_webster"],
            ["invalid choice: 'rnu'", "Did you mean 'run'? See: membench --help"],
        ),
        (
            ["run", "--task", "sd_webster"],
            ["--detector is required, or --config. See: membench run --help"],
        ),
        (["run", "--detector", "cfg_norm"], ["--task is required, or --config."]),
        (["run"], ["--detector is required, or --config"]),
        (["reference", "--detector", "cfg_nrom"], ["unknown detector 'cfg_nrom'"]),
        (["report", "--runs", "no/such"], ["no finished runs", "membench run"]),
        ([*RUN, "--prompts", "no/such.csv"], ["no/such.csv", "does not exist"]),
        (
            ["run", "--detector", "loss", "--task", "cifar10", "--prompts", "x.txt"],
            ["no --prompts"],
        ),
        ([*RUN, "--data-root", "x"], ["task sd_webster takes no --data-root"]),
        (
            [*RUN, "--model", "no/such"],
            ["model no/such (", ") is missing", "membench download sd_webster --model no/such"],
        ),
        (
            [*RUN, "--model", "sd-1.5"],
            ["model sd-1.5 (", ") is missing", "membench download sd_webster --model sd-1.5"],
        ),
        ([*RUN, "--model", "sd-1.6"], ["unknown model 'sd-1.6'", "sd-1.5", "folder"]),
        (
            [*RUN, "--model", "/no/such/folder"],
            ["/no/such/folder", "neither a folder nor a hub id"],
        ),
        ([*RUN, "--model", "x", "--control"], ["--control", "--model"]),
        ([*RUN, "--plugin", "no/such.py"], ["no/such.py"]),
        (["show", "cfg_nrom"], ["cfg_nrom", "cfg_norm"]),
        (["show", "my_norm"], ["See: membench list; --plugin FILE.py loads one of your own"]),
        (["train", "sd_webster", "--part", "vea"], ["vea", "vae"]),
        (["train", "sd_webster", "--profile", "full"], ["full"]),
        (["train", "sd_webster", "--set", "stepz=3"], ["stepz", "steps"]),
        (["leaderboard", "--runs", "no/such"], ["no finished runs", "membench run"]),
        (["leaderboard", "--format", "xlsx"], ["xlsx"]),
        (["rnu"], ["rnu"]),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else None,
)
def test_each_mistake_is_one_line(
    capsys, tmp_path, monkeypatch, args: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused(capsys, *args)
    assert all(word in error for word in words), error
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", ["empty"]),
        ("header.csv", b"prompt,label\n", ["no prompt"]),
        ("latin.csv", "prompt\ncaf\xe9\n".encode("latin-1"), ["UTF-8"]),
        ("column.csv", b"words,label\na rug,1\n", ["no column 'prompt'", "'words'"]),
        ("twice.csv", b"prompt\na rug\na mug\na rug\n", ["line 4", "line 2", "a rug"]),
        ("blank.csv", b"prompt,label\na rug,1\n ,0\n", ["line 3", "empty"]),
        ("label.csv", b"prompt,label\na rug,yes\n", ["line 2", "'yes'"]),
        ("twice.txt", b"a rug\n\na rug\n", ["line 3", "line 1"]),
    ],
)
def test_a_bad_prompts_file(capsys, tmp_path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(capsys, *RUN, "--prompts", tmp_path / name, "--runs", tmp_path / "runs")
    assert name in error and all(word in error for word in words), error


def test_a_prompt_that_is_too_long_is_cut_and_counted(capsys, tmp_path, monkeypatch) -> None:
    """As diffusers does: what follows the last token that fits changes nothing. The
    tokenizer's warning of it would foretell indexing errors.
    """
    warned: list[str] = []
    place = "transformers.tokenization_utils_base.logger.warning"
    monkeypatch.setattr(place, lambda text, *_: warned.append(text))
    from membench.models.latent import LatentDenoiser, load_text_to_image
    from membench.runs.finished import load
    from membench.types import Condition

    long = "teal " * 80
    folder = save_tiny_pipeline(tmp_path / "model", "epsilon")
    (tmp_path / "long.csv").write_text(f"prompt,label\n{long}rug,1\n{long}mug,0\na mug,1\n")
    command = [
        *RUN,
        "--model",
        folder,
        "--prompts",
        tmp_path / "long.csv",
        "--runs",
        tmp_path / "runs",
    ]
    assert main([str(word) for word in command]) == 0
    err = capsys.readouterr().err
    assert "2 prompts are longer than the tokenizer's limit" in err
    assert "of 1 text one prompt is labelled memorized and another not" in err
    assert not [text for text in warned if "sequence length" in text]
    [path] = (tmp_path / "runs").glob("sd_webster/mini/cfg_norm/*")
    assert load(path).info["truncated_prompts"] == 2
    model = LatentDenoiser(load_text_to_image(folder))
    rug, mug, short = model.condition(
        [Condition("a", long + "rug"), Condition("b", long + "mug"), Condition("c", "rug")]
    ).embeddings
    assert rug.equal(mug) and not rug.equal(short) and len(model.truncated) == 2


def broken_model(tmp_path: Path, how: str) -> Path:
    folder = save_tiny_pipeline(tmp_path / "model", "v_prediction")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if how == "no unet":
        shutil.rmtree(folder / "unet")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "wrong shape":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(
            json.dumps(config | {"block_out_channels": [8, 24]})
        )
    elif how == "wrong width":
        other = save_tiny_pipeline(tmp_path / "other", "v_prediction")
        shutil.rmtree(folder / "text_encoder")
        shutil.copytree(DATA / "a" / "text_encoder", folder / "text_encoder")
        assert other.exists()
    elif how == "pickle":
        weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    elif how == "nan":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        next(iter(tensors.values()))[0] = float("nan")
        save_file(tensors, weights, metadata={"format": "pt"})
    elif how == "flow":
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"prediction_type": "flow_prediction"})
        )
    return folder


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no unet", ["unet", "no safetensors"]),
        ("truncated", ["diffusion_pytorch_model.safetensors", "cut short"]),
        ("wrong shape", ["unet", "cannot be loaded"]),
        ("wrong width", ["width 16", "128"]),
        ("pickle", ["unet", "pickled"]),
        ("nan", ["NaN", "diffusion_pytorch_model.safetensors"]),
        ("flow", ["flow_prediction"]),
    ],
)
def test_a_broken_model_folder(capsys, tmp_path, how: str, words: list[str]) -> None:
    error = refused(
        capsys, *RUN, "--model", broken_model(tmp_path, how), "--runs", tmp_path / "runs"
    )
    assert all(word in error for word in words), error


def test_an_output_folder_that_cannot_be_written(capsys, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = refused(capsys, *RUN, "--runs", tmp_path / "file" / "runs")
    assert "cannot write" in error and "--runs" in error


# --------------------------------------------------------------------------- whole runs


ONE_BY_ONE = """
import json, sys
from membench.cli.main import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    for stream in (sys.stdout, sys.stderr):
        print("ended with", code, file=stream, flush=True)
"""
DAMAGED = ("no tokenizer.json", "fp8")


@pytest.fixture(scope="module")
def own_process(
    tmp_path_factory: pytest.TempPathFactory, tiny_pipeline_folder: Path
) -> tuple[Path, list[str], list[str]]:
    """Runs on two damaged models and one that is whole, one after another in a process
    of their own: a folder, and what each printed to stdout and stderr and ended with.
    """
    folder, commands = tmp_path_factory.mktemp("own"), []
    for how in DAMAGED:
        model = folder / how.replace(" ", "-")
        (TOKENIZER | PARTS)[how][0](Path(shutil.copytree(tiny_pipeline_folder, model)))
        words = ["run", "--detector", "cfg_norm", "--task", "sd_webster", "--limit", "2"]
        commands.append([*words, "--model", str(model), "--runs", str(folder / "none")])
    save_tiny_pipeline(folder / "model", "epsilon")
    place = ["--model", str(folder / "model"), "--runs", str(folder / "runs")]
    commands.append([*RUN, "--offline", *place])
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, json.dumps(commands)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    out, err = (re.split(r"(?<=ended with .)\n", text) for text in (done.stdout, done.stderr))
    assert len(out) == len(err) == len(commands) + 1 and out[-1] == err[-1] == "", done.stderr
    return folder, out[:-1], err[:-1]


def test_a_damaged_model_is_one_line_in_a_process_of_its_own(own_process) -> None:
    """What libraries say when they are imported would be lines, too."""
    _, out, err = own_process
    for how, data, talk in zip(DAMAGED, out, err, strict=False):
        line, end = talk.splitlines()
        assert (TOKENIZER | PARTS)[how][1] in line, talk
        assert data == end == "ended with 2", (data, talk)


def test_run_prints_tables_and_where_they_are(own_process, capsys) -> None:
    """The first run in a process of its own: stdout is data, stderr is talk; a real
    folder of the hub's layout as --model.
    """
    root, out, _ = own_process
    [folder] = (root / "runs").glob("sd_webster/mini/cfg_norm/*")
    # --quiet: nothing but the path
    assert out[-1] == f"{folder}\nended with 0"
    again = [word for word in RUN if word != "--quiet"] + ["--model", str(root / "model")]
    again += ["--runs", str(root / "runs"), "--device", "cpu"]
    assert main(again) == 0
    out = capsys.readouterr().out
    assert out.startswith("PARTIAL (4 of ") and "AUROC" in out and out.count("\n") <= 15
    assert str(folder) in out and "\nnext: membench " in out
    assert main([*again, "--format", "json"]) == 0
    [data] = json.loads(capsys.readouterr().out)
    assert data["path"] == str(folder) and data["status"] == "partial"
    board = ["leaderboard", "--runs", str(root / "runs"), "--format"]
    for fmt in ("table", "md", "csv", "json"):
        assert main([*board, fmt]) == 0 and "cfg_norm" in capsys.readouterr().out
    assert main([*board, "parquet", "--output", str(root / "b.parquet")]) == 0
    frame = pd.read_parquet(root / "b.parquet")
    assert list(frame.detector) == ["cfg_norm"] and list(frame.status) == ["partial"]


PLUGIN = '''
"""Length of the caption, to show that a plug-in is one file."""
from dataclasses import dataclass, field

from membench.types import Access


@dataclass(frozen=True)
class Options:
    sign: int = field(default=1, metadata={"help": "1 or -1"})


class Longest:
    Options = Options
    version = 1
    access = Access()

    def __init__(self, options, *, seed, sampling):
        self.options = options

    def plan(self, conditions):
        return []

    def extract(self, model, requests):
        return []

    def score(self, model, conditions, extracted):
        return [self.options.sign * float(len(c.prompt)) for c in conditions]
'''


def test_a_plugin_file_is_a_detector(capsys, tmp_path) -> None:
    from membench.registry import detectors
    from membench.runs.finished import load

    (tmp_path / "mine.py").write_text(PLUGIN)
    try:
        arguments = ["--plugin", str(tmp_path / "mine.py"), "--runs", str(tmp_path / "runs")]
        command = ["run", "--detector", "longest", "--task", "sd_webster", *arguments]
        assert main([*command, "--set", "sign=-1"]) == 0
        [folder] = (tmp_path / "runs").glob("*/*/longest/*")
        run = load(folder)
        assert (run.scores.score == -run.scores.prompt.str.len()).all() and len(run.samples) == 0
        auroc = run.metrics[
            (run.metrics.metric == "auroc") & (run.metrics.subset == "all")
        ].value.iloc[0]
        assert abs(auroc - 0.5) < 0.08  # the captions are matched
        assert "AUROC" in capsys.readouterr().out
    finally:
        detectors.cache_clear()


def test_an_edited_plugin_is_another_run(capsys, tmp_path) -> None:
    """The formula is changed under the same version: new scores in a new folder.

    The file of before finds its own run again.
    """
    from membench.registry import detectors
    from membench.runs.finished import load

    blind = PLUGIN.replace("Access()", "Access(model=False)")
    command = ["run", "--detector", "longest", "--task", "sd_webster", "--quiet", "--limit", "20"]
    command += ["--plugin", str(tmp_path / "mine.py"), "--runs", str(tmp_path / "runs")]
    found = []
    try:
        for code in (blind, blind.replace("self.options.sign *", "-self.options.sign *"), blind):
            (tmp_path / "mine.py").write_text(code)
            assert main(command) == 0
            found.append({folder.name for folder in (tmp_path / "runs").glob("*/*/longest/*")})
    finally:
        detectors.cache_clear()
    assert [len(folders) for folders in found] == [1, 2, 2]
    scores = [
        load(folder).scores.set_index("id").score
        for folder in (tmp_path / "runs").glob("*/*/longest/*")
    ]
    assert (scores[0] == -scores[1]).all() and scores[0].abs().min() > 0


def test_other_code_under_the_same_version_is_told(capsys, tmp_path, monkeypatch) -> None:
    """Of a built-in detector: statements count, comments and docstrings do not."""
    from membench import registry, source_text

    command = ["run", "--detector", "caption_length", "--task", "sd_webster", "--quiet"]
    command += ["--limit", "20", "--runs", str(tmp_path / "runs")]
    assert main(command) == 0 and "other code" not in capsys.readouterr().err
    entry = registry.detectors().get("caption_length")
    code = source_text.source_file(entry.target.partition(":")[0]).read_bytes()
    hashed = source_text.statements_hash
    assert entry.source == hashed(code) == hashed(code + b"\n# more\n")
    other = hashed(code + b"\nx = 1\n")
    assert main(command) == 0 and "other code" not in capsys.readouterr().err
    monkeypatch.setitem(vars(entry), "source", other)
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "detector caption_length is other code than made" in told and told.count("\n") == 1
    assert "its version is still 1" in told


def test_doctor(capsys) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch" in out and "task sd_webster, mini profile, model: ready" in out


def test_doctor_names_the_device_that_a_run_takes(capsys, monkeypatch) -> None:
    import torch

    from membench.registry import Registry

    monkeypatch.setattr("membench.registry.tasks", lambda: Registry("task"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for mps, told in (True, "device: mps"), (False, "device: cpu only"):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert main(["doctor"]) == 0
        assert told in capsys.readouterr().out


def test_the_readmes_detector_runs(capsys, monkeypatch, tmp_path) -> None:
    from membench.registry import detectors

    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "eps_norm.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    try:
        assert (
            main(
                [
                    "run",
                    "--plugin",
                    "eps_norm.py",
                    "--detector",
                    "eps_norm",
                    "--task",
                    "sd_webster",
                    "--limit",
                    "150",
                ]
            )
            == 0
        )
        assert "AUROC" in capsys.readouterr().out
    finally:
        detectors.cache_clear()


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--detector", "caption_length,,caption_case", "--task", "sd_webster"],
        ["run", "--detector", "caption_length", "--task", "sd_webster,"],
        ["run", "--detector", "random", "--task", "cifar10", "--quality", "pixels,,pixels"],
        ["run", "--detector", "cfg_norm", "--task", "sd_webster", "--prompts", "hintersdorf,"],
        ["run", "--detector", "clid", "--task", "cifar10", "--set", "t=1,,2"],
        ["ablate", "--detector", "clid", "--task", "cifar10", "--sweep", "noises=1,"],
        ["ablate", "--detector", "random", "--task", "cifar10", "--sweep", "cifar10.rung=1,,2"],
        ["leaderboard", "--detector", "loss,,clid"],
        ["report", "--task", "cifar10,"],
    ],
)
def test_an_empty_item_of_a_list_is_refused(words: list[str], capsys, tmp_path) -> None:
    """Whoever wrote it meant something."""
    from boards import make

    runs = make(tmp_path / "kept", [0, 1, None, 0]).path.parents[3]
    assert main([*words, "--runs", str(runs)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and ("empty item" in err or "not '1,,2'" in err)


def test_names_with_a_colon_are_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pyarrow takes ``cpu:5/scores.parquet`` for an address, unless it is absolute."""
    monkeypatch.chdir(tmp_path)
    run = ["run", "--detector", "caption_length", "--task", "sd_webster", "--quiet"]
    assert main([*run, "--runs", "cpu:5"]) == 0
    board = ["leaderboard", "--by", "seeds", "--runs"]
    assert main([*board, "cpu:5", "--format", "parquet", "--output", "a:b.parquet"]) == 0
    capsys.readouterr()
    assert main([*board, "a:b.parquet"]) == 0
    assert "caption_length" in capsys.readouterr().out


def test_parquet_files_are_opened_by_absolute_names() -> None:
    opened = re.compile(r"pq\.(?:ParquetFile|read_table|read_schema|read_metadata)\(\s*([^,)]+)")
    found = [
        name
        for folder in ("membench", "detectors", "tasks")
        for file in (ROOT / folder).rglob("*.py")
        for name in opened.findall(file.read_text(encoding="utf-8"))
    ]
    assert len(found) > 10
    assert all(name.endswith(".absolute(") or "BufferReader" in name for name in found)
