"""The gradient of the cross-entropy at the predicted class, in two factors (Ash et al., ICLR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from alray.ops.affine import affine


def residuals(probs_NC: Tensor) -> Tensor:
    """Return a = p − e_y with y the most likely class, [N, C]: the gradient by the last weights is a ⊗ h.

    a_y is minus the sum of the other probabilities, which keeps its digits where p_y rounds to 1.
    """
    label_N1 = probs_NC.argmax(dim=1, keepdim=True)
    others_NC = probs_NC.scatter(1, label_N1, 0.0)
    one_1C, zero_1 = torch.ones_like(probs_NC[:1]), torch.zeros_like(probs_NC[0, :1])
    return others_NC.scatter(1, label_N1, -affine(others_NC, one_1C, zero_1))
