"""`alray run`: start a campaign, or go on with it."""

from __future__ import annotations

from typing import Annotated

import typer

from alray.campaign.campaign import run as run_campaign
from alray.cli.settings import load
from alray.cli.status import print_rounds


def run(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of a campaign.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings to change.")] = None,
) -> None:
    """Start a campaign, or go on with it: the same command does both."""
    print_rounds(run_campaign(load(config, words or ())))
