"""Feature alignment: is it still worth selecting on these features, or is it time to fine-tune and embed again?

Each piece is committed before the next begins, so that a driver that was killed goes on where it was: the decision
(`switch.json`), a trial on half of the labels (`trial.json`), and what came of it (`aligned.json`). Standard active
learning is the same act without a decision: every round fine-tunes, and the next one selects with what came of it.
(Wen et al., "Feature Alignment: Rethinking Efficient Active Learning via Proxy in the Context of Pre-trained Models",
TMLR 2024.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alray.campaign import delivery, pricing, rounds, trial
from alray.campaign.rounds import ALIGNED, SWITCH, TRIAL, Round
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.proxy import guard
from alray.proxy.evidence import Evidence, measure
from alray.proxy.switch import Always, SwitchRule
from alray.runtime.threads import one_thread

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """What there is to decide on: a round, its labels divided, the class names, and whether no round follows."""

    place: Workplace
    round: Round
    rows: Split
    classes: tuple[str, ...]
    last: bool

    @property
    def rule(self) -> SwitchRule:
        """The rule of the switch."""
        return self.place.settings.switch

    @property
    def labels(self) -> dict[str, str]:
        """All labelled rows."""
        return {**self.rows.train, **self.rows.holdout}


def every_round(case: Case) -> None:
    """Fine-tune on the round's labels: standard active learning. In the last round this is the final training."""
    if case.round.has(ALIGNED):
        return
    recipe = case.place.settings.training.recipe.choose(updated=True)
    stage = "train" if case.last else "align"
    rows = case.rows
    made = delivery.tune(
        case.place, case.round, recipe, rows.train, rows.holdout, None, case.classes, stage=stage, folder="checkpoint"
    )
    case.round.commit(ALIGNED, {"schema": 1, "accepted": True, "reason": "regime: standard", **made})


def when_it_pays(case: Case) -> None:
    """Decide by the switch, and align the features if it fires: ASVP."""
    round = case.round
    if not round.has(SWITCH):
        round.commit(SWITCH, _decision(case))
    decision = round.json(SWITCH)
    log.info("round %d: %s", round.number, decision["sentence"])
    if decision["fire"] and not round.has(ALIGNED):
        round.commit(ALIGNED, _attempt(case, decision))
        log.info("round %d: %s", round.number, round.json(ALIGNED)["reason"])


# The decision


def _decision(case: Case) -> dict[str, Any]:
    """Return switch.json: what the rule saw, what it said, and what an alignment would cost and save."""
    evidence = _evidence(case)
    decision = case.rule.decide([*_history(case), evidence], labels=len(case.labels), classes=len(case.classes))
    refusal = _refusal(case)
    fire = decision.fire and refusal is None
    said, price = decision.reason if refusal is None else f"The features stay: {refusal}.", None
    if refusal is None and case.place.material.pool.kind != "features":  # those came without a backbone
        found = pricing.estimate(case.place, case.round, case.rows, case.rule, case.classes)
        said, price = f"{decision.reason} {found.sentence()}.", found.to_dict()
    return {
        "schema": 1,
        "rule": case.rule.model_dump(mode="json"),
        "labels": len(case.labels),
        "evidence": evidence.to_dict(),
        "numbers": decision.numbers,
        "fire": fire,
        "reason": decision.reason,
        "refusal": refusal,
        "price": price,
        "sentence": f"{'Switch' if fire else 'No switch'}. {said}",
    }


def _evidence(case: Case) -> Evidence:
    """Measure the features in force on the rows that were drawn at random and that their backbone has not seen."""
    place, number = case.place, case.round.number
    rows = rounds.unseen(case.round.ledger, number, case.rows.train, case.labels)
    labels, scan = {i: case.labels[i] for i in rows}, place.scan
    with place.meter.stage("evidence", number), one_thread():  # the switch may hang on the last bit
        return measure(scan.moments(labels, case.classes), scan.coordinates())


def _history(case: Case) -> Sequence[Evidence]:
    """Return the evidence of the rounds before, since the features in force or the last attempt at others."""
    out: list[Evidence] = []
    for number in range(case.round.number - 1, -1, -1):
        before = Round(case.round.ledger, number)
        if before.has(ALIGNED) and before.json(ALIGNED)["accepted"]:
            break
        if before.has(SWITCH):
            out.append(Evidence.from_dict(before.json(SWITCH)["evidence"]))
        if before.has(ALIGNED):
            break  # refused there: the rule begins to count again
    return out[::-1]


def _refusal(case: Case) -> str | None:
    """Say why the switch must not fire although its rule says so."""
    if case.last:
        return "no round follows that would select with others"
    before = [Round(case.round.ledger, number) for number in range(case.round.number)]
    accepted = sum(round.has(ALIGNED) and round.json(ALIGNED)["accepted"] for round in before)
    if accepted >= case.rule.updates and not isinstance(case.rule, Always):
        times = "once" if accepted == 1 else f"{accepted} times"
        return f"they were updated {times} already (`switch.updates` is {case.rule.updates})"
    return None


# The attempt


def _attempt(case: Case, decision: dict[str, Any]) -> dict[str, Any]:
    """Return aligned.json: fine-tuned features that held-out labels accept, or why there are none."""
    kind, train, holdout = case.rule.guard, case.rows.train, case.rows.holdout
    tried = _tried(case) if kind == "half" else None
    if tried is not None and not tried["verdict"]["accepted"]:
        return _refused(tried)
    made = _tuned(case, train, "aligned")
    if kind == "holdout":
        tried = trial.judge(case.place, case.round, delivery.checkpoint(case.round, made), train, holdout, case.classes)
        if not tried["verdict"]["accepted"]:
            return _refused(tried)
    found = {"verdict": tried["verdict"], "gain": tried["gain"]} if tried else {"verdict": None, "gain": None}
    why = tried["verdict"]["reason"] if tried else "taken unseen, since `switch.guard` is none"
    price = pricing.again(decision["price"], found["gain"], case.place, case.round, case.rows)
    reason = f"Features updated: {why}. {price.sentence()}."
    return {"schema": 1, "accepted": True, "reason": reason, "price": price.to_dict(), **found, **made}


def _tried(case: Case) -> dict[str, Any]:
    """Fine-tune on half of the labels, once, and judge the features by the other half and the held-out rows.

    Features in force that are themselves fine-tuned know what they were trained on, and would be favoured by it.
    """
    if not case.round.has(TRIAL):
        parts = guard.halves(case.rows.train, case.place.settings.seed)
        known = rounds.seen(case.round.ledger, case.round.number, case.rows.train)
        early = case.place.settings.training.recipe.alignment().stops_early
        held_out = {**parts.second, **({} if early else case.rows.holdout)}  # rows that choose its epoch are no judges
        others = {i: label for i, label in held_out.items() if i not in known}
        if parts.first and others:
            made = _tuned(case, parts.first, "trial")
            where = delivery.checkpoint(case.round, made)
            found = {**made, **trial.judge(case.place, case.round, where, parts.first, others, case.classes)}
        else:
            found = {"verdict": guard.unjudged("there are too few labels to divide").to_dict(), "gain": None}
        case.round.commit(TRIAL, {"schema": 1, **found})
    return case.round.json(TRIAL)


def _tuned(case: Case, rows: dict[str, str], folder: str) -> dict[str, Any]:
    recipe, holdout = case.place.settings.training.recipe.alignment(), case.rows.holdout
    where = {"stage": "align", "folder": folder}
    return delivery.tune(case.place, case.round, recipe, rows, holdout, None, case.classes, **where)


def _refused(tried: dict[str, Any]) -> dict[str, Any]:
    reason = f"Features kept: {tried['verdict']['reason']}."
    return {"schema": 1, "accepted": False, "reason": reason, "verdict": tried["verdict"], "gain": tried["gain"]}
