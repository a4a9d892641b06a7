"""``membench``: a thin layer over the Python interface.

A command's modules are imported when it is called.

stdout is data, stderr is talk. A user's mistake is one line on stderr (a list of what
is missing: a line each) and exit code 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
import textwrap
import traceback
import types
from collections.abc import Sequence
from typing import Any

from membench import __version__, plugins
from membench.cli import (
    ablate,
    audit,
    doctor,
    download,
    leaderboard,
    names,
    reference,
    report,
    run,
    show,
    submit,
    train,
    tune,
)
from membench.cli.common import Parser
from membench.errors import UserError, suggest
from membench.plain import say
from membench.storage.reading import is_text

COMMANDS = {
    "run": run,
    "audit": audit,
    "reference": reference,
    "leaderboard": leaderboard,
    "report": report,
    "submit": submit,
    "ablate": ablate,
    "tune": tune,
    "list": names,
    "show": show,
    "train": train,
    "download": download,
    "doctor": doctor,
}

LONGEST = 2000  # characters of a line on stderr

# These ask no model. A torch that is put off would be executed by scipy, which looks
# for it in sys.modules.
READERS = ("leaderboard", "report", "list")


EXAMPLES = "examples:"


class Help(argparse.HelpFormatter):
    """Folds the description to the terminal, and leaves the lines of examples alone, so
    that they can be copied.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES):
            return text
        return super()._fill_text(text, width, indent)


def parser() -> Parser:
    top = Parser(
        prog="membench",
        description="What has a diffusion model memorized, and which detector tells?",
        epilog="example: membench run --detector cfg_norm --task sd_webster",
    )
    top.add_argument("--version", action="version", version=f"membench {__version__}")
    commands = top.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", parser_class=Parser
    )
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog="\n".join([EXAMPLES, *map(_example, module.EXAMPLES)]),
            formatter_class=Help,
        )
        module.arguments(sub)
        sub.set_defaults(call=module.call, known=sub.options())
    return top


def _example(line: str) -> str:
    """A command as a shell takes it, on lines of at most 80 columns."""
    return " \\\n".join(
        textwrap.wrap(
            f"membench {line}",
            78,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def complete(top: argparse.ArgumentParser) -> None:
    """Answers a shell that asks for completions, with the extra ``complete``; returns
    at once for any other call. For bash: ``eval "$(register-python-argcomplete
    membench)"``.
    """
    if "_ARGCOMPLETE" in os.environ and importlib.util.find_spec("argcomplete"):
        import argcomplete

        argcomplete.autocomplete(top)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    _open_streams()
    try:
        top = parser()
        complete(top)
        _check_words(sys.argv[1:] if argv is None else argv)
        args, rest = top.parse_known_args(argv)
        if args.command is None:
            top.print_help()
            return 0
        if rest:
            raise _unknown(rest[0], args)
        # The hub's library reads it when it is imported, membench at each use
        if getattr(args, "offline", False):
            os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
        if args.command not in READERS:
            torch_when_used()
        for path in getattr(args, "plugin", []):
            plugins.load_plugin(path)
        code = int(args.call(args))
        sys.stdout.flush()  # what cannot be written is told here, not at Python's end
        return code
    except UserError as error:
        if os.environ.get("MEMBENCH_TRACEBACK"):  # for who writes a plug-in
            traceback.print_exc()
        for line in error.lines:
            say(_shortened(line))
        return 2
    except (RuntimeError, MemoryError) as error:
        if not (where := _memory(error)):
            raise
        print(
            f"membench: out of memory{where}: set a smaller --batch-size; what is finished is kept",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # `membench list | head`
        _write_no_more()
        return 0
    except ValueError:
        if not sys.stdout.closed:
            raise
        print(
            "membench: a plug-in has closed the standard output; what is finished is kept",
            file=sys.stderr,
        )
        return 2
    except OSError as error:  # a name that no file can have, a folder that is not ours
        if os.environ.get("MEMBENCH_TRACEBACK"):
            traceback.print_exc()
        name = f"{error.filename}: " if error.filename else ""
        line = _shortened(f"{name}{error.strerror or error}")
        say(f"{line}; what is finished is kept")
        try:
            sys.stdout.flush()
        except OSError:  # it was the output itself: `membench list > /dev/full`
            _write_no_more()
        return 2
    except KeyboardInterrupt:
        print(
            "membench: stopped; what is finished is kept, and the same command continues",
            file=sys.stderr,
        )
        return 130


def _open_streams() -> None:
    """Output that a shell has closed (``>&-``) goes nowhere, and names of files that are
    no text are escaped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _write_no_more() -> None:
    """What is still to be written to standard output goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_words(words: Sequence[str]) -> None:
    """Raises :class:`UserError` for what no command reads as it was meant."""
    before = ""
    for word in words:
        option, equals, value = word.partition("=")
        if not is_text(word):  # it would end up in tables, which cannot hold it
            raise UserError(f"the argument {_shortened(word)} is not UTF-8; rename the file")
        if "\0" in word:  # from Python alone
            raise UserError(f"the argument {_shortened(word)!r} holds a NUL character")
        # Of a shell's variable that is not set: "" is the folder here, or the default
        if word.startswith("--") and equals and not value.strip():
            raise UserError(f"{option[:100]} has an empty value; leave it out, or give one")
        if not word.strip():
            after = f" after {before[:100]}" if before.startswith("--") else ""
            raise UserError(f"an argument{after} is empty; leave it out, or give a value")
        before = word


def _memory(error: Exception) -> str:
    """Where memory has run out; empty for another error. torch's own errors are told
    by name and text, since it is not imported here.
    """
    if type(error).__name__ == "OutOfMemoryError":
        return " on the device"
    lacks = "DefaultCPUAllocator" in str(error) or isinstance(error, MemoryError)
    return " on this machine" if lacks else ""


def _shortened(line: str) -> str:
    """A line without the middle of what is endless."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def _unknown(word: str, args: argparse.Namespace) -> UserError:
    """The error for a word that the command does not take."""
    see = f"See: membench {args.command} --help"
    if not word.startswith("-"):
        return UserError(f"unexpected argument {word!r}. {see}")
    option = word.partition("=")[0]
    return UserError(f"unknown option {option}.{suggest(option, args.known)} {see}")


class _Later(types.ModuleType):
    """A module that is executed when an attribute is read that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = types.ModuleType  # type: ignore[assignment]  # reading one more attribute is an error again
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        try:
            self.__path__ = list(spec.submodule_search_locations or ())
            spec.loader.exec_module(self)
        except BaseException:
            sys.modules.pop(spec.name, None)
            raise
        return getattr(self, name)


def torch_when_used() -> None:
    """Puts off the import of torch until one of its attributes is read: it takes
    seconds, and a wrong option shall answer at once.

    Detectors and tasks therefore read no attribute of torch while they are imported.
    Not ``importlib.util.LazyLoader``: its module is executed by a second ``import
    torch`` already, which reads ``__spec__`` (Python 3.11).
    """
    if "torch" in sys.modules or (spec := importlib.util.find_spec("torch")) is None:
        return
    module = sys.modules["torch"] = importlib.util.module_from_spec(spec)
    del module.__path__  # so that an import of a submodule reads it, and executes the package first
    module.__class__ = _Later
