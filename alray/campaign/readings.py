"""What the ledger says of a run, shown as gauges (`alray/gauges.py`).

It is read anew each time, so that a driver that takes a run over shows what all of them together have bought and spent.
"""

from __future__ import annotations

from collections import Counter

from alray import gauges
from alray.campaign import outlook, rounds
from alray.campaign.costs import CostsConfig
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import COST, RECORD, Round


def show(ledger: Ledger, prices: CostsConfig) -> None:
    """Show the round that a run is at, its labels, dollars, seconds by stage, and the last accuracy."""
    done = rounds.closed(ledger)
    gauges.show("alray_round", len(done))
    balance = ledger.balance()
    gauges.show("alray_labels_bought", balance.paid)
    gauges.show("alray_labels_outstanding", balance.outstanding)
    bills = [*(one.json(COST) for one in done), outlook.bill(ledger, prices, Round(ledger, len(done)))]
    gauges.show("alray_cost_dollars", sum(bill["label_dollars"] for bill in bills), kind="labels")
    gauges.show("alray_cost_dollars", sum(bill["compute"]["dollars"] for bill in bills), kind="compute")
    seconds = Counter[str]()
    for bill in bills:
        seconds.update({name: spent["seconds"] for name, spent in bill["stages"].items()})
    for name, total in seconds.items():
        gauges.show("alray_stage_seconds", total, stage=name)
    known = [accuracy for one in done if (accuracy := one.json(RECORD)["accuracy"]) is not None]
    if known:
        gauges.show("alray_accuracy_ratio", known[-1])
