"""The probe: the optimum of a stated loss, the same bits every time, and every class has a row."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from alray.errors import LabelsError, ModelError
from alray.training.probe import HeadConfig, fit_head, fit_linear

CLASSES = ["a", "b", "c"]


def rows(n=200, dim=8, classes=CLASSES, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    number = np.arange(n) % len(classes)
    centres = rng.normal(size=(len(classes), dim)) * spread
    features = (centres[number] + rng.normal(size=(n, dim))).astype(np.float16)
    return features, [classes[i] for i in number]


def accuracy(head, features, labels):
    guesses = head.logits(torch.from_numpy(features).float()).argmax(1)
    return np.mean([head.classes[g] == label for g, label in zip(guesses, labels, strict=True)])


def test_the_linear_head_is_the_optimum_that_scikit_learn_finds():
    features, labels = rows()
    head = fit_linear(features, labels, CLASSES, l2=2.0, tol=1e-9)
    other = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000).fit(features.astype(np.float64), labels)
    logits = head.logits(torch.from_numpy(features).float())
    assert np.allclose(torch.softmax(logits, 1).numpy(), other.predict_proba(features.astype(np.float64)), atol=1e-5)


def test_balanced_weights_are_those_of_scikit_learn():
    features, labels = rows(120)
    keep = [i for i, label in enumerate(labels) if label != "c" or i % 4 == 2]
    features, labels = features[keep], [labels[i] for i in keep]
    head = fit_linear(features, labels, CLASSES, tol=1e-9, class_weights="balanced")
    other = LogisticRegression(tol=1e-10, max_iter=5000, class_weight="balanced")
    other.fit(features.astype(np.float64), labels)
    probs = torch.softmax(head.logits(torch.from_numpy(features).float()), 1).numpy()
    assert np.allclose(probs, other.predict_proba(features.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_same_rows_give_the_same_bits_on_any_number_of_threads(kind):
    features, labels = rows(400, dim=32)
    config = HeadConfig(kind=kind, hidden=16, epochs=3, batch=64)
    digests = set()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            digests.add(fit_head(config, features, labels, CLASSES, seed=1).digest())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_fp32_rows_give_the_head_of_the_equal_fp16_rows():
    features, labels = rows()
    wider = features.astype(np.float32)
    assert fit_linear(features, labels, CLASSES).digest() == fit_linear(wider, labels, CLASSES).digest()


def test_class_order_is_the_settings():
    features, labels = rows()
    one, two = fit_linear(features, labels, CLASSES), fit_linear(features, labels, ["c", "a", "b"])
    assert two.classes == ("c", "a", "b")
    assert np.allclose(one.weights["weight"][[2, 0, 1]], two.weights["weight"], atol=1e-4)


def test_a_class_without_labels_keeps_a_row_and_is_never_the_guess():
    features, labels = rows()
    head = fit_linear(features, labels, ["a", "zebra", "b", "c"])
    assert head.classes == ("a", "zebra", "b", "c")
    assert not head.weights["weight"][1].any() and np.isfinite(head.weights["bias"]).all()
    probs = torch.softmax(head.logits(torch.from_numpy(features).float()), 1)
    assert accuracy(head, features, labels) > 0.9 and probs[:, 1].mean() < 0.05


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("count", [1, 5])
def test_one_class_and_even_one_row_give_a_head(kind, count):
    features, _ = rows(count)
    head = fit_head(HeadConfig(kind=kind, hidden=4, epochs=2), features, ["b"] * count, CLASSES, seed=0)
    assert head.classes == tuple(CLASSES)
    assert accuracy(head, features, ["b"] * count) == 1.0 or kind == "mlp"


def test_an_unknown_label_names_the_nearest_class():
    features, _ = rows(2)
    with pytest.raises(LabelsError, match=r"1 label\(s\) are not among the 2 `classes`: catt. Did you mean `cat`\?"):
        fit_linear(features, ["cat", "catt"], ["cat", "dog"])


def test_no_rows_and_bad_features_are_refused():
    with pytest.raises(LabelsError, match="no labelled rows to fit on"):
        fit_linear(np.zeros((0, 4)), [], CLASSES)
    with pytest.raises(ModelError, match=r"Features of shape \[2, 4\] for 1 labels"):
        fit_linear(np.zeros((2, 4)), ["a"], CLASSES)
    with pytest.raises(ModelError, match="NaN or infinite features"):
        fit_linear(np.full((1, 4), np.nan), ["a"], CLASSES)
