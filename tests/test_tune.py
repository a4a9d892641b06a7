"""``membench tune``: the same number of tries for each detector, on the development
world, and the best of them by the mirrored AUROC.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from membench.cli.main import main
from membench.errors import UserError
from membench.reports.tuned import told
from membench.runs.spec import Spec
from membench.runs.tuning import examples_of, tries
from membench.tasks.cifar10.task import Cifar10

# Scores by the loss, or by its opposite, which is the default
PLUGIN = '''
"""The loss, with a sign (a test)."""

from dataclasses import dataclass, field

import torch

from membench.types import Access


@dataclass(frozen=True)
class Options:
    sign: int = field(default=-1, metadata={"help": "1: right", "min": -1, "max": 1})
    offset: float = field(default=0.0, metadata={"help": "changes no order"})


class Signed:
    Options = Options
    version = 1
    access = Access(images=True)
    tuning = {"images": {"sign": (-1, 1), "offset": (0.0, 1.0, 2.0)}}

    def __init__(self, options, *, seed, sampling):
        self.options, self.seed = options, seed

    def plan(self, conditions):
        return []

    def extract(self, model, requests):
        return []

    def score(self, model, conditions, extracted):
        import numpy as np

        x0 = model.encode(np.stack([c.image for c in conditions]))
        noise = model.noise([(c.id, 0) for c in conditions], self.seed)
        alpha, sigma = model.alpha_sigma(100)
        eps = model.eps(alpha * x0 + sigma * noise, 100, model.condition(conditions))
        error = (eps - noise).flatten(1).pow(2).mean(dim=1)
        return (self.options.offset - self.options.sign * error).tolist()
'''


def test_the_first_try_is_the_defaults_and_all_differ() -> None:
    spec = Spec("flipd", "cifar10")
    plan = tries(spec, "images", 6)
    assert plan[0].settings == () and len({t.settings for t in plan}) == len(plan) == 6
    assert [t.settings for t in plan] == [t.settings for t in tries(spec, "images", 6)]
    # More tries begin with the same
    assert [t.settings for t in tries(spec, "images", 9)][:6] == [t.settings for t in plan]


def test_no_more_tries_than_there_are_settings() -> None:
    plan = tries(Spec("dsm", "sd_webster"), "prompts", 50)
    assert len(plan) == 5


def test_the_option_that_must_win_is_chosen(tmp_path, capsys) -> None:
    plugin = tmp_path / "signed.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    out = tmp_path / "tries.parquet"
    command = f"tune --plugin {plugin} --detector signed --task cifar10 --tries 6 --limit 48"
    command += f" --runs {tmp_path / 'runs'} --output {out} --quiet --set cifar10.rung=4"
    assert main(command.split()) == 0
    frame = pd.read_parquet(out)
    assert len(frame) == 6 and frame.chosen.sum() == 1
    right = frame.options.str.contains("sign=1")
    assert frame[frame.chosen].options.item().startswith("sign=1")
    # By the other sign every order is turned round, and an offset changes none
    [value] = frame[right].auroc.round(9).unique()
    assert frame[~right].auroc.to_numpy() == pytest.approx(1 - value) and value > 0.5
    shown = capsys.readouterr().out
    assert "sign=1" in shown and "report it on another world" in shown.replace("\n", " ")
    # What is run elsewhere is what was chosen, whole
    [told] = frame[frame.chosen].command
    assert "--set sign=1" in told and "cifar10.rung=4 --set cifar10.world=1" in told
    assert "half=" not in told and "--limit" not in told
    # Nothing is computed twice
    assert main(command.split()) == 0
    assert pd.read_parquet(out).equals(frame)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--detector dsm --task cifar10", "names nothing to tune on images"),
        ("--detector loss --task cifar10 --tries 1", "--tries 1"),
        ("--detector loss --task cifar10 --set cifar10.world=1", "leave it out"),
        ("--detector loss --task cifar10 --set cifar10.half=b", "leave it out"),
        ("--detector loss --task cifar10 --set loss.t=5", "option t of loss is tuned"),
        ("--detector loss --task cifar10 --output README.txt/x", "README.txt"),
        ("--detector los --task cifar10", "loss"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_line(words, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.txt").write_text("")
    assert main(["tune", *words.split()]) == 2
    told = capsys.readouterr().err.strip()
    assert line in told and "\n" not in told and not (tmp_path / "results").exists()


def test_a_task_without_a_mini_profile_is_refused(monkeypatch) -> None:
    """Not by a profile that tune has no option for."""
    monkeypatch.setattr(Cifar10, "info", replace(Cifar10.info, profiles=("full",)))
    with pytest.raises(UserError, match=r"both halves of a mini task, and cifar10 has no profile"):
        examples_of(Spec("loss", "cifar10"))


def test_a_tuned_option_is_refused_however_it_is_spaced() -> None:
    with pytest.raises(UserError, match="option t of loss is tuned"):
        tries(Spec("loss", "cifar10", options=("t = 5",)), "images", 4)


def test_a_detector_that_names_nothing_says_so() -> None:
    with pytest.raises(UserError, match="membench ablate"):
        tries(Spec("png_size", "cifar10"), "images", 4)


def test_a_choice_of_the_defaults_is_called_so_and_one_refusal_is_one() -> None:
    rows = [
        {"number": 0, "options": "images=0", "chosen": True, "auroc": 0.8, "status": "complete"},
        {"number": 1, "options": "images=0 t=3", "chosen": False, "auroc": np.nan}
        | {"status": "refused"},
    ]
    common = {"task": "cifar10", "detector": "loss", "low": 0.7, "high": 0.9, "evaluations": 1}
    text = told(
        pd.DataFrame([common | {"command": "membench run"} | r for r in rows]), 2, Path("f")
    )
    assert "the defaults" in text and "images=0" not in text
    assert "1 try was refused: column error of the file has the reason." in text
