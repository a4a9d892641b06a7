"""A wrong option is answered without torch: neither detectors nor tasks read an
attribute of it while they are imported.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "diffusers",
    "transformers",
    "torchvision",
    "sklearn",
    "pandas",
    "scipy",
    "peft",
    "matplotlib",
    "networkx",
)
CODE = f"""
import sys
from membench import registry
from membench.cli.main import torch_when_used
torch_when_used()
for known in (registry.detectors(), registry.tasks()):
    for name in known.names():
        known.load(name)
        early = f"{{name}} reads an attribute of torch while it is imported"
        assert "torch._C" not in sys.modules, early
print([name for name in {HEAVY} if name in sys.modules])
"""
WRONG = """
import sys
from membench.cli.main import main
code = main([sys.argv[1], "--detector", "loss", "--task", "cifar10", *sys.argv[2:]])
assert "torch._C" not in sys.modules, "torch was imported"
sys.exit(code)
"""


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_importing_every_detector_and_task_leaves_torch_unread() -> None:
    done = python(CODE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--set", "stpes=1"),
        ("run", "--set", "cifar10.stpes=1"),
        ("run", "--profile", "stpes"),
        ("ablate", "--profile", "stpes"),
        ("ablate", "--set", "cifar10.stpes=1"),
        ("ablate", "--sweep", "stpes=1,2"),
        ("ablate", "--sweep", "cifar10.stpes=1,2"),
        ("tune", "--set", "stpes=1"),
        ("tune", "--set", "cifar10.stpes=1"),
    ],
)
def test_a_wrong_option_leaves_torch_unread(words: tuple[str, ...]) -> None:
    done = python(WRONG, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "stpes" in done.stderr, (
        done.stderr
    )
