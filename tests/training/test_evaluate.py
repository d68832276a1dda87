"""Evaluate: numbers worked by hand, and the same outputs however the rows are cut."""

import builders
import numpy as np
import pytest

from alray.errors import LabelsError
from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.training import TrainSet, evaluate
from alray.training import rows as rows_of

CLASSES = [f"class-{i}" for i in range(4)]


def test_measures_by_hand():
    logits_NC = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.2, 0.6, 0.2]]))
    found = evaluate.measure(logits_NC, ["a", "b", "a"], ["a", "b", "c"])
    assert found["accuracy"] == pytest.approx(2 / 3) and found["rows"] == 3
    assert found["nll"] == pytest.approx(-np.log([0.5, 0.5, 0.2]).mean())
    assert found["per_class"] == {"a": 0.5, "b": 1.0}


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(LabelsError, match=r"1 label.* are not among the 2 `classes`: c"):
        evaluate.measure(np.zeros((1, 2)), ["c"], ["a", "b"])


def test_features_and_logits_come_sorted_by_id_without_the_bad_rows(tmp_path):
    cells = [builders.picture(i)[0] if i != 5 else b"broken" for i in range(12)]
    names = [f"row-{99 - i}" for i in range(12)]
    path = builders.parquet(tmp_path / "pool-00.parquet", {"id": names, "image": cells})
    config = BackboneConfig(backbone="mobilenet_v3_small", image_size=32)

    def features(rows_per_shard):
        rows = TrainSet(Pool.open(path, rows_per_shard=rows_per_shard), names, ["class-0"] * 12, CLASSES)
        return evaluate.outputs(evaluate.Model(config), rows_of.locate(rows), LocalRuntime(), stage="embed")

    whole, cut = features(100), features(12)
    assert list(whole.ids) == sorted(set(names) - {"row-94"}) and list(whole.bad) == ["row-94"]
    assert whole.values.dtype == np.float16 and whole.values.shape == (11, 1024)
    assert np.array_equal(whole.values, cut.values)
    head = Head.linear(np.random.default_rng(0).normal(size=(4, 1024)), np.zeros(4), CLASSES)
    head.save(str(tmp_path / "h.safetensors"))
    model = evaluate.Model(config, head=str(tmp_path / "h.safetensors"))
    rows = rows_of.locate(TrainSet(Pool.open(path), names, ["class-0"] * 12, CLASSES))
    logits = evaluate.outputs(model, rows, LocalRuntime(), stage="score").values
    assert logits.shape == (11, 4) and logits.dtype == np.float32
    assert np.allclose(logits, whole.values.astype(np.float32) @ head.weights["weight"].T, atol=0.2)


def test_unreadable_rows_and_unknown_classes_count_as_wrong_even_when_nothing_is_left(tmp_path):
    cells = [builders.picture(i)[0] if i not in (0, 5) else b"broken" for i in range(12)]  # of class-0 and class-1
    names = builders.ids(12)
    path = builders.parquet(tmp_path / "pool-00.parquet", {"id": names, "image": cells})
    labels = [f"class-{i % 4}" for i in range(12)]
    always_0 = Head.linear(np.zeros((3, 192)), np.array([1.0, 0, 0]), CLASSES[:3])
    always_0.save(str(tmp_path / "h.safetensors"))
    pixels = BackboneConfig(backbone="torch.nn:Flatten", image_size=8)
    model = evaluate.Model(pixels, 1, str(tmp_path / "h.safetensors"))

    def accuracy(which):
        rows = TrainSet(Pool.open(path), [names[i] for i in which], [labels[i] for i in which], CLASSES[:3])
        return evaluate.accuracy(model, rows, LocalRuntime())

    found = accuracy(range(12))
    assert (found["accuracy"], found["rows"], found["unreadable"]) == (2 / 12, 12, 2)
    assert found["per_class"] == {"class-0": 2 / 3, "class-1": 0, "class-2": 0, "class-3": 0}
    assert found["nll"] == pytest.approx(np.log(np.e + 2) - 2 / 7)  # over the seven that could be scored
    nothing = {"accuracy": 0, "nll": None}
    assert nothing.items() <= accuracy([0, 5]).items() and nothing.items() <= accuracy([3, 7]).items()
