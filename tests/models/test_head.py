"""A head is a value: stored with deterministic bytes, checked when it is made, applied as affine maps."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch

from alray.errors import ModelError
from alray.models.head import Head


def linear(classes=("cat", "dog", "eel"), dim=4):
    rng = np.random.default_rng(0)
    return Head.linear(rng.normal(size=(len(classes), dim)), rng.normal(size=len(classes)), classes)


def mlp(classes=("cat", "dog"), dim=4, hidden=5):
    rng = np.random.default_rng(1)
    count = len(classes)
    shapes = {"hidden_weight": (hidden, dim), "hidden_bias": hidden, "weight": (count, hidden), "bias": count}
    return Head("mlp", classes, {name: rng.normal(size=shape) for name, shape in shapes.items()})


def test_a_linear_head_is_one_affine_map():
    head = Head.linear(np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([0.5, 0.0]), ["a", "b"])
    x_ND = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    assert head.logits(x_ND).tolist() == [[3.5, -1.0], [2.5, 0.0]]
    assert head.hidden(x_ND) is x_ND
    assert (head.dim, head.hidden_dim, head.kind) == (2, 2, "linear")


def test_an_mlp_head_has_a_relu_between_its_layers():
    weights = {
        "hidden_weight": np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]),
        "hidden_bias": np.array([0.0, 0.0, 1.0]),
        "weight": np.array([[1.0, 2.0, 3.0]]),
        "bias": np.array([0.25]),
    }
    head = Head("mlp", ("a",), weights)
    assert head.hidden(torch.tensor([[2.0, -3.0]])).tolist() == [[2.0, 0.0, 0.0]]
    assert head.logits(torch.tensor([[2.0, -3.0]])).tolist() == [[2.25]]
    assert (head.dim, head.hidden_dim) == (2, 3)
    weight_CH, bias_C = head.last
    assert weight_CH.dtype == torch.float32 and weight_CH.shape == (1, 3) and bias_C.tolist() == [0.25]


@pytest.mark.parametrize("head", [linear(), mlp(), linear(("é", '"quoted"', "a,b"))])
def test_a_stored_head_comes_back_equal(tmp_path, head):
    uri = str(tmp_path / "head.safetensors")
    head.save(uri)
    again = Head.load(uri)
    assert again.classes == head.classes and again.kind == head.kind and again.digest() == head.digest()
    assert all(np.array_equal(again.weights[name], head.weights[name]) for name in head.weights)


def test_another_library_reads_the_stored_head(tmp_path):
    path = tmp_path / "head.safetensors"
    linear().save(str(path))
    arrays = safetensors.numpy.load_file(path)
    assert arrays["weight"].shape == (3, 4) and arrays["bias"].dtype == np.float32
    with safetensors.safe_open(path, "numpy") as stored:
        assert stored.metadata() == {
            "schema": "1",
            "kind": "linear",
            "activation": "softmax",
            "classes": '["cat", "dog", "eel"]',
        }


def test_equal_heads_have_equal_digests_in_every_process():
    code = (
        "import numpy as np; from alray.models.head import Head; "
        "print(Head.linear(np.eye(2), np.zeros(2), ['a', 'b']).digest())"
    )
    here = Head.linear(np.eye(2), np.zeros(2), ["a", "b"]).digest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here
    assert Head.linear(np.eye(2), np.zeros(2), ["a", "c"]).digest() != here


def test_a_bare_weight_and_bias_is_a_linear_head(tmp_path):
    path = tmp_path / "bare.safetensors"
    safetensors.numpy.save_file({"weight": np.eye(2, 3, dtype=np.float16), "bias": np.zeros(2, np.float16)}, path)
    assert Head.load(str(path)).classes == ("0", "1")
    assert Head.load(str(path), classes=["x", "y"]).classes == ("x", "y")
    assert Head.load(str(path)).weights["weight"].dtype == np.float32


def test_a_bfloat16_head_is_read(tmp_path):
    import safetensors.torch

    path = tmp_path / "bf16.safetensors"
    safetensors.torch.save_file({"weight": torch.eye(2).bfloat16(), "bias": torch.zeros(2).bfloat16()}, path)
    assert np.array_equal(Head.load(str(path)).weights["weight"], np.eye(2))


def test_a_head_cannot_be_changed():
    head, outside = linear(), np.zeros((2, 2))
    with pytest.raises(TypeError):
        head.weights["weight"] = outside  # type: ignore[index]
    kept = Head.linear(outside, np.zeros(2), ["a", "b"])
    outside[:] = 7
    assert not kept.weights["weight"].any()


@pytest.mark.parametrize(
    ("weight", "bias", "classes", "message"),
    [
        (np.eye(2), np.zeros(3), ["a", "b"], "arrays of shapes"),
        (np.eye(2), np.zeros(2), ["a", "b", "c"], "has 2 rows and 3 classes"),
        (np.eye(2), np.zeros(2), ["a", "a"], "names the classes 'a' more than once"),
        (np.eye(2), np.zeros(2), ["a", ""], "a string that is not empty"),
        (np.full((2, 2), np.nan), np.zeros(2), ["a", "b"], "NaN or infinite numbers in `weight`"),
        (np.zeros(2), np.zeros(2), ["a", "b"], r"Expected `weight` \[C, D\], `bias` \[C\] for a linear head"),
    ],
)
def test_a_wrong_head_is_refused(weight, bias, classes, message):
    with pytest.raises(ModelError, match=message):
        Head.linear(weight, bias, classes)


def test_wrong_arrays_are_named(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"fc.weight": np.eye(2, dtype=np.float32)}, path)
    with pytest.raises(ModelError, match=r"holds the arrays \['fc.weight'\]. Expected exactly \['bias', 'weight'\]"):
        Head.load(str(path))


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "head.safetensors").write_bytes(b"not a head at all")
    with pytest.raises(ModelError, match="is not a readable safetensors file"):
        Head.load(str(tmp_path / "head.safetensors"))
    linear().save(str(tmp_path / "cut.safetensors"))
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-4])
    with pytest.raises(ModelError, match="is not a readable safetensors file"):
        Head.load(str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"schema": "2"}, "has schema 2; this alray reads up to 1"),
        ({"kind": "tree"}, "says `kind` 'tree'. Expected one of linear, mlp"),
        ({"activation": "sigmoid"}, "says `activation` 'sigmoid'"),
        ({"classes": "cat,dog"}, "Expected a JSON list of strings"),
        ({"classes": "[1, 2]"}, "a string that is not empty"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path, metadata, message):
    path = tmp_path / "head.safetensors"
    arrays = {"weight": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    safetensors.numpy.save_file(arrays, path, metadata)
    with pytest.raises(ModelError, match=message):
        Head.load(str(path))


def test_other_classes_than_the_heads_are_refused(tmp_path):
    linear().save(str(tmp_path / "h"))
    with pytest.raises(ModelError, match="was trained on the classes 'cat', 'dog', 'eel'; `classes` says 'dog', 'cat'"):
        Head.load(str(tmp_path / "h"), classes=["dog", "cat"])


def test_a_head_can_be_sent():
    again = pickle.loads(pickle.dumps(mlp()))
    assert again.digest() == mlp().digest() and again.source == "The head"


def test_features_of_another_size_are_refused():
    with pytest.raises(ModelError, match="takes features of size 4, these have 3"):
        linear().logits(torch.zeros(2, 3))
