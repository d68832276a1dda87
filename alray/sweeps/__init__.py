"""Many campaigns at once: a grid of settings and seeds, run side by side and compared, and the best written down."""

from alray.sweeps.settings import Sweep, SweepConfig, load
from alray.sweeps.sweep import Finished, run

__all__ = ["Finished", "Sweep", "SweepConfig", "load", "run"]
