"""``membench doctor``: what is installed, which device, which tasks' data and weights
are there.
"""

from __future__ import annotations

import argparse
import os
import platform

from membench import __version__, registry
from membench.errors import UserError
from membench.runs.places import RUNS

HELP = "what is installed, which device, what is ready"
DESCRIPTION = (
    "Say what is installed, which device there is, and which tasks' data and weights are here."
)
EXAMPLES = ("doctor",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def call(args: argparse.Namespace) -> int:
    """Prints the report; 0 if every task that ships can run here, 2 otherwise."""
    import torch

    from membench.fetching import net
    from membench.storage import provenance

    made_by = provenance.commit()
    changed = " with changes" if made_by["dirty"] else ""
    print(
        f"membench {__version__}, commit"
        f" {made_by['commit'] or 'unknown (installed package)'}{changed}"
    )
    print(f"python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} torch threads")
    for name, version in provenance.versions().items():
        print(f"  {name:<14} {version}")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            print(f"device cuda:{i}: {p.name}, {p.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        print("device: mps, which --device auto takes")
    else:
        print("device: cpu only (no cuda or mps here)")
    forbidding = [
        name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)
    ]
    print(
        "network: "
        + (
            f"forbidden by {', '.join(forbidding)}"
            if net.offline()
            else "allowed; the mini profiles need none"
        )
    )
    missing = 0
    tasks = registry.tasks()
    for name in tasks.names():
        task = tasks.load(name)
        others = [profile for profile in task.info.profiles if profile != "mini"]
        if others:
            print(
                f"task {name}, {' and '.join(others)} profile: data and models are the user's"
                f" (membench show {name})"
            )
        for profile in set(task.info.profiles) - set(others):
            for control in (False, True):
                what = f"task {name}, {profile} profile, {'control model' if control else 'model'}"
                try:
                    loaded = task().load(profile, control=control)
                except UserError as error:
                    print(f"{what}: MISSING: {error}")
                    missing += 1
                else:
                    print(
                        f"{what}: ready, {len(loaded.examples)} examples, weights"
                        f" {loaded.hashes['weights'][:8]}"
                    )
    print(f"runs: {len(list(RUNS.glob('*/*/*/*/run.json')))} under {RUNS.resolve()}")
    return 2 if missing else 0
