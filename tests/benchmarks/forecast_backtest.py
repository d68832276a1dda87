"""Forecasts of finished campaigns against what came true: the accuracy on the test set, one and three rounds ahead.

    python tests/benchmarks/forecast_backtest.py RUN [RUN …] [--test-rows 359]

For each round of each run, the learning curve of the estimates up to it foretells the accuracy that later rounds have
on the test set; forecasts across an update of the features are left out, since no curve foretells those. `--test-rows`
widens the interval by what a test set of so many rows leaves open; runs that share a test set share its luck. What is
forecast is the round's head: only runs whose rounds deliver it (the recipe `linear_probe`), or that fine-tune in every
round, measure that. Prints a line a run, and exits 1 when fewer than 80 % or more than 98 % of 60 forecasts or more
hold what came true.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple

from alray.campaign import rounds
from alray.campaign.forecast import learning_curve
from alray.campaign.ledger import Ledger
from alray.campaign.opening import home

AHEAD = (1, 3)


class Told(NamedTuple):
    """What was foretold `ahead` rounds before, and what came true."""

    ahead: int
    low: float
    mid: float
    high: float
    truth: float

    @property
    def held(self) -> bool:
        """Whether the interval holds what came true."""
        return self.low <= self.truth <= self.high


def backtest(records: list[dict[str, Any]], test_rows: int | None) -> list[Told]:
    """Return the forecasts of one run, from its `round.json`s."""
    out = []
    for number in range(len(records)):
        past = [record["estimate"] for record in records[: number + 1] if record.get("estimate")]
        curve = learning_curve(past, reach=4.0)
        for ahead in AHEAD:
            if curve is None or number + ahead >= len(records):
                continue
            then = records[number + ahead]
            if then["accuracy"] is None or not then.get("estimate") or then["estimate"]["since"] != past[-1]["since"]:
                continue
            truth = then["accuracy"]
            se = (truth * (1 - truth) / test_rows) ** 0.5 if test_rows else 0.0
            found = curve.predict(then["estimate"]["fitted"], se=se)
            if found is not None:
                out.append(Told(ahead, *found, truth))
    return out


def line(name: str, told: list[Told]) -> str:
    """Return what a line of the table says of some forecasts."""
    if not told:
        return f"{name:<40} {0:>5}"
    miss = sum(abs(one.mid - one.truth) for one in told) / len(told)
    width = sum(one.high - one.low for one in told) / len(told)
    return f"{name:<40} {len(told):>5} {sum(one.held for one in told) / len(told):>8.1%} {width:>7.3f} {miss:>8.4f}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--test-rows", type=int)
    given = parser.parse_args()
    print(f"{'run':<40} {'n':>5} {'in 90 %':>8} {'width':>7} {'|error|':>8}")
    every: list[Told] = []
    for run in given.runs:
        done = rounds.closed(Ledger(home(run)))
        told = backtest([one.json(rounds.RECORD) for one in done], given.test_rows)
        print(line(run[-40:], told))
        every += told
    for ahead in AHEAD:
        print(line(f"all, {ahead} ahead", [one for one in every if one.ahead == ahead]))
    print(line("all", every))
    share = sum(one.held for one in every) / max(1, len(every))
    return 1 if len(every) >= 60 and not 0.8 <= share <= 0.98 else 0


if __name__ == "__main__":
    sys.exit(main())
