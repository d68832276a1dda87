"""`alray pretrain`: a short table, a folder that features take, nothing to do the second time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import builders
import pytest

Alray = Callable[..., tuple[int, str, str]]

SECTION = """
features: {{path: {folder}/features, backbone: resnet8, image_size: 8}}
pretrain: {{epochs: 7, batch: 16, dim: 16, hidden: 4, lr: 0.2, flip: false}}
"""


@pytest.fixture
def pictures(campaign: str, tmp_path: Path) -> list[str]:
    """Return the words of a command on a pool of 24 pictures, with `pretrain` in its settings."""
    path, *_ = builders.image_pool(tmp_path / "pictures", files=(24,))
    settings = Path(campaign)
    settings.write_text(settings.read_text() + SECTION.format(folder=tmp_path))
    return [campaign, f"pool.path={path}", "test=null"]


def test_it_trains_once_and_says_how_to_use_what_it_made(pictures: list[str], tmp_path: Path, alray: Alray) -> None:
    code, out, err = alray("pretrain", *pictures)
    assert code == 0, err
    epochs = [int(found) for found in re.findall(r"^ *(\d)  .*0\.\d\d\d", out, re.MULTILINE)]
    assert epochs[0] == 1 and epochs[-1] == 7 and len(epochs) == 6
    assert re.search(r"^pictures +24 of 24 read$", out, re.MULTILINE)
    checkpoint = re.search(r"^checkpoint +(\S+)$", out, re.MULTILINE)[1]
    assert checkpoint.startswith(f"{tmp_path}/features/pretrained/simsiam-resnet8-")
    assert f"features.weights={checkpoint}" in out
    assert alray("pretrain", *pictures)[1] == out  # the same seconds: it was not trained again
    code, features, err = alray("features", *pictures, f"features.weights={checkpoint}")
    assert code == 0 and re.search(r"^ *pool +24 +1 +64 ", features, re.MULTILINE), features + err


def test_without_the_section_it_says_what_to_add(campaign: str, alray: Alray) -> None:
    code, _, err = alray("pretrain", campaign)
    assert code == 2 and "`pretrain` is not set" in err and "pretrain.epochs=200" in err


def test_a_collapse_is_an_ending_of_the_run_and_not_a_fault(pictures: list[str], alray: Alray) -> None:
    words = ["pretrain.lr=20", "pretrain.epochs=30", "pretrain.collapse=0.99", "pretrain.collapse_epochs=1"]
    code, _, err = alray("pretrain", *pictures, *words)
    assert code == 1 and "Pre-training collapsed" in err and "Lower `pretrain.lr` (20)" in err
    assert "Traceback" not in err


def test_mistakes_are_said_by_their_key(pictures: list[str], alray: Alray) -> None:
    code, _, err = alray("pretrain", *pictures, "pretrain.crop_scale=2", "pretrain.epoch=3", "pretrain.flip=maybe")
    assert code == 2 and "pretrain.crop_scale" in err and "`epochs`" in err and "pretrain.flip" in err
