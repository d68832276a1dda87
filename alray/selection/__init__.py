"""The best B rows of a pool that no machine can hold."""

from alray.selection.picks import Picks
from alray.selection.resident_pool import ResidentPool, Selection, SelectionConfig
from alray.selection.select import select

__all__ = ["Picks", "ResidentPool", "Selection", "SelectionConfig", "select"]
