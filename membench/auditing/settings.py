"""What an audit is asked for."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

from membench.errors import UserError, suggest
from membench.models.loading import DTYPES

LONGEST = 100_000  # hours: eleven years
MOST_EVALUATIONS = 10**12
UNITS = {"s": 1 / 60, "m": 1, "min": 1, "h": 60}
COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


ATTACKS = Literal["random", "side"]
CHOICES = {
    "attack": get_args(ATTACKS),
    "similarity": ("auto", "l2", "sscd", "sscd-int8", "clip"),
    "dtype": DTYPES,
}
RANGES = {
    "draws": (1, 10_000),
    "steps": (0, 10_000),
    "guidance": (0, 1000),
    "seed": (0, 2**63 - 1),
    "batch_size": (0, 2**20),
}


def option_of(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def _wrong(name: str, value: Any, what: str) -> UserError:
    return UserError(f"{option_of(name)} {str(value)[:40]!r}: it must be {what}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | Path):
        raise _wrong(name, value, "a text")
    return str(value)


def _file(name: str, value: Any) -> Path:
    return Path(_text(name, value))


def _file_or_none(name: str, value: Any) -> Path | None:
    return None if value is None else _file(name, value)


def _number(name: str, value: Any, what: str = "a number") -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | Real):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise _wrong(name, value, what) from None


def _whole(name: str, value: Any) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # a float would round a large seed
    number = _number(name, value, "a whole number")
    if not number.is_integer():  # nor are infinities and NaN
        raise _wrong(name, value, "a whole number")
    return int(number)


def _yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _names(name: str, value: Any) -> tuple[str, ...]:
    """A text is what the command line takes: names between commas."""
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not all(isinstance(v, str) for v in several):
        raise _wrong(name, value, "names of detectors")
    if not several or not all(v.strip() for v in several):
        raise _wrong(name, value, "names of detectors")
    return tuple(v.strip() for v in several)


def _budget(name: str, value: Any) -> str:
    return str(_whole(name, value)) if isinstance(value, Real) else _text(name, value)


def _max_bad(name: str, value: Any) -> float:
    return parse_max_bad(value) if isinstance(value, str) else _number(name, value)


# From Python any type may come; what the command line takes as a text is taken as one
READ: Mapping[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("model", "mirror", "similarity", "similarity_weights"), _text),
    **dict.fromkeys(("attack", "device", "dtype"), _text),
    **dict.fromkeys(("captions", "unseen"), _file_or_none),
    **dict.fromkeys(("draws", "steps", "seed", "batch_size"), _whole),
    **dict.fromkeys(("unconditional", "enlarge"), _yes_or_no),
    "data": _file,
    "budget": _budget,
    "screen": _names,
    "guidance": _number,
    "max_bad": _max_bad,
}


@dataclass(frozen=True)
class Settings:
    """model, mirror: a folder or a hub id. data: a folder or an archive. captions:
    a table of file names and captions; None: what the data say. unseen: a file of
    captions that the model cannot have seen; None: made from the data's. budget:
    minutes (``10m``) or target evaluations (``100000``). screen: detectors by name.
    draws: images a caption. steps, guidance: of sampling; 0: those of the kind of
    model. unconditional: ask the empty prompt or the null class only. attack: of a model
    that is asked nothing, plain sampling or SIDE. enlarge: take data smaller than the
    model's images. max_bad: unreadable images and rows that are
    allowed, a share below 1 or a number. From Python, texts are taken as the command line takes
    them. Raises :class:`UserError` for another type, a number out of its range, and a name
    that there is none of.
    """

    model: str
    data: Path
    captions: Path | None = None
    mirror: str = ""
    unseen: Path | None = None
    budget: str = "10m"
    screen: tuple[str, ...] = ("cfg_norm",)
    similarity: str = "auto"
    similarity_weights: str = ""
    draws: int = 1
    steps: int = 0
    guidance: float = 0.0
    unconditional: bool = False
    attack: ATTACKS = "random"
    enlarge: bool = False
    max_bad: float = 0.01
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, READ[f.name](f.name, getattr(self, f.name)))
        parse_budget(self.budget)
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise UserError(f"{option_of(name)} {value[:40]}: choose from {', '.join(allowed)}")
        if not self.max_bad >= 0:  # NaN, too
            raise UserError(f"--max-bad {self.max_bad:g}: it must not be negative")
        for name, (low, high) in RANGES.items():
            if not low <= (value := getattr(self, name)) <= high:  # NaN lies nowhere
                raise UserError(f"{option_of(name)} {value:.6g}: it must be from {low} to {high:,}")

    @property
    def folder(self) -> Path:
        """Where an audit is written that names no folder. Of data in "." or "..", too,
        it has the folder's own name.
        """
        data, model = (os.path.basename(os.path.abspath(of)) for of in (self.data, self.model))
        return Path("results/audits") / f"{data}-{model}"


@dataclass(frozen=True)
class Budget:
    """One of the two is None."""

    minutes: float | None
    evaluations: int | None


def parse_budget(text: str) -> Budget:
    """``10m``, ``90s`` and ``2h`` are minutes, a whole number evaluations of the model.

    Raises :class:`UserError` for anything else.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", text.strip()):
        minutes = float(found[1]) * UNITS[found[2]]
        if 0 < minutes <= LONGEST * 60:
            return Budget(minutes, None)
    elif re.fullmatch(r"\d{1,13}", text.strip()) and 0 < int(text) <= MOST_EVALUATIONS:
        return Budget(None, int(text))
    raise UserError(
        f"--budget {text[:40]}: write a time, such as 10m or 2h, or a number of evaluations of the"
        " model, such as 100000"
    )


@dataclass(frozen=True)
class Limit:
    """A condition on the outcome, such as ``copies>0``."""

    name: str
    sign: str
    value: float

    def met(self, numbers: Mapping[str, float]) -> bool:
        """Whether the numbers of an audit meet it."""
        return bool(COMPARE[self.sign](numbers[self.name], self.value))


def parse_max_bad(text: str) -> float:
    """``1%`` as 0.01 (a share of the rows), a whole number as itself (rows).

    Raises :class:`UserError` for anything else.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip()):
        share = float(found[1]) / 100
        if share < 1:
            return share
        if share == 1:
            return float("inf")
    elif re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    raise UserError(f"--max-bad {text[:40]}: write a share, such as 1%, or a number of rows")


# The numbers of an audit that --fail-on may name
NUMBERS = {
    "copies": "training images that came back",
    "captions": "captions that returned one",
    "share": "share of random captions that returned one, in [0, 1]",
    "share_high": "upper end of its 95 % interval",
    "estimate": "training images that would come back, at least",
    "flagged": "captions that score above all unseen ones (of 199 and more, all but 1 %)",
}


def parse_limit(text: str) -> Limit:
    """``copies>0`` as a :class:`Limit`.

    Raises :class:`UserError` for another name, sign or number.
    """
    found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|==|>|<)\s*(\d+(?:\.\d+)?)\s*", text)
    if not found:
        raise UserError(f"--fail-on {text[:60]!r}: write NAME, a sign and a number: 'copies>0'")
    name, sign, value = found.groups()
    if name not in NUMBERS:
        raise UserError(
            f"--fail-on {text[:60]!r}: no number {name!r}.{suggest(name, NUMBERS)} There are"
            f" {', '.join(NUMBERS)}"
        )
    return Limit(name, sign, float(value))
