"""An audit from its settings to what it found: plan, screen, extract, compare, judge."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from membench.auditing import plan as planning
from membench.auditing import work
from membench.auditing.budget import worth
from membench.auditing.describe import describe
from membench.auditing.extract import extracted
from membench.auditing.found import Audit
from membench.auditing.guided import guided
from membench.auditing.judge import GUIDED, judge
from membench.auditing.material import (
    UNCONDITIONAL,
    Material,
    comparison,
    read_material,
    told_classes,
)
from membench.auditing.outcome import refuse_other
from membench.auditing.own_output import refuse_own_output
from membench.auditing.settings import Settings, parse_budget
from membench.auditing.subject import SAMPLING, Subject, find_subject, same_kind
from membench.auditing.unread import refuse_unread
from membench.auditing.unseen import Callers, unseen_captions
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import timesteps
from membench.plain import say
from membench.runs.devices import device_of
from membench.storage.hashing import content_key
from membench.types import Condition, Request, Space


def audit(
    settings: Settings, output: Path, *, dry_run: bool = False, progress: bool = True
) -> Audit:
    """Audits a model, or with ``dry_run`` says what it would do.

    output: where the plan is kept, so that a budget of minutes buys the same images
    when the audit is run again. Scores and images are found again by what made them.
    Raises :class:`UserError`.
    """
    return _Run(settings, output, progress).run(dry_run)


class _Run:
    """One audit, stage by stage."""

    def __init__(self, settings: Settings, output: Path, progress: bool) -> None:
        self.settings = replace(settings, device=device_of(settings.device))
        self.output, self.progress = output, progress
        self.budget = parse_budget(settings.budget)
        self.clock = time.monotonic()
        self.seconds: dict[str, float] = {}

    def run(self, dry_run: bool) -> Audit:
        s = self.settings
        model = find_subject(s.model)
        mirror = find_subject(s.mirror) if s.mirror else None
        if mirror is not None:
            same_kind(model, mirror)
        refuse_unread(s, model, asked=model.kind != "unconditional" and not s.unconditional)
        material = read_material(s, model, self.progress)
        refuse_unread(s, model, asked=bool(material.prompts))
        refuse_other(self.output, model, material.data)
        if s.attack == GUIDED and material.prompts:
            raise UserError(
                "--attack side makes conditions of its own, for a model that is asked nothing; add"
                " --unconditional"
            )
        space, nearest = comparison(s, material)
        sampling: dict[str, Any] = dict(SAMPLING[model.kind])
        sampling |= {"steps": s.steps} if s.steps else {}
        sampling |= {"guidance": s.guidance} if s.guidance else {}
        unseen = self._unseen(material, model)
        key = self._key(model, mirror, material, space, sampling, unseen)
        self._tick("read")
        loaded = self._load(model, material)
        timesteps(loaded, sampling["steps"])  # more than there are is refused here
        control = self._control(mirror, material, sampling["steps"])
        found = Audit(s, model, mirror, material, space, sampling, key, [])
        evaluations = worth(self.budget, self.output / "plan.json", key, loaded, _one(material))
        plain = self._asked("random", loaded, model, sampling)
        price = work.price(plain, Request(_one(material), 0))
        planning.paid(evaluations, price, s.budget)
        describe(found, unseen, evaluations, price)
        self._tick("plan")
        if dry_run:
            return found
        # An image is paid for first
        most = min(int(planning.SCREEN * evaluations), evaluations - price)
        spent = self._screen(found, loaded, unseen, most)
        self._tick("screen")
        attacks, images, taken = self._attack(
            found, loaded, control, unseen, evaluations - spent, price
        )
        frame, pictures = extracted(found, attacks, images, self.progress)
        self._tick("extract")
        refuse_own_output(material.data, pictures, str(s.data))
        frame["training"], frame["similarity"] = nearest(pictures)
        self._tick("compare")
        self._judge(found, frame, pictures)
        self._tick("judge")
        found.evaluations = spent + taken
        found.seconds = self.seconds
        return found

    # ----------------------------------------------------------------------------- plan

    def _tick(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage], self.clock = round(now - self.clock, 2), now

    def _load(self, subject: Subject, material: Material) -> Denoiser:
        s = self.settings
        classes = told_classes(s, subject, material.data)
        model = subject.load(classes, device=s.device, dtype=s.dtype, batch_size=s.batch_size)
        if not material.prompts and model.has_condition and not model.has_null:
            raise UserError(
                f"{subject.name} has no null class, so it cannot be asked without one; leave"
                " --unconditional out"
            )
        if subject.kind == "class" and (s.guidance or 1) != 1 and not model.has_null:
            raise UserError(
                f"--guidance {s.guidance:g} is between a class and the null class, and"
                f" {subject.name} has no null class; leave it out"
            )
        model.ready_images()
        return model

    def _control(self, mirror: Subject | None, material: Material, steps: int) -> Denoiser | None:
        """The mirror, loaded and asked for its timesteps before anything is spent."""
        if mirror is None:
            return None
        loaded = self._load(mirror, material)
        try:
            timesteps(loaded, steps)
        except UserError as error:
            raise UserError(f"--mirror {mirror.name}: {error}") from None
        return loaded

    def _asked(
        self,
        name: str,
        loaded: Denoiser,
        subject: Subject,
        sampling: dict[str, Any],
        options: Sequence[str] = (),
    ) -> work.Asked:
        s = self.settings
        return work.Asked(
            name,
            loaded,
            subject.weights,
            sampling,
            seed=s.seed,
            dtype=s.dtype,
            profile=subject.profile,
            options=options,
        )

    def _unseen(self, material: Material, model: Subject) -> list[Condition]:
        """Captions that the model cannot have seen; none where it takes no text."""
        known = [c.prompt for c in material.prompts if c.prompt]
        if model.kind != "text" or not known:
            return []
        return unseen_captions(known, self.settings.unseen, planning.UNSEEN, self.settings.seed)

    def _key(
        self,
        model: Subject,
        mirror: Subject | None,
        material: Material,
        space: Space,
        sampling: dict[str, Any],
        unseen: Sequence[Condition],
    ) -> str:
        s = self.settings
        return content_key(
            {
                "model": model.weights,
                "mirror": mirror.weights if mirror else "",
                "data": material.data.hash,
                "space": space.id,
                "sampling": sampling,
                "unseen": [c.id for c in unseen],
                "budget": s.budget,
                "screen": list(s.screen),
                "draws": s.draws,
                "seed": s.seed,
                "dtype": s.dtype,
                "unconditional": s.unconditional,
                "attack": s.attack,
            }
        )

    # --------------------------------------------------------------------------- screen

    def _screen(
        self, found: Audit, loaded: Denoiser, unseen: Sequence[Condition], most: int
    ) -> int:
        """Ranks the captions; the evaluations that the budget is charged, up to ``most``.

        Classes are asked in turn, so nothing would read their scores.
        """
        s, m = self.settings, found.material
        conditions = planning.by_duplicates(m, s.seed)
        if not conditions or found.model.kind != "text":
            return 0
        charged = 0
        ranks: list[pd.Series] = []
        for name in s.screen:
            asked = self._asked(name, loaded, found.model, found.sampling, work.CHEAP.get(name, ()))
            if why := work.screener(asked, conditions):
                found.not_judged.append(f"ranking by {name}: {why}")
                continue
            # Charged alike whether computed now or found, so that both ask the same images
            each = work.price_of_score(asked, conditions[0])
            share = most // len(s.screen)
            control, chosen = planning.screened(conditions, unseen, share // max(each, 1))
            if not chosen:
                found.not_judged.append(f"ranking by {name}: the budget pays for no score")
                continue
            scores = work.screen(asked, [*control, *chosen], self.progress)
            charged += each * (len(control) + len(chosen))
            ranks.append(
                pd.Series(scores).rank(pct=True) if len(s.screen) > 1 else pd.Series(scores)
            )
        if ranks:
            total = pd.concat(ranks, axis=1).mean(axis=1)
            control_ids = {c.id for c in unseen}
            found.scores = {i: float(v) for i, v in total.items() if i not in control_ids}
            found.unseen_scores = {i: float(v) for i, v in total.items() if i in control_ids}
            if (left := len(conditions) - len(found.scores)) > 0:
                found.not_judged.append(f"{left:,} captions that the budget did not rank")
        return charged

    # -------------------------------------------------------------------------- extract

    def _images(self, found: Audit, unseen: Sequence[Condition], count: int) -> planning.Images:
        s, m = self.settings, found.material
        mirror = found.mirror is not None
        if found.model.kind == "text" and m.prompts:
            order = planning.ranked(m, found.scores, s.seed)
            images = planning.images_of_prompts(
                order, unseen, count, s.draws, s.seed, mirror=mirror
            )
            asked = {r.condition.id for r in images.own}
            if (left := len(order) - len(asked)) > 0:
                found.not_judged.append(f"{left:,} captions that no image was generated for")
            return images
        return planning.images_of_classes(list(m.prompts), count, mirror=mirror)

    def _attack(
        self,
        found: Audit,
        loaded: Denoiser,
        control: Denoiser | None,
        unseen: Sequence[Condition],
        evaluations: int,
        price: int,
    ) -> tuple[list[work.Asked], planning.Images, int]:
        """The attack on the model and, where there is one, on the mirror; the images that
        they are asked for; the evaluations that these take.
        """
        s, sampling = self.settings, found.sampling
        models = [(loaded, found.model)]
        if control is not None and found.mirror is not None:
            models.append((control, found.mirror))
        if s.attack == "random":
            count = planning.paid(evaluations, price, s.budget)
            images = self._images(found, unseen, count)
            attacks = [self._asked("random", *model, sampling) for model in models]
            return attacks, images, len(images) * price
        made = [
            guided(
                partial(self._asked, GUIDED, *model, sampling),
                evaluations // len(models),
                s.budget,
                self.progress,
            )
            for model in models
        ]
        (_, own, _), *others = made
        images = planning.Images(own, mirror=[r for _, of, _ in others for r in of])
        return [asked for asked, _, _ in made], images, sum(taken for _, _, taken in made)

    # ------------------------------------------------------------------ compare and judge

    def _judge(self, found: Audit, frame: pd.DataFrame, pictures: np.ndarray) -> None:
        callers = Callers(found.material.captions)
        frame["called"] = [
            row.asked == "unseen"
            and callers.calls(found.prompts[row.condition].prompt or "", row.training)
            for row in frame.itertuples()
        ]
        found.judgement = judge(frame, found.space)
        judged = found.judgement.images
        found.pictures = {int(i): pictures[i] for i in judged.index[judged.counts]}
        if found.judgement.suspect:
            found.warnings.append(
                f"the mirror returns {found.judgement.suspect} training images, too: it may have"
                " seen these data, and is not used as a control"
            )
        for line in found.warnings:
            say(f"warning: {line}")


def _one(material: Material) -> Condition:
    return next(iter(material.prompts), UNCONDITIONAL)
