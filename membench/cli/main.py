"""``membench``: a thin layer over the Python interface. A command's modules are imported when it is called.

stdout is data, stderr is talk. A user's mistake is one line on stderr (a list of what is missing: a line each) and exit code 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence

from membench import __version__, registry
from membench.cli import ablate, doctor, download, leaderboard, names, reference, report, run, show, train
from membench.cli.common import Parser
from membench.errors import UserError

COMMANDS = {
    "run": run,
    "reference": reference,
    "leaderboard": leaderboard,
    "report": report,
    "ablate": ablate,
    "list": names,
    "show": show,
    "train": train,
    "download": download,
    "doctor": doctor,
}


def parser() -> Parser:
    top = Parser(
        prog="membench",
        description="What has a diffusion model memorized, and which detector tells?",
        epilog="example: membench run --detector cfg_norm --task sd_webster",
    )
    top.add_argument("--version", action="version", version=f"membench {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog="\n".join(["examples:", *(f"  membench {line}" for line in module.EXAMPLES)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(sub)
        sub.set_defaults(call=module.call)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        top = parser()
        args = top.parse_args(argv)
        if args.command is None:
            top.print_help()
            return 0
        if getattr(args, "offline", False):  # the hub's library reads it when it is imported, membench at each use
            os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
        torch_when_used()
        for path in getattr(args, "plugin", []):
            registry.load_plugin(path)
        return int(args.call(args))
    except UserError as error:
        for line in str(error).splitlines():
            print(f"membench: {line}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        print("membench: out of memory on the device: set a smaller --batch-size; what is finished is kept", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `membench list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("membench: stopped; what is finished is kept, and the same command continues", file=sys.stderr)
        return 130


def torch_when_used() -> None:
    """Puts off the import of torch until one of its attributes is read: it takes seconds, and a wrong option shall answer at once.

    The recipe of ``importlib.util.LazyLoader``. Detectors and tasks therefore read no attribute of torch while they are imported.
    """
    if "torch" in sys.modules or (spec := importlib.util.find_spec("torch")) is None or spec.loader is None:
        return
    spec.loader = loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules["torch"] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
