"""What a pull request to the community board may hold: finished runs of one detector
that anybody can make again, on tasks as they ship.

Nothing of a run or of its detector's file is executed: runs are read as every board
reads them, and the file is hashed and parsed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from membench import registry
from membench.boards.source_file import read_source
from membench.boards.whole_pairs import board_of
from membench.errors import UserError
from membench.options import detector_options
from membench.runs.finished import Run, load
from membench.runs.stored import HELD, read_info
from membench.storage.hashing import json_hash

# Of a folder, a file and a branch; no separator, and no dot in front
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
# Task options that put a model or examples of one's own in place of the shipped ones
OWN = ("model", "models", "control_model", "prompts", "negatives", "data_root")
AGAIN = "and make the run again"


@dataclass(frozen=True)
class Submission:
    """Runs that keep the rules.

    runs: without PNG bytes; each ``path`` is ``<task>/<profile>/<detector>/<key>``, with
    nothing of the folder in which it lies. by: ``mirror`` for runs on both models of
    mirror pairs, else ``seeds``. source: the plug-in file's text; None of a detector
    that ships.
    """

    detector: str
    runs: Sequence[Run]
    by: Literal["mirror", "seeds"]
    source: bytes | None


def submission(paths: Sequence[Path], source: Path | None) -> Submission:
    """Reads run folders and the detector's file, and holds them against the rules.

    source: the plug-in file, where the detector is of one. Raises :class:`UserError`,
    in one line, for the first rule that is broken.
    """
    runs: dict[str, Run] = {}
    for path in paths:
        run = _read(path)
        key = run.info["key"]
        if key in runs:
            raise UserError(f"{runs[key].path} and {path} are one run (key {key}); name it once")
        runs[key] = run
    found = list(runs.values())
    name = _detector_of(found)
    for run in found:
        # What another run cannot mend comes first
        _check_task(run)
        _check_access(run)
        _check_whole(run)
        _check_commit(run)
    text = _source_of(found, source)
    by = board_of(found)
    places = [Path(run.info["task"], run.info["profile"], name, run.info["key"]) for run in found]
    return Submission(
        name, [replace(run, path=at) for run, at in zip(found, places, strict=True)], by, text
    )


def _read(path: Path) -> Run:
    """A run folder whose tables agree with one another and with its key; the PNG bytes
    are read, so that damage to them shows, and not kept.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; name run folders: results/runs/*/*/DETECTOR/*")
    if read_info(path).get("status") == "running":
        raise UserError(f"{path} has not ended; the command that began it continues it")
    return load(path)


def _detector_of(runs: Sequence[Run]) -> str:
    names = sorted({run.info["detector"] for run in runs})
    if len(names) > 1:
        raise UserError(
            f"these are runs of {len(names)} detectors ({', '.join(names[:3])}); submit one at a"
            " time"
        )
    if not NAME.fullmatch(names[0]):
        raise UserError(
            f"detector {names[0]!r} cannot name a folder; give it a name of letters, digits, _, -"
            f" and . {AGAIN}"
        )
    return str(names[0])


def _check_whole(run: Run) -> None:
    info = run.info
    if run.scores.empty:
        raise UserError(
            f"{run.path} has extracted images and scored nothing; make a run without --extract-only"
            " and --budget"
        )
    if failed := sum(info["failed"].values()):
        raise UserError(
            f"{run.path} is partial: {failed:,} examples or images have failed (its report says"
            f" why); mend that {AGAIN}"
        )
    if info["status"] != "complete":
        raise UserError(
            f"{run.path} is partial: {info['n_examples']:,} of {info['n_task_examples']:,}"
            " examples; make the run without --limit"
        )
    if not {0, 1} <= set(run.scores.label):
        raise UserError(
            f"{run.path} has no examples of both labels, so nothing ranks it; name the negatives by"
            f" --negatives {AGAIN}"
        )


def _check_commit(run: Run) -> None:
    """Of every session in which the run was made."""
    sessions = [run.info, *(s for s in run.info.get("earlier", ()) if "membench" in s)]
    for made in (session["membench"] for session in sessions):
        if not isinstance(made, dict) or not COMMIT.fullmatch(str(made.get("commit"))):
            raise UserError(
                f"{run.path} does not say which commit of membench made it, as of an installed"
                f" package; install a clone of the repository (pip install -e .) {AGAIN}"
            )
        if made.get("dirty") is not False:
            raise UserError(
                f"{run.path} was made by {made['commit'][:8]}+dirty, which nobody else has; commit"
                f" or stash your changes of membench, move the run away {AGAIN}"
            )


def _check_access(run: Run) -> None:
    for what, words in (("training_data", "training data"), ("labels", "labels")):
        if run.info["access"][what]:
            raise UserError(
                f"{run.path}: {run.info['detector']} declares that it sees {words}"
                f" (Access({what}=True)); the community board compares detectors that know the"
                " model and the example alone. Show it on a board of its own: membench leaderboard"
                " --push-to-hub OWNER/NAME"
            )


def _check_task(run: Run) -> None:
    info = run.info
    task, known = info["task"], registry.tasks()
    ships = task in known.names() and known.get(task).target.startswith("membench.")
    if own := [what for what in _plugin_code(run) if what.startswith(HELD)]:
        raise UserError(
            f"{run.path} holds {own[0].removeprefix(HELD)}, a detector of your own; submit that one"
            " first, for the community board holds what ships inside another"
        )
    if not ships or "task" in _plugin_code(run):
        raise UserError(
            f"{run.path} is of task {task}, which does not ship with membench; the community board"
            " holds shipped tasks. See: membench list tasks"
        )
    cls = known.load(task)
    if (version := cls.info.version) != info["task_version"]:
        raise UserError(
            f"{run.path} is of version {info['task_version']} of {task}, and this is version"
            f" {version}; make the run again with this membench"
        )
    if info["profile"] not in cls.info.profiles:
        raise UserError(f"{run.path}: {task} has no profile {info['profile']}; {_profiles(cls)}")
    passed = [option.partition("=")[0] for option in info["task_options_passed"]]
    if odd := [name for name in passed if name not in {f.name for f in fields(cls.Options)}]:
        raise UserError(f"{run.path} is edited: {task} has no option {odd[0]}; delete it {AGAIN}")
    if info["profile"] == "mini" and (own := [name for name in OWN if name in passed]):
        raise UserError(
            f"{run.path} was made with {own[0]} of its own; on the mini profile the community"
            f" board holds the shipped models and examples: leave {own[0]} out {AGAIN}"
        )


def _profiles(cls: Any) -> str:
    return f"choose from {', '.join(cls.info.profiles)}"


def _plugin_code(run: Run) -> dict[str, Any]:
    """Hashes of the files of a plug-in, by "detector" and "task"."""
    code = run.info["key_parts"].get("plugin_code", {})
    if not isinstance(code, dict) or not all(isinstance(of, str) for of in code.values()):
        raise UserError(f"{run.path} is edited: its plugin_code is no hash; delete it {AGAIN}")
    return code


def _source_of(runs: Sequence[Run], source: Path | None) -> bytes | None:
    """The file of a plug-in, whose hash stands in every run's key; None of a detector
    that ships, whose version does.
    """
    name, known = runs[0].info["detector"], registry.detectors()
    ships = name in known.names() and known.get(name).target.startswith("membench.")
    for run in runs:
        if ships == ("detector" in _plugin_code(run)):
            raise UserError(
                f"{run.path}: {name} is a detector of membench, and this run is of another of that"
                f" name; give it a name of its own {AGAIN}"
                if ships
                else f"{run.path}: {name} does not ship with this membench, and the run names no"
                f" file that it is of; load it by --plugin FILE.py {AGAIN}"
            )
    if ships:
        if source is not None:
            raise UserError(f"{name} ships with membench; leave --source {source} out")
        for run in runs:
            _check_shipped(run)
        return None
    if source is None:
        raise UserError(f"{name} is a detector of your own; give its file: --source FILE.py")
    text = read_source(source)
    ran = hashlib.sha256(text).hexdigest()
    for run in runs:
        if (wanted := _plugin_code(run)["detector"]) != ran:
            raise UserError(
                f"{source} is not the file that made {run.path}: its SHA-256 is {ran[:12]}…, not"
                f" {wanted[:12]}…; give the file as it was, or make the run again with this one"
            )
    return text


def _check_shipped(run: Run) -> None:
    """That the detector is at its present version, and that the options which were
    passed, from which the run is made again, are those that it had.
    """
    info = run.info
    cls = registry.detectors().load(info["detector"])
    if (version := info["key_parts"]["detector_version"]) != cls.version:
        raise UserError(
            f"{run.path} is of version {version} of {info['detector']}, and this is version"
            f" {cls.version}; make the run again with this membench"
        )
    held = info["key_parts"].get("holds", {})
    if not isinstance(held, dict) or not all(isinstance(of, dict) for of in held.values()):
        raise UserError(f"{run.path} is edited: what it holds is no detector; delete it {AGAIN}")
    for name, of in held.items():
        now = registry.detectors().load(name).version
        if of.get("version") != now:
            raise UserError(
                f"{run.path} holds version {of.get('version')} of {name}, and this is version"
                f" {now}; make the run again with this membench"
            )
    options = detector_options(
        info["detector"], cls, info["options_passed"], info.get("preset"), info["profile"]
    )
    if json_hash(asdict(options)) != json_hash(info["options"]):
        raise UserError(
            f"{run.path} is edited: the options that it says were passed are not those that it ran"
            f" with; delete it {AGAIN}"
        )
