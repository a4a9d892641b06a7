"""The documentation: the tutorial's commands run, the list of commands is the parsers',
and the site's links lead somewhere.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMPipeline
from PIL import Image

from membench.cli import manual
from membench.cli.main import main
from membench.testing import tiny_pixel_model

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_list_of_options_is_that_of_the_parsers() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert text == "\n".join(manual.document()) + "\n", (
        "python -m membench.cli.manual > docs/cli.md"
    )
    assert "(default )" not in text


def test_each_command_of_the_tutorial_runs(tmp_path, monkeypatch, capsys) -> None:
    """With fewer examples than the page takes."""
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    [source] = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    Path("eps_norm.py").write_text(source, encoding="utf-8")
    lines = re.findall(r"^\$ membench (.*)$", text, flags=re.M)
    assert len(lines) >= 7
    for line in lines:
        assert main(shlex.split(line.replace("--limit 64", "--limit 8"))) == 0, line
    shown = capsys.readouterr().out
    assert "AUROC mirrored" in shown and "eps_norm" in shown
    assert (tmp_path / "results" / "report" / "report.html").is_file()


def test_the_task_of_your_own_images_runs(tmp_path, monkeypatch, capsys) -> None:
    """As the page has it, on two networks that were never trained: the size of a PNG,
    which is content, has 0.5 over both.
    """
    text = (DOCS / "own_task.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    [source] = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    Path("my_photos.py").write_text(source.replace("SIZE = 32", "SIZE = 8"), encoding="utf-8")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "held_out"):
        Path("my_images", name).mkdir(parents=True)
        for i, pixels in enumerate(rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)):
            Image.fromarray(pixels >> i).save(f"my_images/{name}/{i}.png")
    for half in "ab":
        tiny = tiny_pixel_model(classes=0, seed=ord(half))
        DDIMPipeline(tiny.network, tiny.scheduler).save_pretrained(f"my_models/{half}")
    [check] = re.findall(r"^\$ python -c '(.*)'$", text, flags=re.M)
    exec(check, {})
    lines = re.findall(r"^\$ membench (.*)$", text, flags=re.M)
    assert len(lines) == 3
    for line in lines:
        assert main(shlex.split(line)) == 0, line
    shown = capsys.readouterr().out
    assert re.search(r"^png_size +0\.500 ", shown.partition("AUROC mirrored")[2], flags=re.M)


def test_the_site_has_no_broken_link(tmp_path) -> None:
    build = pytest.importorskip("mkdocs.commands.build")  # of the extra docs
    from mkdocs.config import load_config

    config = load_config(str(DOCS.parent / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    build.build(config)
    pages = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("index.html")}
    assert {"index.html", "tutorial/index.html", "cli/index.html", "results/index.html"} <= pages
