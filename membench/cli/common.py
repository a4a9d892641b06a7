"""What commands share: the parser, arguments, and lists of names, seeds and settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from membench import registry
from membench.errors import UserError, listed, suggest
from membench.runs.places import RUNS

if TYPE_CHECKING:
    from membench.runs.executor import Executor

FORMATS = ("table", "md", "latex", "csv", "json", "parquet")
# Of a file of each; of other endings nobody can say what is meant
ENDINGS = {"": "table", ".txt": "table", ".tex": "latex"} | {f".{of}": of for of in FORMATS[1:]}
DTYPES = ("float32", "float16", "bfloat16")
# Arguments that are options of the task, under the same name.
TASK_FLAGS = ("model", "prompts", "negatives", "data_root")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line that names the command's help, and whose
    options are written out.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **given})

    def options(self) -> list[str]:
        """Every option, such as ``--runs``."""
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        stop = "" if message.endswith("?") else "."
        raise UserError(f"{message}{stop} See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse's, and with the nearest choice."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if near := suggest(str(value), map(str, action.choices or ())):
                error.message = f"{error.message}.{near}"
            raise


# ---------------------------------------------------------------------------- arguments


def what_to_run(parser: argparse.ArgumentParser, *, control: str) -> argparse._ArgumentGroup:
    """The arguments of a command that makes runs: which model, data, examples and
    options.
    """
    what = parser.add_argument_group("what to run")
    what.add_argument("--profile", default="mini", help="mini (default): ships with membench")
    what.add_argument("--preset", metavar="NAME", help="a named set of options (membench show)")
    what.add_argument("--control", action="store_true", help=control)
    what.add_argument(
        "--limit", type=int, metavar="N", help="only N examples; marks the run PARTIAL"
    )
    what.add_argument("--extract-only", action="store_true", help="extract images, score nothing")
    what.add_argument(
        "--budget",
        type=int,
        metavar="N",
        help="stop extracting at N evaluations of the model, preparation included; no scores",
    )
    given = parser.add_argument_group("your own model and data")
    assets(given)
    given.add_argument("--data-root", help="folder of the real data set (--profile full)")
    given.add_argument("--offline", action="store_true", help="never ask the network")
    plugin(given)
    return what


def how_to_run(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The arguments that change how long a run takes and where it is kept, and no
    number beyond rounding (but --dtype).
    """
    how = parser.add_argument_group("how to run it")
    how.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help=f"folder of runs (default {RUNS})"
    )
    network(how)
    how.add_argument(
        "--compile", action="store_true", help="torch.compile the network: for long runs on a GPU"
    )
    return how


def network(how: Any) -> None:
    """Where the network computes, in what, and how many images at once."""
    how.add_argument(
        "--device",
        default="auto",
        help="auto (default): cuda, else mps, else cpu; or one of them, such as cuda:1",
    )
    how.add_argument("--dtype", default="float32", choices=DTYPES)
    how.add_argument(
        "--batch-size",
        type=images_at_once,
        default=0,
        metavar="N",
        help="images through the network at once; auto (default): what fits",
    )


def as_data(parser: Any) -> None:
    """``--format json`` of a command that prints text."""
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: the same as data"
    )


def settings(parser: Any, help: str) -> None:
    parser.add_argument(
        "--set", dest="options", action="append", default=[], metavar="K=V", help=help
    )


def log(how: Any) -> None:
    """``--log``: a tracker of long work."""
    how.add_argument(
        "--log",
        choices=("tensorboard", "wandb", "mlflow"),
        help="report the numbers to a tracker as they are made (needs the extra of that name)",
    )


def assets(parser: Any) -> None:
    """What a task may be told to use in place of its own."""
    parser.add_argument(
        "--model", help="folder, hub id or ID@REVISION of a model of the task's kind"
    )
    parser.add_argument("--prompts", metavar="A,B", help="files or names of prompt sets")
    parser.add_argument(
        "--negatives",
        metavar="A,B",
        help="files or names of sets of prompts that are not memorized",
    )


def plugin(parser: Any) -> None:
    parser.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.py",
        help="a file of your own detectors or tasks (repeatable)",
    )


def finished_runs(parser: argparse.ArgumentParser, runs: str) -> None:
    """The arguments of a command that reads finished runs. runs: what it may be given
    as such.
    """
    which = parser.add_argument_group("which runs")
    which.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[RUNS],
        metavar="DIR",
        help=f"{runs} (default {RUNS})",
    )
    which.add_argument("--task", metavar="A,B", help="only these tasks")
    which.add_argument("--detector", metavar="A,B", help="only these detectors")
    which.add_argument(
        "--keep-going", action="store_true", help="exit 0 although a run could not be read"
    )
    stored = parser.add_argument_group("other thresholds and intervals, from stored numbers")
    stored.add_argument(
        "--band",
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="other bands of similarity (repeatable)",
    )
    stored.add_argument("--copy", type=float, metavar="X", help="another threshold of a copy")
    stored.add_argument(
        "--groups",
        default="task",
        metavar="HOW",
        help="what intervals resample: task (default), text, image, text+image",
    )


def images_at_once(text: str) -> int:
    """The number of ``--batch-size``; ``auto`` is 0."""
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:20]) <= 2**20:
        raise UserError(
            f"--batch-size {text[:40]}: it must be auto or a number from 1 to {2**20:,}"
        )
    return int(text)


# ------------------------------------------------------------ names, seeds and settings


def seeds_of(text: str) -> list[int]:
    """``0,1,2`` as numbers.

    Raises :class:`UserError` for a list of seeds that is not one.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(w.isascii() and w.isdecimal() and len(w) <= 18 for w in words) or len(
        set(map(int, words))
    ) < len(words):
        raise UserError(
            f"--seeds {text[:60]!r}: it must be different whole numbers of up to 18 digits with"
            " commas between, such as 0,1,2"
        )
    return [int(word) for word in words]


def names_of(text: str, known: registry.Registry, kind: str) -> list[str]:
    """The names of a comma-separated list, or all of them.

    Raises :class:`UserError` for an unknown one.
    """
    names = known.names() if text == "all" else list(dict.fromkeys(listed(text, f"--{kind}")))
    for name in names:
        known.get(name)
    return names


def own_settings(
    given: Sequence[str], name: str, names: Sequence[str], *, unscoped: bool = True
) -> list[str]:
    """The settings of one detector, or of the task: ``key=value`` is for all detectors,
    ``name.key=value`` for one name.
    """
    mine = []
    for setting in given:
        owner, dot, rest = setting.partition(".")
        scoped = bool(dot) and "=" not in owner
        if scoped and owner not in names:
            raise UserError(
                f"--set {setting}: {owner!r} is not a name of this run ({', '.join(names)})"
            )
        if owner == name if scoped else unscoped:
            mine.append(rest if scoped else setting)
    return mine


def task_settings(args: argparse.Namespace, task: str, names: Sequence[str]) -> list[str]:
    """Settings of a task. Raises :class:`UserError` for a flag that it does not take."""
    from membench.options import describe_options

    known = {row.name for row in describe_options(registry.tasks().load(task).Options)}
    given = []
    for key in TASK_FLAGS:
        if (value := getattr(args, key, None)) is None:
            continue
        if key not in known:
            flag = f"--{key.replace('_', '-')}"
            raise UserError(f"task {task} takes no {flag}. See: membench show {task}")
        given.append(f"{key}={value}")
    return given + own_settings(args.options, task, names, unscoped=False)


def presets_of(preset: str | None, classes: Mapping[str, Any]) -> dict[str, str | None]:
    """The preset of each detector: of those that have it, or, where none has, of all,
    so that the first is refused.
    """
    owners = [name for name, of in classes.items() if preset in of.presets] or list(classes)
    return {name: preset if name in owners else None for name in classes}


def tracker_of(kind: str | None, folder: Path, what: str) -> AbstractContextManager[Any]:
    """What ``--log`` names (a ``types.Tracker``), until the work ends; None: nothing was
    asked for.

    Raises :class:`UserError` where its package is missing.
    """
    if kind is None:
        return nullcontext()
    from membench.storage.trackers import open_tracker

    return closing(open_tracker(kind, folder, what))


def executor_of(args: argparse.Namespace) -> AbstractContextManager[Executor | None]:
    """Who computes the shards; None: this process.

    Raises :class:`UserError` for options of an executor that was not chosen.
    """
    if args.executor == "local":
        if given := [
            f"--{name}" for name in ("workers", "address") if getattr(args, name) is not None
        ]:
            raise UserError(f"{given[0]} is for --executor ray; add that, or leave {given[0]} out")
        return nullcontext()
    from membench.runs.ray_pool import RayPool

    return RayPool(args.workers, address=args.address, device=args.device, plugins=args.plugin)
