"""Asking for labels: what a label is, and who gives it."""

from alray.labelling.base import Ask, Labeller
from alray.labelling.labels import CANCELLED, LABELLED, SKIPPED, Labels, parse_labels, read_labels
from alray.labelling.oracle import Oracle

LABELLERS: dict[str, type[Labeller]] = {"oracle": Oracle}

__all__ = [
    "CANCELLED",
    "LABELLED",
    "LABELLERS",
    "SKIPPED",
    "Ask",
    "Labeller",
    "Labels",
    "Oracle",
    "parse_labels",
    "read_labels",
]
