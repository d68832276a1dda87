"""What stages work with: the workers, the features of pool and test rows, and the pool resident on the workers.

Each is opened when it is first needed and paid for as a stage of its own. A stage owns the cluster (decision 28): the
resident pool is let go before pictures are embedded or a backbone is trained, and loaded again after.
"""

from __future__ import annotations

from contextlib import ExitStack

from alray.campaign.costs import Meter
from alray.campaign.ledger import Ledger
from alray.campaign.material import Material
from alray.campaign.settings import Settings
from alray.errors import RunError
from alray.features import FeatureSet, build
from alray.pool import Pool
from alray.pool.quarantine import Quarantine
from alray.runtime import Resources, Runtime, open_runtime
from alray.selection import ResidentPool


class Workplace:
    """Everything that one attempt holds on its workers; `close` gives it back."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        material: Material,
        attempt: int,
    ) -> None:
        self.settings, self.ledger, self.material = settings, ledger, material
        self.refusal: str | None = None  # why no workers may be asked for
        self.round = 0  # that new costs are charged to
        self.meter = Meter(ledger, attempt, self._held)
        self._open = ExitStack()
        self._runtime: Runtime | None = None
        self._features: FeatureSet | None = None
        self._test_features: FeatureSet | None = None
        self._scan: ResidentPool | None = None

    @property
    def runtime(self) -> Runtime:
        """The workers."""
        if self._runtime is None:
            if self.refusal is not None:
                raise RunError(self.refusal)
            with self.meter.stage("workers", self.round):
                self._runtime = self._open.enter_context(open_runtime(self.settings.runtime))
        return self._runtime

    @property
    def features(self) -> FeatureSet:
        """The features of the pool."""
        if self._features is None:
            self._features = self._built(self.material.pool)
        return self._features

    @property
    def test_features(self) -> FeatureSet:
        """The features of the test rows, of which there must be some."""
        if self._test_features is None:
            assert self.material.test is not None
            self._test_features = self._built(self.material.test.pool)
        return self._test_features

    @property
    def scan(self) -> ResidentPool:
        """The pool resident on the workers."""
        if self._scan is None:
            features, runtime = self.features, self.runtime
            with self.meter.stage("load", self.round):
                self._scan = ResidentPool(features, runtime)
                self._keep_quarantine(self._scan.quarantine())
        return self._scan

    def release(self) -> None:
        """Let the resident pool go."""
        if self._scan is not None:
            self._scan.held.close()
            self._scan = None

    def close(self) -> None:
        """Give everything back."""
        self.release()
        self._open.close()

    def _built(self, pool: Pool) -> FeatureSet:
        runtime = self.runtime
        if pool.kind != "features":
            self.release()
        with self.meter.stage("features", self.round):
            features = build(pool, self.settings.features, runtime, seed=self.settings.seed)
        features.quarantine.check(features.rows, self.settings.pool.max_quarantine)
        return features

    def _keep_quarantine(self, found: Quarantine) -> None:
        """Stop if too much of the pool is unreadable; else keep the list of what is."""
        found.check(self.material.pool.rows, self.settings.pool.max_quarantine)
        if len(found):
            self.ledger.guard()
            found.write(self.ledger.uri("quarantine.parquet"))

    def _held(self) -> Resources:
        return self._runtime.resources if self._runtime is not None else Resources(cpus=0.0)
