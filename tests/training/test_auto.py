"""Auto: LP-FT before an update of the features, fine-tuning after, and updates made by its fine-tuning."""

from __future__ import annotations

from pathlib import Path

import builders
import pytest

from alray.config import family
from alray.errors import ModelError
from alray.models.backbone import BackboneConfig
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.training import RECIPES, Auto, FineTune, HeadConfig, LinearProbe, LpFt, Recipe, TrainSet

PIXELS = BackboneConfig(backbone="torch.nn:Flatten", image_size=8)
CLASSES = [f"class-{i}" for i in range(4)]


def test_it_is_lp_ft_before_an_update_and_fine_tuning_after() -> None:
    recipe = Auto(lp_ft=LpFt(epochs=2), fine_tune=FineTune(epochs=3))
    assert recipe.choose(False) == LpFt(epochs=2)
    assert recipe.choose(True) == recipe.alignment() == FineTune(epochs=3)


@pytest.mark.parametrize("recipe", [LinearProbe(), LpFt(epochs=2), FineTune(epochs=2)])
def test_the_other_recipes_choose_themselves(recipe: Recipe) -> None:
    assert recipe.choose(False) is recipe.choose(True) is recipe


def test_an_update_is_made_by_the_recipes_own_fine_tuning_or_the_defaults() -> None:
    assert FineTune(epochs=2).alignment() == FineTune(epochs=2)
    assert LinearProbe().alignment() == LpFt(epochs=2).alignment() == FineTune()


def test_it_is_set_by_its_name_and_the_names_of_its_parts() -> None:
    found = family(Recipe, RECIPES).build({"name": "auto", "fine_tune": {"epochs": 3}})
    assert found == Auto(fine_tune=FineTune(epochs=3))
    assert family(Recipe, RECIPES).build("auto") == Auto(lp_ft=LpFt(), fine_tune=FineTune())


def test_a_pool_of_features_is_refused_before_labels_are_paid_for(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path)
    with pytest.raises(ModelError, match="the pool holds `features` and no pictures"):
        Auto().fits(Pool.open(path), HeadConfig())


def test_without_being_asked_it_trains_by_lp_ft(tmp_path: Path) -> None:
    path, ids, labels = builders.image_pool(tmp_path / "pool")
    rows, recipe = TrainSet(Pool.open(path), ids, labels, CLASSES), LpFt(epochs=1, batch=8)
    made = [
        one.train(rows, PIXELS, None, LocalRuntime(), name="r", folder=str(tmp_path / str(at)), seed=1)
        for at, one in enumerate([Auto(lp_ft=recipe), recipe])
    ]
    assert made[0].head.digest() == made[1].head.digest()
