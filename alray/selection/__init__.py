"""The best B rows of a pool that no machine can hold."""

from alray.selection.picks import Picks
from alray.selection.resident_pool import ResidentPool
from alray.selection.select import select
from alray.selection.settings import SelectionConfig
from alray.selection.stages import Selection

__all__ = ["Picks", "ResidentPool", "Selection", "SelectionConfig", "select"]
