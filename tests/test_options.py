"""--set key=value: every type, and every way to get it wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from membench.errors import UserError
from membench.options import describe_options, parse_options


@dataclass(frozen=True)
class Options:
    steps: int = field(default=10, metadata={"help": "network evaluations", "min": 1, "max": 50})
    scale: float = field(default=7.5, metadata={"help": "guidance", "min": 0})
    tiled: bool = False
    label: str = "plain"
    sampler: Literal["ddim", "dpm"] = "ddim"
    order: Literal[1, 2] = 1
    times: tuple[int, ...] = field(default=(1, 2), metadata={"min": 0})
    cut: float | None = None
    low: int = 0
    high: int = field(default_factory=lambda: 5)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low={self.low} must not be above high={self.high}")


def parse(*settings: str) -> Options:
    return parse_options(Options, settings, owner="detector cfg_norm")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps=1", 1),
        ("steps=50", 50),
        ("scale=3", 3.0),
        ("scale=1e-3", 0.001),
        ("tiled=true", True),
        ("tiled=OFF", False),
        ("label=a=b", "a=b"),
        ("label=", ""),
        ("sampler=dpm", "dpm"),
        ("order=2", 2),
        ("times=3", (3,)),
        ("times=3, 4", (3, 4)),
        ("cut=none", None),
        ("cut=0.5", 0.5),
        (" steps = 7", 7),
    ],
)
def test_values(setting: str, value: Any) -> None:
    got = getattr(parse(setting), setting.partition("=")[0].strip())
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("~/a", "/home/me/a"), ("~/a, ~/b,c", "/home/me/a, /home/me/b,c"), ("~w.pt", "~w.pt")],
)
def test_a_path_may_begin_at_home(text: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse(f"label={text}").label == value


def test_minus_zero_is_zero() -> None:
    """Else one run would have two keys."""
    assert str(parse("scale=-0.0").scale) == "0.0" and str(parse("cut=-0").cut) == "0.0"


def test_defaults_and_several_at_once() -> None:
    assert parse() == Options()
    assert parse("steps=3", "tiled=yes") == Options(steps=3, tiled=True)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (
            "stepz=3",
            (
                "unknown option of detector cfg_norm: 'stepz'. Did you mean 'steps'? See: membench"
                " show cfg_norm"
            ),
        ),
        ("steps", "detector cfg_norm: cannot read --set 'steps'; write --set key=value"),
        ("steps=many", "detector cfg_norm: option steps must be int from 1 to 50, not 'many'."),
        ("steps=2.5", "detector cfg_norm: option steps must be int from 1 to 50, not '2.5'."),
        ("steps=0", "detector cfg_norm: option steps must be int from 1 to 50, not '0'."),
        ("steps=51", "detector cfg_norm: option steps must be int from 1 to 50, not '51'."),
        ("scale=nan", "detector cfg_norm: option scale must be float from 0, not 'nan'."),
        ("scale=inf", "detector cfg_norm: option scale must be float from 0, not 'inf'."),
        ("scale=-1", "detector cfg_norm: option scale must be float from 0, not '-1'."),
        ("tiled=maybe", "detector cfg_norm: option tiled must be bool, not 'maybe'."),
        (
            "sampler=dim",
            (
                "detector cfg_norm: option sampler must be one of ddim, dpm, not 'dim'. Did you"
                " mean 'ddim' or 'dpm'?"
            ),
        ),
        ("order=3", "detector cfg_norm: option order must be one of 1, 2, not '3'."),
        (
            "times=1,,2",
            "detector cfg_norm: option times must be ints separated by commas from 0, not '1,,2'.",
        ),
        (
            "times=1,x",
            "detector cfg_norm: option times must be ints separated by commas from 0, not '1,x'.",
        ),
        (
            "times=1,-1",
            "detector cfg_norm: option times must be ints separated by commas from 0, not '1,-1'.",
        ),
        ("cut=soon", "detector cfg_norm: option cut must be float or none, not 'soon'."),
        ("low=9", "detector cfg_norm: low=9 must not be above high=5"),
    ],
)
def test_mistakes_are_one_clear_line(setting: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        parse(setting)
    assert str(error.value) == told


def test_twice_is_refused() -> None:
    with pytest.raises(UserError, match="option steps is set twice"):
        parse("steps=1", "steps=2")


def test_a_type_that_options_cannot_have_is_the_authors_mistake() -> None:
    @dataclass(frozen=True)
    class Odd:
        table: dict = field(default_factory=dict)

    with pytest.raises(TypeError, match="dict"):
        parse_options(Odd, ["table=1"], owner="detector odd")


def test_description() -> None:
    told = {name: (kind, default, text) for name, kind, default, text in describe_options(Options)}
    assert list(told)[:3] == ["steps", "scale", "tiled"]  # as declared
    assert told["steps"] == ("int from 1 to 50", 10, "network evaluations")
    assert told["sampler"] == ("one of ddim, dpm", "ddim", "")
    assert told["cut"] == ("float or none", None, "")
    assert told["high"] == ("int", 5, "")


def test_imports_no_torch() -> None:
    code = (
        "import sys, membench.options; print([m for m in ('torch', 'numpy', 'pandas') if m in"
        " sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


@pytest.mark.parametrize("text", ["a,,b", ",a", "a,", ","])
def test_an_empty_item_of_a_list_of_texts_is_refused(text: str) -> None:
    @dataclass(frozen=True)
    class Named:
        names: tuple[str, ...] = field(default=(), metadata={"help": "names"})

    with pytest.raises(UserError, match="names must be strs separated by commas"):
        parse_options(Named, [f"names={text}"], owner="detector d")
    assert parse_options(Named, ["names="], owner="detector d").names == ()
