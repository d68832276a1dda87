"""A round's evidence: measured, recorded as JSON, and nothing where there is none."""

from __future__ import annotations

import json

import torch
from direct_evidence import clusters

from alray.ops.logme import logme
from alray.ops.moments import Coordinates, Moments
from alray.ops.ped import descend
from alray.proxy.evidence import Evidence, measure


def test_evidence_is_logme_before_and_after_the_descent() -> None:
    features_MD, target_M = clusters(120, 16, 16)
    moments, general = Moments.of(features_MD, target_M, 4), Coordinates.of(features_MD * 1.5)
    found = measure(moments, general)
    descent = descend(moments, general)
    assert (found.labels, found.classes, found.reason) == (120, 4, "")
    assert found.logme == logme(moments).score and found.logme_ped == logme(descent.moments).score
    assert (found.ped_steps, found.shift) == (descent.steps, descent.shift) and found.ped_steps > 0
    assert found.logme is not None and found.logme_ped is not None and found.logme_ped > found.logme


def test_classes_without_rows_are_not_counted() -> None:
    features_MD, target_M = clusters(120, 16, 16)
    general = Coordinates.of(features_MD)
    assert measure(Moments.of(features_MD, target_M * 3 + 1, 40), general) == measure(
        Moments.of(features_MD, target_M, 4), general
    )


def test_no_evidence_says_why() -> None:
    general = Coordinates.of(torch.randn(9, 3))
    found = measure(Moments.of(torch.ones(3, 3), torch.full((3,), 2), 4), general)
    said = "all 3 labelled rows are of one class; evidence needs at least 2 classes"
    assert found == Evidence(3, 1, None, None, reason=said)
    assert measure(Moments.none(3, 4), general).reason == "0 labelled rows; evidence needs at least 2"


def test_a_record_comes_back_from_json() -> None:
    features_MD, target_M = clusters(50, 8, 8)
    for found in (
        measure(Moments.of(features_MD, target_M, 4), Coordinates.of(features_MD)),
        measure(Moments.none(8, 4), Coordinates.of(features_MD)),
    ):
        record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert Evidence.from_dict(record) == found
        assert Evidence.from_dict({**record, "of a later version": 1}) == found
