"""A safetensors file of ours: the same bytes for the same content, and readable by the library."""

import numpy as np
import pytest
import safetensors.numpy

from alray.models import tensor_file

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(7, dtype=np.int64),
    "none": np.zeros((0, 4), np.float16),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "big": np.arange(3, dtype=">f4"),
    "flags": np.array([True, False]),
}


def test_arrays_and_metadata_come_back(tmp_path):
    uri = str(tmp_path / "x.safetensors")
    tensor_file.save(uri, ARRAYS, {"kind": "é\n\"'", "schema": "1"})
    arrays, metadata = tensor_file.load(uri)
    assert metadata == {"kind": "é\n\"'", "schema": "1"}
    theirs = safetensors.numpy.load_file(uri)
    for found in (arrays, theirs):
        assert set(found) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].shape == array.shape and np.array_equal(found[name], array)


def test_bytes_do_not_depend_on_the_order_given():
    turned = dict(reversed(ARRAYS.items()))
    assert tensor_file.to_bytes(ARRAYS, {"x": "1", "y": "2"}) == tensor_file.to_bytes(turned, {"y": "2", "x": "1"})


def test_the_arrays_are_aligned():
    for length in range(9):
        data = tensor_file.to_bytes({"w": np.ones(2)}, {"x": "y" * length})
        assert int.from_bytes(data[:8], "little") % 8 == 0


@pytest.mark.parametrize("dtype", ["complex64"])
def test_a_type_that_the_format_lacks_is_not_written(dtype):
    with pytest.raises(KeyError):
        tensor_file.to_bytes({"w": np.zeros(1, dtype)}, {})
