"""BALD: label where draws of the model are each sure, and disagree."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from alray.ops.disagreement import mutual_information
from alray.strategies.base import ScoreStrategy
from alray.strategies.kinds.dropout import DropoutStrategy
from alray.table import Table


class Bald(DropoutStrategy, ScoreStrategy):
    """Score = H(mean p) − mean H(p) over dropout draws (Houlsby et al., 2011, eq. 2; Gal, Islam & Ghahramani, 2017).

    The mutual information of a row's label and the model, in nats, with dropout draws for the model: of what goes into
    the head's last layer or into the head, or of the backbone's own dropout layers.
    """

    name: Literal["bald"] = "bald"
    paper: ClassVar[str] = "Gal, Islam & Ghahramani, ICML 2017"
    cost: ClassVar[str] = "S·N·D·C"

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        passes = self.passes(rows, prepared)
        return mutual_information(logits_NC.softmax(dim=1) for logits_NC in passes).float()
