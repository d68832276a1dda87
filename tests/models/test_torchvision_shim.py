"""torchvision imports whatever torch it was built for; a native build is left as it is."""

import subprocess
import sys

CODE = """
import sys
import alray.models
from alray.models import torchvision_shim as shim
assert shim.state() == "not imported" and "torchvision" not in sys.modules and "ray" not in sys.modules
{before}
import torchvision
from torchvision.transforms import v2
model = torchvision.models.get_model("resnet18")
print(shim.state(), shim._Watch in sys.meta_path, shim._library is None)
"""


def run(before=""):
    out = subprocess.run([sys.executable, "-c", CODE.format(before=before)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout.split()


def test_torchvision_imports_and_builds_a_classifier():
    state, watching, untouched = run()
    assert watching == "False"
    assert (state, untouched) in {("shim", "False"), ("native", "True")}


def test_nothing_is_defined_beside_a_native_build():
    # A native build is played by defining the operators as its extension would; a second definition would raise.
    before = """
import torch
native = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    native.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
shim._native_loads = lambda package: True
"""
    assert run(before) == ["native", "False", "True"]


def test_install_twice_watches_once():
    out = run("shim.install(); shim.install(); assert sys.meta_path.count(shim._Watch) == 1")
    assert out[1] == "False"
