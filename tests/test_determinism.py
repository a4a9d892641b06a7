"""What docs/design/determinism.md promises of batch sizes, for every built-in detector:
rounding alone.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from test_contracts import BUILT_IN, EXPECTED

from membench import registry
from membench.options import as_settings, parse_options
from membench.testing.detectors import run_once
from membench.testing.tiny import Setting, settings

SIZES = (1, 7, 64)  # "auto" is a power of two from 1 to 64 on a processor
MANY, SOME = 700, 48  # evaluations from which on one other size is enough, and that size
# Of a score's size, beyond the 1e-4 of most, on the tiny models
LOOSER = {"side": 1e-2, "carlini_conditional": 1e-2, "side_prompts": 1e-2}
# Beyond EXPECTED's: images, which the contract asks for as well, refuse these
SHORTER: dict[str, dict[str, Any]] = {
    "decomposition": {"trajectory": 5},
    "sharpness": {"draws": 2, "trajectory": 5},
    "transition_step": {"trajectory": 5},
}


def scores(name: str, setting: Setting, size: int) -> tuple[dict[str, float], int]:
    """Scores and confidences by id, and the evaluations that they took."""
    cls = registry.detectors().load(name)
    chosen = EXPECTED[name][0] | SHORTER.get(name, {})
    options: Any = parse_options(cls.Options, as_settings(chosen), owner=name)
    return run_once(cls, options, setting, 0, batch_size=size)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_batch_size_changes_rounding_alone(name: str) -> None:
    """Scores and confidences, on the first kind of model that the detector takes."""
    setting = next(s for s in settings() if s.name in EXPECTED[name][1])
    first, spent = scores(name, setting, SIZES[-1])
    for size in SIZES[:-1] if spent < MANY else (SOME,):
        other, _ = scores(name, setting, size)
        assert other.keys() == first.keys()
        wrong = {
            id_: (value, other[id_])
            for id_, value in first.items()
            if not math.isclose(value, other[id_], rel_tol=LOOSER.get(name, 1e-4), abs_tol=1e-5)
        }
        assert not wrong, f"batch size {size}: {wrong}"
