"""A simulated labeller that reads known labels from a file: for experiments, where the answers exist already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from alray.errors import LabelsError
from alray.labelling.base import Ask, Labeller
from alray.labelling.labels import CANCELLED, LABELLED, SKIPPED, Labels, read_labels

EXAMPLES = 5


class Oracle(Labeller):
    """Answers at once, always the same: it needs no memory of what it was asked."""

    name: Literal["oracle"] = "oracle"
    path: str  # labels file with every id that can be picked
    sources: ClassVar[tuple[str, ...]] = ("path",)

    def ask(self, asks: Sequence[Ask]) -> None:
        """Check that every id can be answered, before anything is charged."""
        self._answers(asks)

    def collect(self, asks: Sequence[Ask]) -> Labels:
        """Return one answer per ask, in the order of `asks`."""
        answers = self._answers(asks)
        return Labels.of(
            {
                "id": ask.id,
                "label": answers[ask.id][0],
                "status": answers[ask.id][1],
                "annotator": self.name,
                "origin": self.name,
                "round": ask.round,
                "request_id": ask.request_id,
            }
            for ask in asks
        )

    def _answers(self, asks: Sequence[Ask]) -> dict[str, tuple[str | None, str]]:
        """Return the label of each asked id, and its status; no label where the file has it skipped or cancelled."""
        wanted = {ask.id for ask in asks}
        if not wanted:
            return {}
        labels = read_labels(self.path).only(wanted)
        known: dict[str, tuple[str | None, str]] = {id_: (None, CANCELLED) for id_ in labels.ids}
        known |= {id_: (None, SKIPPED) for id_ in labels.paid_ids()}
        known |= {id_: (label, LABELLED) for id_, label in labels.mapping().items()}
        missing = sorted(wanted - known.keys())
        if missing:
            some = ", ".join(missing[:EXAMPLES])
            raise LabelsError(
                f"`labeller.path` {self.path} has no label for {len(missing)} of {len(wanted)} picked ids, "
                f"e.g. {some}. Add their labels, or take these rows out of the pool."
            )
        return known
