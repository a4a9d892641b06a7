"""The views of a leaderboard (``--by``), and the columns of each: type, unit and what
it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from membench.metrics.names import COPIES, DETECTION, INFO, NUMBERS, RARE

Kind = Literal["text", "flag", "whole", "real", "count"]


@dataclass(frozen=True)
class Column:
    """A column. unit: empty for one without. empty: whether a value may be missing."""

    kind: Kind
    unit: str
    about: str
    empty: bool = False


def _text(about: str, empty: bool = False) -> Column:
    return Column("text", "", about, empty)


def real(unit: str, about: str) -> Column:
    """A number, which may be missing."""
    return Column("real", unit, about, True)


def _count(unit: str, about: str) -> Column:
    return Column("count", unit, about, True)


def _interval(name: str, unit: str, about: str) -> dict[str, Column]:
    ends = {"low": "lower end of the 95 % interval", "high": "upper end of the 95 % interval"}
    return {name: real(unit, about)} | {
        f"{name}_{end}": real(unit, f"{text} of {name}") for end, text in ends.items()
    }


IDENTITY = {
    "task": _text("task"),
    "task_version": Column("whole", "", "version of the task: it changes where its numbers would"),
    "profile": _text("mini, or full: the published model and data"),
    "control": Column("flag", "", "whether the model is the control, which never saw the examples"),
    "data": _text("hash of the training images"),
    "prompts": _text("hash of the prompts"),
    "examples": _text("hash of the example ids"),
    "weights": _text("hash of the model's weights"),
    "dtype": _text("precision of the network"),
    "space": _text("hash of the similarity, its bands and its copy threshold"),
}

SETTING = {
    "detector": _text("detector"),
    "options": _text("what was asked for beside the defaults: preset, budget, key=value"),
    "settings": _text("hash of all that changes the numbers, but the seed", empty=True),
    "space_id": _text("similarity, by name", empty=True),
    "status": _text("complete, or partial: not every example was run, or some have failed"),
}

OF_SEEDS = {
    "seeds": Column("whole", "seeds", "how many seeds the row is a mean of"),
    "seed_list": _text("these seeds", empty=True),
    "deterministic": Column(
        "flag", "", "whether each of several seeds gives every example the same score"
    ),
}

OF_RUN = {
    "seed": Column("whole", "", "seed of the run"),
    "run": _text("folder of the run", empty=True),
}

ABOUT = {
    "model": _text(
        "model: a hub id, or a folder's last part; shipped: the one that comes with membench",
        empty=True,
    ),
    "data_name": _text("name of the data or prompt sets", empty=True),
    "bands": _text("bands of similarity: JSON of name: [from, to]", empty=True),
    "resolved": _text("options that the run resolved to: JSON", empty=True),
    "extract_only": Column("flag", "", "whether images were extracted and no example was scored"),
    "budget": _count(
        "evaluations", "the most evaluations that preparation and extraction were allowed"
    ),
    "sees": _text("what the detector sees beside the model's outputs"),
    "pair": _text("hash that a run shares with the same run on the control model", empty=True),
    "pair_settings": _text("the same without the seed", empty=True),
    "control_command": _text("command that makes the missing control run", empty=True),
    "commit": _text("commits of membench that made the runs"),
    "dirty": Column("flag", "", "whether membench had uncommitted changes"),
}

COUNTS = {
    "of": Column("whole", "examples", "examples of the task"),
    "scored": _count("examples", "examples with a score"),
    "positives": _count("examples", "memorized examples with a score"),
    "negatives": _count("examples", "examples that are not memorized, with a score"),
    "unlabelled": _count(
        "examples", "examples with a score of which nothing says whether they are memorized"
    ),
    "n_g": _count("images", "images extracted (N_G)"),
    "n_ok": _count("images", "those that did not fail: what AMS and UMS are shares of"),
    "unique_copies": _count(
        "training images", "different training images that are the nearest of a copy"
    ),
}

COSTS = {
    **{
        f"{what}_per_example": real("an example", f"{text} of scoring")
        for what, text in (
            ("forwards", "evaluations of the network"),
            ("jvps", "Jacobian-vector products"),
            ("decodes", "decoder passes"),
            ("encodes", "encoder passes"),
        )
    },
    "forwards_per_image": real("evaluations", "evaluations of the network an extracted image"),
    "prepare_forwards": _count("evaluations", "evaluations of the network in preparation"),
    "prepare_evaluations": _count(
        "evaluations", "the same, a Jacobian-vector product counted as one"
    ),
    "sample_forwards": _count("evaluations", "evaluations of the network for extracting images"),
    "sample_evaluations": _count(
        "evaluations", "the same, a Jacobian-vector product counted as one"
    ),
    "backwards": _count("passes", "backward passes"),
    "jvps": _count("products", "Jacobian-vector products"),
    "surrogate_forwards": _count(
        "evaluations", "evaluations of networks that the detector trains itself"
    ),
    "surrogate_backwards": _count("passes", "backward passes of these"),
    "seconds": real("s", "wall-clock time, all sessions"),
}

EQUAL_TERMS = {
    "equal_n": _count(
        "images", "smallest number of images among the board's complete runs, where there are any"
    ),
    "copied_at_equal_n": real(
        "training images", "different training images copied by that many images (rarefaction)"
    ),
    "equal_cost": _count("evaluations", "cost of the cheapest of these runs"),
    "images_at_equal_cost": _count("images", "how many images this cost pays for"),
    "copied_at_equal_cost": real(
        "training images", "different training images copied by these (rarefaction)"
    ),
    "equal_cost_capped": Column(
        "flag", "", "whether the cost pays for more images than the run has: a lower bound"
    ),
}

CAPTIONS = {
    "captions_auroc": real(
        "", "AUROC of the best of three scores of captions alone, on the board's prompts"
    ),
    "captions_low": real("", "lower end of its 95 % interval"),
    "captions_high": real("", "upper end of its 95 % interval"),
    "captions_by": _text("the control detector that reaches it", empty=True),
}

CONTROL = {
    "control_weights": _text("hash of the control model's weights", empty=True),
    "control_status": _text("status of the run on the control model", empty=True),
    "control_seeds": Column("whole", "seeds", "how many seeds the control has"),
    **_interval("control_auroc", "", "AUROC on the control model"),
    **_interval("control_ams", "share", "AMS of copies on the control model"),
    **_interval("control_ums", "share", "UMS of copies on the control model"),
    **_interval("excess_ams", "share", "AMS of copies less that of the control"),
    **_interval("excess_ums", "share", "UMS of copies less that of the control"),
}


def _of_metrics() -> dict[str, Column]:
    found: dict[str, Column] = {}
    for name in (*DETECTION, *RARE, *COPIES, *NUMBERS):
        info = INFO[name]
        found |= _interval(name, "share" if info.title.endswith("%") else "", info.about)
        found[f"{name}_seeds"] = Column("whole", "seeds", f"how many seeds have {name}")
    return found


METRIC_COLUMNS = _of_metrics()

BOARD_COLUMNS: dict[str, Column] = {
    **IDENTITY,
    **SETTING,
    "kind": _text(
        "kind of memorized example, against negatives of that kind, or against all where it has"
        " none; all: every kind"
    ),
    "source": _text("source of the examples that are not memorized; all: every source"),
    **OF_RUN,
    **OF_SEEDS,
    **METRIC_COLUMNS,
    **CONTROL,
    **CAPTIONS,
    **COUNTS,
    **EQUAL_TERMS,
    **COSTS,
    **ABOUT,
    "reported_source": _text("which paper reports the number beside it", empty=True),
}

BAND_COLUMNS = {
    **IDENTITY,
    **SETTING,
    **OF_RUN,
    "band": _text("band of similarity; empty: copies"),
    "form": _text("banded: in the band; cumulative: up to its far edge"),
    "edge": real("similarity or distance", "that edge, of a cumulative row"),
    "n": Column("whole", "images", "images that did not fail"),
    **{
        k: v
        for name in ("ams", "ums", "ums_nearest")
        for k, v in _interval(name, "share", INFO[name].about).items()
    },
}

DIFFERENCE_COLUMNS = {
    **IDENTITY,
    "metric": _text("metric that is compared"),
    "a": _text("the better detector"),
    "a_options": _text("its options"),
    "b": _text("the other detector"),
    "b_options": _text("its options"),
    "difference": real("", "metric of a less that of b, means over seeds"),
    "low": real("", "lower end of the 95 % interval over groups and seeds"),
    "high": real("", "upper end of the 95 % interval over groups and seeds"),
    "p": real("", "two-sided p of no difference"),
    "p_holm": real("", "p adjusted by Holm for all pairs of the board and metric"),
    "n": Column("whole", "examples", "examples that both have scored"),
    "seeds": Column("whole", "seeds", "seeds that both have"),
    "a_status": _text("status of the runs of a"),
    "b_status": _text("status of the runs of b"),
    "deterministic": Column("flag", "", "whether each of several seeds gives both the same scores"),
}

PUBLISHED_COLUMNS = {
    "paper": _text("who published the number"),
    "model": _text("model"),
    "data": _text("training set, or prompts and their negatives"),
    "detector": _text("detector"),
    "options": _text("what the source states; ?: it leaves it open"),
    "metric": _text("metrics of the cell"),
    "reported": _text("published numbers"),
    "measured": _text("numbers of the runs of the same setting"),
    "verdict": _text(
        "reproduced, not reproduced, or cannot be judged and why; empty: no run of the detector",
        empty=True,
    ),
    "source": _text("where it was published"),
    "evidence": _text("what was read: paper, code or data, computed, third party"),
    "note": _text("what a reader must know"),
}

MIRROR_COLUMNS = {
    **IDENTITY,
    "detector": SETTING["detector"],
    "options": SETTING["options"],
    "space_id": SETTING["space_id"],
    "status": SETTING["status"],
    "kind": _text(
        "kind of example, of one half against the same kind of the other; all: every kind"
    ),
    **_interval("mirrored", "", "mean AUROC of the two models of a mirror pair"),
    "auroc_a": real("", "AUROC of the model of half a, whose images are the memorized ones"),
    "auroc_b": real("", "AUROC of the model of half b, whose images are the memorized ones"),
    "mirrored_tpr": real("", "TPR at 1 % FPR, mean of the two models"),
    "n": Column("whole", "examples", "examples of both halves that every run has scored"),
    "seeds": Column("whole", "seeds", "seeds that both models have"),
    "evaluations_per_example": real("evaluations", "forwards and JVPs of an example, mean"),
}

WORLD_COLUMNS = {
    **{
        name: replace(MIRROR_COLUMNS[name], about=f"{MIRROR_COLUMNS[name].about}, of all worlds")
        if name in ("data", "prompts", "examples", "weights")
        else MIRROR_COLUMNS[name]
        for name in (*IDENTITY, "detector", "options", "space_id", "status", "kind")
    },
    "world_list": _text("numbers of the worlds"),
    "trainings": Column("whole", "trainings", "models of these worlds, two each"),
    **_interval("mirrored", "", "mean AUROC of the trainings, each on its own world"),
    "lowest": real("", "AUROC of the training with the lowest"),
    "highest": real("", "AUROC of the training with the highest"),
    **_interval(
        "behind", "", "paired difference of the best setting's mean AUROC and this; empty: the best"
    ),
    "mirrored_tpr": real("", "TPR at 1 % FPR, mean of the trainings"),
    "n": Column("whole", "examples", "examples of all worlds that every run has scored"),
    "seeds": Column("whole", "seeds", "seeds that every training has"),
    "evaluations_per_example": MIRROR_COLUMNS["evaluations_per_example"],
}

EXAMPLE_COLUMNS = {
    **IDENTITY,
    "detector": SETTING["detector"],
    "options": SETTING["options"],
    "seed": OF_RUN["seed"],
    "status": SETTING["status"],
    "run": OF_RUN["run"],
    "example": _text("id of the example"),
    "kind": _text("how the example was planted, or what published it"),
    "group": _text("near-duplicate examples, which are resampled together"),
    "source": _text("where the example is from: a half, a prompt set"),
    "prompt": _text("caption", empty=True),
    "label": Column("whole", "", "1 memorized, 0 not, -1 nothing says"),
    "score": real("", "higher is more memorized; missing where it failed"),
    "png_bits": real("bits", "size of the PNG of the example or of its extracted images"),
    "score_status": _text("ok, or failed"),
}

TABLES = {
    "mirror": MIRROR_COLUMNS,
    "worlds": WORLD_COLUMNS,
    "run, seeds, attack, kind, source and summary": BOARD_COLUMNS,
    "band": BAND_COLUMNS,
    "example": EXAMPLE_COLUMNS,
    "difference": DIFFERENCE_COLUMNS,
    "published": PUBLISHED_COLUMNS,
}
