"""What a budget is worth, in evaluations of the model."""

from __future__ import annotations

from pathlib import Path

from membench.auditing import work
from membench.auditing.settings import Budget
from membench.models.denoiser import Denoiser
from membench.storage.files import write_json
from membench.storage.reading import is_amount, parse_json
from membench.types import Condition

SHARE = 0.85  # of a budget of minutes that evaluations get; the rest is decoding


def worth(budget: Budget, kept: Path, key: str, model: Denoiser, condition: Condition) -> int:
    """Evaluations that the budget pays for; of minutes, measured once a device and kept.

    kept: the file that keeps them, for audits of the same ``key``.
    """
    if budget.evaluations is not None:
        return budget.evaluations
    try:
        known = parse_json(kept.read_bytes())
        kept_of = known["key"], known["device"]
        if kept_of == (key, str(model.device)) and is_amount(known["evaluations"]):
            return int(known["evaluations"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or not ours
        pass
    assert budget.minutes is not None
    each = work.seconds_per_evaluation(model, condition)
    found = int(SHARE * budget.minutes * 60 / each)
    write_json(kept, {"key": key, "device": str(model.device), "evaluations": found})
    return found
