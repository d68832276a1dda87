"""How far a run has come, and the folder that it is stored in."""

import math

import pytest
import torch

from alray.models import backbone
from alray.models.backbone import BackboneConfig
from alray.training import classifier
from alray.training.classifier import Progress

PIXELS = BackboneConfig(backbone="torch.nn:Flatten", image_size=8)


def test_progress_counts_the_epochs_since_the_best():
    progress = Progress()
    assert [progress.advance(nll) for nll in (3.0, 2.0, 2.0, 2.5, 1.0)] == [True, True, False, False, True]
    assert progress == Progress(epoch=5, best=1.0, waited=0)


def test_every_epoch_delivers_when_there_is_no_holdout():
    progress = Progress()
    assert progress.advance(None) and progress == Progress(1, math.inf, 0)
    assert not progress.finished(2, None) and Progress(2).finished(2, None) and Progress(1, 0.5, 3).finished(9, 3)


@pytest.mark.parametrize("holdout", [True, False])
def test_a_checkpoint_restores_the_current_weights_and_delivers_the_best(tmp_path, holdout):
    model = classifier.build(backbone.load(PIXELS, 1), 3, None, seed=0)
    best = classifier.snapshot(model) if holdout else None
    with torch.no_grad():
        model.layer.weight.add_(1.0)
    state = {"step": 4}
    classifier.save(tmp_path, model, ("a", "b", "c"), best=best, progress=Progress(2, 0.5, 1), optimiser=state, seed=1)
    again = classifier.build(backbone.load(PIXELS, 1), 3, None, seed=9)
    progress, optimiser, delivered = classifier.restore(tmp_path, again, holdout=holdout)
    assert progress == Progress(2, 0.5, 1) and optimiser == state
    assert torch.equal(again.layer.weight, model.layer.weight)
    assert (delivered is None) == (not holdout)
    if best is not None and delivered is not None:
        assert torch.equal(delivered["layer.weight"], best["layer.weight"])
    assert classifier.classes_of(str(tmp_path)) == ("a", "b", "c")
