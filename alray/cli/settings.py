"""Read a campaign's settings the way every command does; write the bundled digits first if they are its pool."""

from __future__ import annotations

from collections.abc import Sequence

from alray import config, storage
from alray.campaign.settings import Settings
from alray.pool import digits


def load(uri: str, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings in the YAML file at `uri` with `key=value` overrides, ready to run.

    A pool at `.quickstart/pool.parquet` is the bundled digits: they are written there the first time.
    """
    settings = config.load(uri, overrides, Settings)
    storage.configure(settings.storage.endpoint, settings.storage.region)
    if settings.pool.path == digits.POOL:
        digits.write(digits.FOLDER)
    return settings
