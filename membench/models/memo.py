"""Network evaluations that several detectors need, made once.

The second detector that asks about (x, t, c) is given the first one's answer. What is
asked for is known by its content (the bytes of one row of x, t and the row's
embedding), so that the same (example, draw, t, condition) is found whoever asks, and
nothing else is.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from membench.types import Cost

if TYPE_CHECKING:
    from membench.models.conditioning import Conditioning

# Bytes kept; beyond it the oldest go, and are computed again if they are asked for
# again
LIMIT = 2 << 30

Evaluate = Callable[["torch.Tensor", int, "Conditioning"], "torch.Tensor"]


class Memo:
    """Answers of one network, whose weights must not change meanwhile.

    Rows are kept in float32 on the network's device.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._rows: OrderedDict[bytes, tuple[torch.Tensor, float]] = OrderedDict()
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
        found: dict[bytes, tuple[torch.Tensor, float]] = {}
        if chosen:
            index = torch.tensor(chosen, device=x.device)
            start = time.perf_counter()
            fresh = evaluate(x[index], t, condition[index])
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            each = (time.perf_counter() - start) / len(chosen)
            found = {
                keys[row]: (answer, each)
                for row, answer in zip(chosen, fresh.unbind(), strict=True)
            }
        paid = set(chosen)
        rows = []
        for row, key in enumerate(keys):
            answer, seconds = found[key] if key in found else self._rows[key]
            rows.append(answer)
            if row not in paid:
                cost.shared += 1
                cost.shared_seconds += seconds
        for key, (answer, seconds) in found.items():
            self._keep(key, answer, seconds)
        return torch.stack(rows) if rows else torch.empty_like(x)

    def _keep(self, key: bytes, answer: torch.Tensor, seconds: float) -> None:
        size = answer.numel() * answer.element_size()
        if size > self.limit:
            return
        self._rows[key] = (answer.clone(), seconds)  # a view would keep its whole batch alive
        self._bytes += size
        while self._bytes > self.limit:
            _, (old, _) = self._rows.popitem(last=False)
            self._bytes -= old.numel() * old.element_size()


def _keys(x: torch.Tensor, t: int, condition: Conditioning) -> list[bytes]:
    """A key a row: SHA-256 of what the network is given."""
    states = x.detach().float().cpu().contiguous().numpy()
    # A detector may take t from an array; what t can be, the schedule says
    at = int(t).to_bytes(8, "little", signed=True)
    if condition.embeddings is None:
        return [hashlib.sha256(at + row.tobytes()).digest() for row in states]
    told = [
        part.detach().float().cpu().contiguous().numpy()
        for part in (condition.embeddings, condition.pooled)
        if part is not None
    ]
    return [
        hashlib.sha256(b"".join([at, *(part.tobytes() for part in row)])).digest()
        for row in zip(states, *told, strict=True)
    ]
