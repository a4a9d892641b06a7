"""The arguments of each command. Imports nothing heavy: ``--help`` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from membench import __version__
from membench.errors import UserError

FORMATS = ("table", "md", "csv", "json", "parquet")
DTYPES = ("float32", "float16", "bfloat16")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, with the closest names."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See: {self.prog} --help")


def parser() -> Parser:
    top = Parser(prog="membench", description="What has a diffusion model memorized, and which detector tells?")
    top.add_argument("--version", action="version", version=f"membench {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    run = commands.add_parser("run", help="run detectors on a task", description="Run detectors on a task and write Parquet.")
    run.add_argument("--detector", metavar="A,B", help="names, or 'all' (membench list detectors)")
    run.add_argument("--task", metavar="A,B", help="names, or 'all' (membench list tasks)")
    run.add_argument(
        "--set",
        dest="options",
        action="append",
        default=[],
        metavar="K=V",
        help="an option, [DETECTOR.]KEY=VALUE or TASK.KEY=VALUE (membench show)",
    )
    run.add_argument("--control", action="store_true", help="against the control model, which never saw the task's training images")
    one_or_more = run.add_mutually_exclusive_group()
    one_or_more.add_argument("--seed", type=int, default=0, help="every noise is a function of it (default 0)")
    one_or_more.add_argument("--seeds", metavar="N,N", help="several seeds, one after the other, in place of --seed")
    run.add_argument("--budget", type=int, metavar="N", help="stop extracting at N target evaluations, preparation included; no scores")
    run.add_argument("--executor", choices=("local", "ray"), default="local", help="ray: several processes, GPUs or machines")
    run.add_argument("--workers", type=int, metavar="N", help="of --executor ray (default: one a GPU, or as the cores have room for)")
    run.add_argument("--address", metavar="HOST:PORT", help="of a running Ray cluster, or auto; all its machines must share --out")
    _runs(run)

    ablate = commands.add_parser(
        "ablate",
        help="sweep thresholds of AMS and UMS, or options of a detector",
        description="Plot AMS and UMS against their thresholds (several detectors), or against options of one detector (--sweep).",
    )
    ablate.add_argument("--detector", required=True, metavar="A,B", help="names; with --sweep one (membench list detectors)")
    ablate.add_argument("--task", required=True, help="a name (membench list tasks)")
    ablate.add_argument(
        "--sweep", action="append", default=[], metavar="K=V,V", help="an option and its values; several --sweep give their full grid"
    )
    ablate.add_argument(
        "--thresholds", metavar="GRID", help="auto (default), LOW:HIGH:N or X,X,X: thresholds of AMS and UMS, where nothing else is swept"
    )
    ablate.add_argument("--set", dest="options", action="append", default=[], metavar="K=V", help="an option, the same at every point")
    ablate.add_argument("--seeds", default="0", metavar="N,N", help="each point with each seed (default 0)")
    ablate.add_argument("--control", action="store_true", help="each point on the control model too")
    ablate.add_argument("--budget", type=int, metavar="N", help="stop extracting at N target evaluations, preparation included; no scores")
    ablate.add_argument(
        "--save",
        type=Path,
        metavar="NAME",
        help="NAME.parquet, .png and .svg (default results/ablations/<task>-<detector>-<what is swept>)",
    )
    _runs(ablate)

    lister = commands.add_parser("list", help="names of detectors and tasks")
    lister.add_argument("what", nargs="?", choices=("detectors", "tasks"))
    _plugin(lister)

    show = commands.add_parser("show", help="a detector's or task's options and source")
    show.add_argument("name")
    _plugin(show)

    train = commands.add_parser("train", help="train a task's mini models", description="Train a task's mini models, or go on training.")
    train.add_argument("task")
    train.add_argument("--profile", default="mini")
    train.add_argument("--part", action="append", help="only this part (repeatable; default: all, in order)")
    train.add_argument("--data-root", help="folder of the real data set (--profile full)")
    train.add_argument("--subset", type=int, metavar="N", help="train on N of its images (--profile full)")
    train.add_argument("--duplicate", metavar="FRACTION:TIMES", help="show this share of them more often (--profile full)")
    train.add_argument("--labels", metavar="KIND", help="what the model is told: class, random, cluster or none (--profile full)")
    train.add_argument("--world", type=int, metavar="N", help="the mirror pair that generator seed N draws (0: the development world)")
    train.add_argument("--device", help="cpu, cuda, cuda:1 ...")
    train.add_argument("--out", type=Path, default=Path("work"), help="checkpoints and models (default ./work)")
    train.add_argument("--threads", type=int, help="CPU threads")
    train.add_argument("--set", dest="options", action="append", default=[], metavar="KEY=VALUE", help="a number of the recipe")
    train.add_argument("--quiet", action="store_true")

    download = commands.add_parser(
        "download",
        help="fetch what a task needs and does not ship",
        description="Fetch the models, prompt sets and weights of a task, checked and resumed; what is here is left as it is.",
    )
    download.add_argument("task", help="a name (membench list tasks)")
    _assets(download)
    download.add_argument("--images", action="store_true", help="the ground-truth images of the prompts, too")
    download.add_argument(
        "--set", dest="options", action="append", default=[], metavar="TASK.K=V", help="an option of the task (membench show)"
    )
    download.add_argument("--offline", action="store_true", help="fetch nothing: say what is here and what is missing")

    board = commands.add_parser("leaderboard", help="tables of the runs so far")
    _finished(board)
    board.add_argument("--format", choices=FORMATS, default="table")
    board.add_argument("--out", type=Path, help="write to a file (needed for parquet)")
    board.add_argument(
        "--seeds", action="store_true", help="one row for the runs that differ in the seed alone: intervals over groups and seeds"
    )
    what = board.add_mutually_exclusive_group()
    what.add_argument("--kinds", action="store_true", help="detection of each kind of memorized example, over seeds")
    what.add_argument("--sources", action="store_true", help="detection against each source of examples that are not memorized, over seeds")
    what.add_argument("--bands", action="store_true", help="AMS and UMS in each band of similarity")
    what.add_argument("--differences", action="store_true", help="paired differences between detectors, corrected for their number")
    what.add_argument("--published", action="store_true", help="the papers' numbers beside these")
    what.add_argument("--summary", action="store_true", help="one small table: a row a detector, a column a task")

    report = commands.add_parser("report", help="a page about the runs so far", description="Write a page about the runs, with plots.")
    _finished(report)
    report.add_argument("--out", type=Path, default=Path("results/report"), help="folder (default results/report)")
    report.add_argument("--format", choices=("html", "md"), default="html", help="md: print the tables as Markdown, too")

    commands.add_parser("doctor", help="what is installed, which device, which tasks' data and weights are there")
    return top


def _finished(sub: argparse.ArgumentParser) -> None:
    """What every command that reads finished runs takes."""
    sub.add_argument(
        "--runs", type=Path, nargs="+", default=[Path("results/runs")], metavar="PATH", help="folders of runs (default results/runs)"
    )
    sub.add_argument("--task", metavar="A,B", help="only these tasks")
    sub.add_argument("--detector", metavar="A,B", help="only these detectors")
    sub.add_argument("--band", action="append", default=[], metavar="NAME=LOW:HIGH", help="other bands of similarity (repeatable)")
    sub.add_argument("--copy", type=float, metavar="X", help="another threshold of a copy")
    sub.add_argument("--groups", default="task", metavar="HOW", help="what intervals resample: task (default), text, image, text+image")
    sub.add_argument("--keep-going", action="store_true", help="exit 0 although a run could not be read")


def _runs(sub: argparse.ArgumentParser) -> None:
    """What every command that makes runs takes."""
    sub.add_argument("--profile", default="mini", help="mini (default): ships with membench")
    sub.add_argument("--preset", metavar="NAME", help="a named set of the detector's options, such as paper (membench show)")
    _assets(sub)
    sub.add_argument("--data-root", help="folder of the real data set (--profile full)")
    sub.add_argument("--limit", type=int, metavar="N", help="only N examples; the run is marked as partial")
    sub.add_argument("--extract-only", action="store_true", help="extract images, score no examples")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    sub.add_argument("--dtype", default="float32", choices=DTYPES)
    sub.add_argument(
        "--batch-size", type=_images, default=0, metavar="N", help="images through the network at once; auto (default): what fits"
    )
    sub.add_argument("--compile", action="store_true", help="torch.compile the network: worth its minutes on a long run on a GPU")
    sub.add_argument("--out", type=Path, default=Path("results/runs"), help="where run folders go (default results/runs)")
    sub.add_argument("--offline", action="store_true", help="never ask the network")
    sub.add_argument("--quiet", action="store_true", help="no progress bars")
    _plugin(sub)


def _images(text: str) -> int:
    """``auto`` is 0."""
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"batch size {text}: it must be auto or a number of at least 1")
    return int(text)


def _assets(sub: argparse.ArgumentParser) -> None:
    """What a task may be told to use in place of its own."""
    sub.add_argument("--model", help="folder, hub id or ID@REVISION of a model of the task's kind, in place of the task's own")
    sub.add_argument("--prompts", metavar="A,B", help="files or names of sets of prompts, in place of the task's own")
    sub.add_argument("--negatives", metavar="A,B", help="files or names of sets of prompts that are not memorized")


def _plugin(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="a file with a detector of your own")
