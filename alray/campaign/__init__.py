"""The story: rounds of selection, labelling and training, and the ledger that survives them."""

from alray.campaign.campaign import run
from alray.campaign.settings import Settings
from alray.campaign.status import Status, ready, status

__all__ = ["Settings", "Status", "ready", "run", "status"]
