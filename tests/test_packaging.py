"""The wheel holds everything, and works from a folder whose own ``tasks.py`` and
``detectors.py`` would explode.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.parse
import zipfile
from pathlib import Path

import pytest
import yaml

import membench

ROOT = Path(__file__).resolve().parent.parent
FAR = '''
"""A detector from elsewhere that asks the network once."""
from dataclasses import dataclass

from membench.types import Access


@dataclass(frozen=True)
class Options:
    pass


class Far:
    Options = Options
    version = 1
    access = Access()

    def __init__(self, options, *, seed, sampling):
        self.options, self.seed = options, seed

    def plan(self, conditions):
        return []

    def extract(self, model, requests):
        return []

    def score(self, model, conditions, extracted):
        x = model.noise([(c.id, 0) for c in conditions], self.seed)
        return model.eps(x, 981, model.condition(conditions)).flatten(1).norm(dim=1).tolist()
'''
SOURCES = ("membench", "detectors", "tasks")
PLUGIN = '''
"""A detector that explodes."""
raise RuntimeError("imported for a list")
'''


def command(
    *words: object, cwd: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | (
        {"PYTHONPATH": str(path)} if path else {}
    )
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def install(package: Path, target: Path) -> None:
    command(
        *(
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
            "--no-compile",
        ),
        *("--disable-pip-version-check", "--target", target, package),
        cwd=target.parent,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that no build folder is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command("build", "--wheel", "--no-isolation", "--outdir", out, copy, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "packages"
    install(wheel, target)
    return target


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A user's folder with modules of the names that ours must not be mistaken for."""
    for name in ("tasks", "detectors"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is the wrong one')")
    return tmp_path


def test_wheel_holds_the_sources_and_data_and_nothing_else(wheel: Path) -> None:
    expected = {"membench/py.typed"}
    for folder in SOURCES:
        inside = Path("membench") if folder == "membench" else Path("membench", folder)
        for file in (ROOT / folder).rglob("*"):
            relative = file.relative_to(ROOT / folder)
            if file.suffix == ".py" or (
                {"data", "templates"} & set(relative.parts[:-1]) and file.is_file()
            ):
                expected.add((inside / relative).as_posix())
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert wheel.stat().st_size < 40e6


def test_the_container_is_made_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert f"RUN {command} " in (ROOT / ".ci" / "Containerfile").read_text(encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == membench.__version__
    assert f"## [{cited['version']}] - {cited['date-released']}" in (
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    )


def test_the_badges_are_true() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = project["requires-python"].removeprefix(">=")
    licence = project["license"].replace("-", "--")  # in a badge a hyphen parts its fields
    badges = re.findall(r"shields\.io/badge/(\S+)-blue\)", (ROOT / "README.md").read_text())
    assert [urllib.parse.unquote(badge) for badge in badges] == [
        f"python-≥_{python}",
        f"licence-{licence}",
    ]


def test_list_from_the_wheel(installed: Path, elsewhere: Path) -> None:
    lines = {
        words[0]: words[1]
        for line in listed(installed, elsewhere).splitlines()
        if len(words := line.split(None, 1)) == 2
    }
    for group in ("membench.detectors", "membench.tasks"):
        for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
            group
        ]:
            assert lines[name] and not lines[name].startswith("("), name


def listed(path: Path, cwd: Path) -> str:
    """stdout of ``membench list`` for both kinds."""
    return "".join(
        command("membench", "list", kind, cwd=cwd, path=path).stdout
        for kind in ("detectors", "tasks")
    )


def test_submodules_come_from_the_wheel(installed: Path, elsewhere: Path) -> None:
    code = (
        "import membench.detectors, membench.tasks as t; print(membench.__file__,"
        " membench.detectors.__file__, t.__file__)"
    )
    env = os.environ | {"PYTHONPATH": str(installed)}
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out.split() == [
        str(installed / "membench" / f"{sub}__init__.py") for sub in ("", "detectors/", "tasks/")
    ]


def test_list_from_the_checkout() -> None:
    assert "cfg_norm" in command("membench", "list", "detectors", cwd=ROOT).stdout


@pytest.fixture(scope="module")
def third_party(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: ours, and a tiny one of somebody else's with two
    detectors, ``far`` and one that explodes when it is imported.
    """
    source = tmp_path_factory.mktemp("source") / "far-away"
    source.mkdir()
    (source / "far_module.py").write_text(FAR)
    (source / "exploding_module.py").write_text(PLUGIN.lstrip())
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend ='
        ' "setuptools.build_meta"\n[project]\nname = "far-away"\nversion ='
        ' "1.0"\n[project.entry-points."membench.detectors"]\nfar ='
        ' "far_module:Far"\nexploding = "exploding_module:Far"\n[tool.setuptools]\n'
        'py-modules = ["far_module", "exploding_module"]\n'
    )
    target = tmp_path_factory.mktemp("both") / "packages"
    shutil.copytree(installed, target)
    install(source, target)
    return target


def test_third_party_detector_is_listed_without_being_imported(
    third_party: Path, elsewhere: Path
) -> None:
    out = command("membench", "list", "detectors", cwd=elsewhere, path=third_party).stdout
    line = next(line for line in out.splitlines() if line.split()[0] == "exploding")
    assert "A detector that explodes." in line


def test_the_wheel_runs_with_a_third_party_detector(third_party: Path, elsewhere: Path) -> None:
    """The whole way in an empty folder: model and world from the wheel, ours and theirs
    in one command.
    """
    arguments = [
        "--detector",
        "far,cfg_norm",
        "--task",
        "sd_webster",
        "--limit",
        "6",
        "--quiet",
        "--offline",
    ]
    out = command(
        "membench", "run", *arguments, "--set", "cfg_norm.draws=1", cwd=elsewhere, path=third_party
    ).stdout
    assert [Path(line).parent.name for line in out.split()] == ["far", "cfg_norm"]
    folders = sorted(p.parent.name for p in elsewhere.glob("results/runs/sd_webster/mini/*/*"))
    assert folders == ["cfg_norm", "far"]
