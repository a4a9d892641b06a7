"""Network evaluations that several detectors need, made once.

The second detector that asks about (x, t, c) is given the first one's answer. What is
asked for is known by the state's name (:mod:`membench.models.names`) or, where it has
none, its content; by t; and by the condition's key. So the same (example, draw, t,
condition) is found whoever asks, and nothing else is.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from membench.models.names import digests, names_of
from membench.types import Cost

if TYPE_CHECKING:
    from membench.models.conditioning import Conditioning

# Bytes kept; beyond it the oldest go, and are computed again if they are asked for
# again
LIMIT = 2 << 30

Key = tuple[int, bytes, bytes]  # t, state, condition
Evaluate = Callable[["torch.Tensor", int, "Conditioning"], "torch.Tensor"]


class Memo:
    """Answers of one network, whose weights must not change meanwhile.

    Rows are kept in float32 on the network's device.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._rows: OrderedDict[Key, tuple[torch.Tensor, _Share]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forgets everything."""
        self._rows.clear()
        self._bytes = 0

    def rows(
        self, evaluate: Evaluate, x: torch.Tensor, t: int, condition: Conditioning, cost: Cost
    ) -> torch.Tensor:
        """``evaluate(x, t, condition)`` [n, *shape], of which only rows that nobody has
        asked for are evaluated.

        Adds the other rows to ``cost.shared`` and what they once took to
        ``cost.shared_seconds``.
        """
        keys = _keys(x, t, condition)
        # The first of equal rows
        new = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._rows}
        chosen = sorted(new.values())
        whole = len(chosen) == len(keys)
        found: dict[Key, tuple[torch.Tensor, _Share]] = {}
        fresh = torch.empty_like(x, dtype=torch.float32)
        if chosen:
            index = torch.tensor(chosen, device=x.device)
            share = _Share(x.device, len(chosen))
            fresh = evaluate(*((x, t, condition) if whole else (x[index], t, condition[index])))
            share.end()
            # The asker may change what it is given. The copy is of all rows at once, and
            # they go one after another, so beyond the limit lies less than one batch.
            kept = fresh.clone().unbind()
            found = {keys[row]: (answer, share) for row, answer in zip(chosen, kept, strict=True)}
        paid = set(chosen)
        rows = []
        for row, key in enumerate(keys):
            answer, share = found[key] if key in found else self._rows[key]
            rows.append(answer)
            if row not in paid:
                cost.shared += 1
                cost.shared_seconds += share.seconds()
        for key, (answer, share) in found.items():
            self._keep(key, answer, share)
        return fresh if whole else torch.stack(rows)

    def _keep(self, key: Key, answer: torch.Tensor, share: _Share) -> None:
        size = answer.numel() * answer.element_size()
        if size > self.limit:
            return
        self._rows[key] = (answer, share)
        self._bytes += size
        while self._bytes > self.limit:
            _, (old, _) = self._rows.popitem(last=False)
            self._bytes -= old.numel() * old.element_size()


class _Share:
    """What one row of a batch takes, from now to its ``end``. A GPU is waited for when
    somebody asks, by then as a rule long after it is done.
    """

    def __init__(self, device: torch.device, rows: int) -> None:
        self._rows, self._cuda = rows, device.type == "cuda"
        self._ends = [self._now()]

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def end(self) -> None:
        self._ends.append(self._now())

    def seconds(self) -> float:
        start, end = self._ends
        if not self._cuda:
            return (end - start) / self._rows
        end.synchronize()
        return start.elapsed_time(end) / 1000 / self._rows


def _keys(x: torch.Tensor, t: int, condition: Conditioning) -> list[Key]:
    """A key a row."""
    states = names_of(x) or digests(x)
    told = condition.keys
    if told is None:
        told = condition.keyed().keys or []
    # A detector may take t from an array; what t can be, the schedule says
    return [(int(t), *row) for row in zip(states, told or [b""] * len(states), strict=True)]
