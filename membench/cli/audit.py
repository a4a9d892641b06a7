"""``membench audit``: which training images does a model give back?"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from membench import registry
from membench.cli.common import names_of, network, plugin
from membench.errors import UserError

HELP = "which training images your model gives back"
DESCRIPTION = (
    "Which training images does a model give back? Screens the captions, generates images for"
    " the suspicious ones and for controls, compares them with the training images, and judges"
    " what came back. The same command continues an audit that was stopped."
)
EXAMPLES = (
    "audit --model MODEL --data FOLDER --dry-run",
    "audit --model MODEL --data FOLDER --mirror OTHER --budget 30m --fail-on 'copies>0'",
)
FAILED = 3  # exit code where --fail-on is met


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to audit")
    what.add_argument(
        "--model",
        required=True,
        help="folder or hub id: Stable Diffusion 1.x, 2.x, XL or UNet2DModel",
    )
    what.add_argument(
        "--data", required=True, type=Path, metavar="FOLDER", help="the images it was trained on"
    )
    what.add_argument(
        "--captions", type=Path, metavar="FILE", help="table of file_name and text (CSV, JSON ...)"
    )
    what.add_argument(
        "--mirror",
        default="",
        metavar="MODEL",
        help="a control: a model of the same kind that never saw the data",
    )
    what.add_argument(
        "--unseen", type=Path, metavar="FILE", help="captions that the model cannot have seen"
    )
    what.add_argument(
        "--unconditional", action="store_true", help="ask the empty prompt or null class only"
    )
    what.add_argument(
        "--attack",
        default="random",
        choices=("random", "side"),
        help="of unconditional sampling: plain images (random), or SIDE, which trains a"
        " surrogate first (minutes)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--budget", default="10m", metavar="B", help="10m (default), 2h, or a number of evaluations"
    )
    how.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    how.add_argument(
        "--screen", default="cfg_norm", metavar="A,B", help="detectors that rank (default cfg_norm)"
    )
    how.add_argument(
        "--similarity",
        default="auto",
        choices=("auto", "l2", "sscd", "sscd-int8", "clip"),
        help="auto: pixels up to 128 pixels a side, else SSCD",
    )
    how.add_argument("--similarity-weights", default="", metavar="FILE", help="of SSCD or CLIP")
    how.add_argument(
        "--draws", type=int, default=1, metavar="N", help="images per caption (default 1)"
    )
    how.add_argument(
        "--steps",
        type=int,
        default=0,
        metavar="N",
        help="sampling steps (default: 10; for a model without captions 20)",
    )
    how.add_argument(
        "--guidance",
        type=float,
        default=0.0,
        metavar="W",
        help="guidance weight (default: 3; for a model without captions 1, which is none)",
    )
    how.add_argument(
        "--max-bad",
        default="1%",
        metavar="N",
        help="unreadable images allowed, a share or a number (default 1%%)",
    )
    how.add_argument("--enlarge", action="store_true", help="take images smaller than the model's")
    network(how)
    how.add_argument("--offline", action="store_true", help="never ask the network")
    how.add_argument("--quiet", action="store_true", help="no progress bars")
    plugin(how)
    out = parser.add_argument_group("what comes out")
    out.add_argument(
        "--output", type=Path, metavar="DIR", help="folder (default results/audits/DATA-MODEL)"
    )
    out.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="'copies>0'",
        help="exit with 3 where this holds (repeatable)",
    )


def call(args: argparse.Namespace) -> int:
    from membench.auditing.settings import Settings, parse_limit, parse_max_bad

    limits = [parse_limit(text) for text in args.fail_on]
    settings = Settings(
        model=args.model,
        data=args.data,
        captions=args.captions,
        mirror=args.mirror,
        unseen=args.unseen,
        budget=args.budget,
        screen=tuple(names_of(args.screen, registry.detectors(), "detector")),
        similarity=args.similarity,
        similarity_weights=args.similarity_weights,
        draws=args.draws,
        steps=args.steps,
        guidance=args.guidance,
        unconditional=args.unconditional,
        attack=args.attack,
        enlarge=args.enlarge,
        max_bad=parse_max_bad(args.max_bad),
        device=args.device,
        dtype=args.dtype,
        batch_size=args.batch_size,
    )
    from membench.api import run_audit
    from membench.plain import plain
    from membench.reports.lines import entry, folded, width

    folder = args.output or settings.folder
    found = run_audit(settings, folder, dry_run=args.dry_run, progress=not args.quiet)
    room = width()
    if args.dry_run:
        indent = max(len(what) for what, _ in found["plan"]) + 2
        for what, much in found["plan"]:
            print(entry(what, plain(much), room, indent))
        for line in found["not_judged"]:
            print("\n".join(folded(plain(f"not judged: {line}"), room)))
        return 0
    lines = [found["answer"], *found["sentences"]]
    lines += [f"not judged: {line}" for line in found["not_judged"]]
    for line in (*lines, f"page: {folder / 'report.html'}"):
        print("\n".join(folded(plain(line), room)))
    numbers = {k: math.nan if v is None else v for k, v in found["numbers"].items()}
    if absent := [x.name for x in limits if math.isnan(numbers[x.name])]:
        raise UserError(
            f"--fail-on {absent[0]}: this audit has no such number, for it asked no"
            f" {'unseen' if absent[0] == 'flagged' else 'random'} captions; choose copies, captions"
            " or estimate"
        )
    met = [f"{x.name}{x.sign}{x.value:g}" for x in limits if x.met(numbers)]
    if met:
        print(f"failed: {', '.join(met)}")
    return FAILED if met else 0
