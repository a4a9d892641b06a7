"""The one door to the network: what it says of states, in batches, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.loading import in_full
from membench.models.memo import Memo
from membench.models.names import READABLE, digests, named, names_of
from membench.models.parameterisation import Parameterised
from membench.seeds import generator
from membench.types import Condition, Cost

T = TypeVar("T")
_numbers = count()


class OutOfMemory(UserError):
    """What was asked for at once does not fit on the device."""


class Denoiser(Parameterised):
    """A network with its schedule.

    Shapes: x [n, *shape]; t one integer in [0, T) for the whole batch.

    Subclasses give ``_forward`` (the raw prediction), ``condition``, ``decode`` and
    ``encode``. ``cost`` counts evaluations per image; ``batch_size`` bounds what goes
    through the network at once and changes no number beyond rounding.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        scheduler: Any,
        *,
        shape: tuple[int, ...],
        batch_size: int = 64,
    ) -> None:
        super().__init__(scheduler)
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: it must be at least 1")
        self.network = network.eval().requires_grad_(False)
        self.shape = shape
        self.batch_size = batch_size
        self.cost = Cost()
        self.memo: Memo | None = None  # set while several detectors share evaluations
        self.number = next(_numbers)  # tells its states from those of another model
        # Whether it can be differentiated forwards (derivative.py finds out)
        self.forward_mode: bool | None = None
        self._limits: dict[str, int] = {}  # of what is larger than an evaluation: see halving
        self._compiled: Any = None
        self._run: Any = self.network  # what _forward calls
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        in_full(self.device)

    # ---------------------------------------------------------------------- to be given

    has_null = True  # whether there is a null condition to sample from
    takes_text = False
    quickest = 1 << 30  # rows at once, beyond which an evaluation of each takes longer
    latents = False  # whether states are latents of a decoder, not pixels

    def _forward(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        raise NotImplementedError

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        """The network's input for each condition, in order; a condition without a
        prompt is the null condition.
        """
        raise NotImplementedError

    def token_counts(self, conditions: Sequence[Condition]) -> list[int]:
        """Tokens of each prompt, those of beginning and end included, cut at the
        tokenizer's limit.

        Raises :class:`UserError` for a model that takes no text.
        """
        raise UserError("this model takes no text, so its conditions have no tokens")

    def decode(self, x: torch.Tensor) -> np.ndarray:
        """Final states [n, *shape] to ``uint8`` [n, h, w, 3].

        A state that cannot be decoded becomes NaN: look at ``x`` afterwards.
        """
        raise NotImplementedError

    def encode(self, images: np.ndarray) -> torch.Tensor:
        """``uint8`` [n, h, w, 3] to clean states [n, *shape].

        Raises :class:`UserError` for images of another size.
        """
        raise NotImplementedError

    def ready_images(self) -> None:
        """Loads whatever ``decode`` and ``encode`` need beside the network.

        Raises :class:`UserError`.
        """

    @property
    def has_condition(self) -> bool:
        """Whether the network can be told what to generate: a caption or a class."""
        return self.takes_text

    # -------------------------------------------------------------------------- network

    def eps(
        self, x: torch.Tensor, t: int, condition: Conditioning, *, remember: bool = True
    ) -> torch.Tensor:
        """eps(x, t, c) in float32, [n, *shape]: :meth:`prediction`, converted."""
        with torch.no_grad():
            return self.to_eps(self.prediction(x, t, condition, remember=remember), x.float(), t)

    def prediction(
        self, x: torch.Tensor, t: int, condition: Conditioning, *, remember: bool = True
    ) -> torch.Tensor:
        """What the network says of (x, t, c), in float32, [n, *shape].

        Counts n forwards, of which the memo may answer some.

        remember=False: past the memo, for rows that nobody else will ask for and that
        would crowd out the others.
        """
        with torch.no_grad():
            self._check(x)
            self.cost.forwards += len(x)
            if self.memo is not None and remember:
                return self.memo.rows(self._predict, x, t, condition, self.cost)
            return self._predict(x, t, condition)

    @property
    def rows_at_once(self) -> int:
        """Rows that an evaluation takes through the network in one call."""
        return min(self.batch_size, self.quickest)

    def _predict(self, x: torch.Tensor, t: int, condition: Conditioning) -> torch.Tensor:
        pieces, most = [], self.rows_at_once
        with self._fast() as compiled, self.refusals():
            # As a tensor, or every timestep would be compiled for itself.
            at = torch.tensor(t, device=self.device) if compiled else t
            for start in range(0, len(x), most):
                part = slice(start, start + most)
                pieces.append(self._forward(x[part].to(self.dtype), at, condition[part]).float())
        return torch.cat(pieces) if len(pieces) != 1 else pieces[0]

    def compile(self, backend: str = "inductor") -> None:
        """Evaluations go through ``torch.compile`` from now on; numbers change by
        rounding. Derivatives, hooks and adapters do without.
        """
        self._compiled = torch.compile(self.network, backend=backend)

    @contextmanager
    def _fast(self) -> Iterator[bool]:
        """Within it ``_forward`` calls the compiled network, where there is one; yields
        whether there is.
        """
        compiled = self._compiled is not None and not hasattr(self.network, "peft_config")
        before, self._run = self._run, self._compiled if compiled else self.network
        try:
            yield compiled
        finally:
            self._run = before

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Within it evaluations go through the plain network, whose hooks are called."""
        compiled, self._compiled = self._compiled, None
        try:
            yield
        finally:
            self._compiled = compiled

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Out of memory, or no compiler: one line that says what to set.

        What is finished by then is on disk.
        """
        try:
            yield
        except RuntimeError as error:
            line = (str(error).strip().splitlines() or [""])[0][:200]
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in line:
                less = (
                    f"set --batch-size {self.batch_size // 2}"
                    if self.batch_size > 1
                    else "take a larger device, or a smaller --dtype"
                )
                raise OutOfMemory(
                    f"out of memory on {self.device} at batch size {self.batch_size}: {less}; what"
                    " is finished is kept"
                ) from None
            if self._compiled is not None and type(error).__module__.startswith(
                ("torch._dynamo", "torch._inductor")
            ):
                raise UserError(f"--compile does not work here ({line}); leave it out") from None
            raise

    def halving(self, what: str, most: int, compute: Callable[[int], T]) -> T:
        """``compute(n)`` with n = ``most`` rows at once, and half as many whenever they
        do not fit; of ``what`` no more are tried again.

        For what takes more memory than the evaluations that the batch size was chosen
        for: derivatives, the VAE. What a failed try has counted is taken back. Raises
        :class:`OutOfMemory` where not one row fits.
        """
        n = min(most, self._limits.get(what, most))
        while True:
            before = replace(self.cost)
            try:
                return compute(n)
            except OutOfMemory:
                if n == 1:
                    raise
                vars(self.cost).update(vars(before))
                n = self._limits[what] = n // 2

    def raw_eps(self, x: torch.Tensor, t: int, condition: Conditioning) -> torch.Tensor:
        """eps as one differentiable call, neither batched nor counted: for
        ``membench.models.derivative``.
        """
        return self.to_eps(self.raw_prediction(x, t, condition), x.float(), t)

    def raw_prediction(self, x: torch.Tensor, t: int, condition: Conditioning) -> torch.Tensor:
        """What the network predicts, eps or v or x0, in the same way; float32."""
        with self.refusals():
            return self._forward(x.to(self.dtype), t, condition).float()

    def eps_pair(
        self, x: torch.Tensor, t: int, condition: Conditioning
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(eps(x, t, null), eps(x, t, c)), both in one pass over the network.

        Counts 2n forwards.
        """
        null, conditional = self.prediction_pair(x, t, condition)
        return self.to_eps(null, x.float(), t), self.to_eps(conditional, x.float(), t)

    def prediction_pair(
        self, x: torch.Tensor, t: int, condition: Conditioning
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`eps_pair`, of the raw predictions."""
        null = self.null_like(condition, len(x))
        if condition.embeddings is None or null.embeddings is None:
            raise UserError(
                "this model has no condition, so a conditional prediction is not defined for it"
            )
        # Interleaved, so that a pair shares a chunk: the null and the conditional half
        # round alike.
        names = [name for name in names_of(x) or () for _ in range(2)]
        both = named(x.repeat_interleave(2, dim=0), names or None)
        raw = self.prediction(both, t, null.beside(condition))
        return raw[0::2], raw[1::2]

    def guided(
        self, x: torch.Tensor, t: int, condition: Conditioning, guidance: float
    ) -> torch.Tensor:
        """eps_null + w (eps_c - eps_null) (Ho and Salimans 2022, in Stable Diffusion's
        convention: w = 1 is plain).

        Costs one forward an image where w = 1 or there is no condition, two otherwise.
        """
        if guidance == 1.0 or condition.embeddings is None:
            return self.eps(x, t, condition)
        null, conditional = self.eps_pair(x, t, condition)
        return null + guidance * (conditional - null)

    def diffusion_loss(
        self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        """Mean squared error of the network's own prediction at x_t, differentiable:
        what it was trained with.

        x0, noise: [n, *shape]; t: int [n]. For training adapters; counts n forwards and
        n backwards.
        """
        self._check(x0)
        x = self.noised(x0, noise, t)
        self.cost.forwards += len(x0)
        self.cost.backwards += len(x0)
        return torch.nn.functional.mse_loss(
            self._forward(x.to(self.dtype), t, condition).float(), self.target(x0, noise, t)
        )

    def null_like(self, condition: Conditioning, n: int) -> Conditioning:
        """The null condition, ``n`` rows."""
        return self.condition([Condition("null")]).expand(n)

    # ---------------------------------------------------------------------------- noise

    def noise(self, requests: Sequence[tuple[str, int]], seed: int) -> torch.Tensor:
        """Standard normal [n, *shape]; row i comes from hash(seed, id, draw) alone, so
        no batch or shard changes it.
        """
        return self._drawn([(seed, example, draw) for example, draw in requests]).to(self.device)

    def starts(self, rows: Sequence[tuple[Condition, int]], seed: int) -> torch.Tensor:
        """The noise [n, *shape] that draw k of a condition starts from; draw 0 of a
        generated image from the image's own.
        """
        x = self._drawn(
            [
                c.start if c.start is not None and draw == 0 else (seed, c.id, draw)
                for c, draw in rows
            ]
        )
        shared = self.memo is not None and self.device.type not in READABLE
        return named(x.to(self.device), digests(x) if shared else None)

    def _drawn(self, words: Sequence[Sequence[object]]) -> torch.Tensor:
        """On the host; each row from the hash of its words."""
        x = torch.empty(len(words), *self.shape)
        for row, of in zip(x, words, strict=True):
            row.normal_(generator=generator(*of))
        return x

    def _check(self, x: torch.Tensor) -> None:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, the model wants [n,"
                f" {', '.join(map(str, self.shape))}]"
            )
