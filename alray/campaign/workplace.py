"""What stages work with: the workers, the backbone in force, its features, and the pool resident on the workers.

Each is opened when it is first needed and paid for as a stage of its own. A stage owns the cluster (decision 28): the
resident pool is let go before pictures are embedded or a backbone is trained, and loaded again after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from alray import gauges, storage
from alray.campaign.costs import Meter
from alray.campaign.ledger import Ledger
from alray.campaign.material import Material
from alray.campaign.settings import Settings
from alray.errors import RunError, StoragePathError
from alray.features import FeaturesConfig, FeatureSet, build
from alray.features.build import describe
from alray.models import Head
from alray.models import backbone as backbones
from alray.models.backbone import plain
from alray.pool import Pool
from alray.pool.quarantine import Quarantine
from alray.runtime import Resources, Runtime, open_runtime
from alray.selection import ResidentPool
from alray.table import Table
from alray.training import fit_head
from alray.training.pretrain import PretrainConfig, pretrain

PRETRAINED = "pretrained.json"
"""Says which of the folders in `pretrain.path` this run's backbone is."""

BACKBONES = "backbones"
"""Has a file for each backbone that the run has worked with: what it was, to be held against what it is now."""


_RESTORE = "Restore what it was from a copy, or start a new run."


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
        self._same: set[str] = set()  # backbones that were held against what they were
        self._open = ExitStack()
        self._runtime: Runtime | None = None
        self._pretrained: FeaturesConfig | None = None
        self._aligned: tuple[int, str] | None = None  # round and checkpoint in force, in place of the pre-trained one
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
    def pretrained(self) -> FeaturesConfig:
        """The backbone that every training run starts from: as set, or pre-trained on the pool first."""
        if self._pretrained is None:
            self._pretrained = self._as_before("pretrained", self._with_own_weights())
        return self._pretrained

    @property
    def backbone(self) -> FeaturesConfig:
        """The backbone in force: the pre-trained one, or the last that an alignment made."""
        if self._aligned is None:
            return self.pretrained
        number, checkpoint = self._aligned
        return self._as_before(f"{number:04d}", self.settings.features.model_copy(update={"weights": checkpoint}))

    def note_backbone(self) -> None:
        """Keep what the backbone in force is, or refuse it if it is not what it was."""
        _ = self.backbone

    def stand_on(self, aligned: tuple[int, str] | None) -> None:
        """Work on the features of this round's checkpoint from here on; None: on those of the pre-trained backbone."""
        if aligned != self._aligned:
            self.release()
            self._aligned, self._features, self._test_features = aligned, None, None

    @property
    def features(self) -> FeatureSet:
        """The features of the pool, by the backbone in force."""
        if self._features is None:
            self._features = self._built(self.material.pool, "features")
        return self._features

    @property
    def test_features(self) -> FeatureSet:
        """The features of the test rows, of which there must be some."""
        if self._test_features is None:
            assert self.material.test is not None
            self._test_features = self._built(self.material.test.pool, "test")
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

    def proxy(self, known: Table, labels: Mapping[str, str], classes: Sequence[str], *, stage: str) -> Head:
        """Return the proxy that `head` describes, fitted on the features of labelled rows."""
        texts = [labels[i] for i in known.ids]
        arguments = (self.settings.head, known["features"].numpy(), texts, list(classes), self.settings.seed)
        head: Head = self.runtime.call(fit_head, *arguments, stage=stage)
        return head

    def release(self) -> None:
        """Let the resident pool go."""
        if self._scan is not None:
            self._scan.held.close()
            self._scan = None

    def close(self) -> None:
        """Give everything back."""
        self.release()
        self._open.close()

    def _built(self, pool: Pool, stage: str) -> FeatureSet:
        runtime, backbone = self.runtime, self.settings.features
        if pool.kind != "features":
            backbone = self.backbone
            self.release()
        with self.meter.stage(stage, self.round):
            features = build(pool, backbone, runtime, seed=self.settings.seed)
        features.quarantine.check(features.rows, self.settings.pool.max_quarantine)
        return features

    def _with_own_weights(self) -> FeaturesConfig:
        """Return the backbone's settings with the weights that `pretrain` makes of the pool, if it is set.

        Which they are is kept in the run: a pool that has grown would make others, and the features must not change
        under a campaign. Paths become absolute, since workers may stand in another folder.
        """
        features, own = self.settings.features, self.settings.pretrain
        if own is None:
            return features.model_copy(update={"weights": backbones.absolute(features.weights)})
        own = own.beside(features.path)
        known = self.ledger.read_json(PRETRAINED)["folder"] if self.ledger.has(PRETRAINED) else None
        if known is None or not storage.exists(storage.join(own.path or "", known, backbones.BACKBONE_FILE)):
            known = self._pretrain(own, known)
        return features.model_copy(update={"weights": backbones.absolute(storage.join(own.path or "", known))})

    def _as_before(self, name: str, backbone: FeaturesConfig) -> FeaturesConfig:
        """Return a backbone that is still what it was: files of weights, and code of the user's own, may change.

        Rows picked with one backbone's head on another one's features would be picked by nothing.
        """
        if name in self._same:
            return backbone
        piece, weights, runtime = f"{BACKBONES}/{name}.json", backbone.weights, self.runtime
        with self.meter.stage("load", self.round):
            try:
                found = runtime.call(describe, plain(backbone), self.settings.seed, stage="backbone")[0]
            except StoragePathError as e:
                raise RunError(f"The backbone {weights} is not whole: {e} {_RESTORE}") from e
        if not self.ledger.has(piece):
            self.ledger.commit_json(piece, {"schema": 1, "fingerprint": found})
        elif (before := self.ledger.read_json(piece)["fingerprint"]) != found:
            raise RunError(
                f"The backbone {backbone.backbone} with the weights {weights} is not the one that this run worked with "
                f"(fingerprint {found[:12]}, it was {before[:12]}): its weights or its code have changed. {_RESTORE}"
            )
        self._same.add(name)
        return backbone

    def _pretrain(self, own: PretrainConfig, known: str | None) -> str:
        runtime, pool, backbone = self.runtime, self.material.pool, plain(self.settings.features)
        self.release()
        with self.meter.stage("pretrain", self.round):
            made = pretrain(own, pool, backbone, runtime, seed=self.settings.seed)
        folder = made.checkpoint.rstrip("/").rsplit("/", 1)[1]
        if known is not None and folder != known:
            raise RunError(
                f"The backbone that this run selects with, {own.path}/{known}, is gone, and what would be trained now "
                f"is another one ({folder}): the pool has changed. Restore that folder from a copy, or start a new run."
            )
        self.ledger.commit_json(PRETRAINED, {"schema": 1, "folder": folder})
        return folder

    def _keep_quarantine(self, found: Quarantine) -> None:
        """Stop if too much of the pool is unreadable; else keep the list of what is."""
        gauges.show("alray_quarantined_rows", len(found))
        found.check(self.material.pool.rows, self.settings.pool.max_quarantine)
        if len(found):
            self.ledger.guard()
            found.write(self.ledger.uri("quarantine.parquet"))

    def _held(self) -> Resources:
        return self._runtime.resources if self._runtime is not None else Resources(cpus=0.0)
