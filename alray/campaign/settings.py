"""What a campaign is told: one field a room, each room's settings in its own file (decision 17).

`run` names the folder; some settings are fixed for the life of a run (see `opening.py`), the others may change
between two commands.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from alray import storage
from alray.campaign.budget import BudgetConfig
from alray.campaign.costs import CostsConfig
from alray.campaign.forecast import ForecastConfig
from alray.campaign.stopping import StoppingConfig
from alray.config import Config, family
from alray.errors import StrategyError
from alray.features import FeaturesConfig
from alray.labelling import LABELLERS, Labeller
from alray.pool import PoolConfig
from alray.proxy.switch import LogmePed, Off, SwitchFamily, SwitchRule, from_words
from alray.runtime import RuntimeConfig
from alray.selection import SelectionConfig
from alray.strategies import Strategy
from alray.strategies.registry import StrategyFamily
from alray.training import RECIPES, HeadConfig, LinearProbe, Recipe
from alray.training.pretrain import PretrainConfig

LabellerFamily = family(Labeller, LABELLERS)
RecipeFamily = family(Recipe, RECIPES)


class TestConfig(Config):
    """The rows that accuracy is measured on: a pool of their own, never labelled or trained on."""

    __test__ = False  # for pytest: not a test

    path: str | list[str]
    labels: str  # labels file with every id of `path`


class TrainingConfig(Config):
    """How the labelled rows are trained on."""

    recipe: Annotated[Recipe, RecipeFamily] = LinearProbe()
    when: Literal["every", "last"] = "every"  # rounds that run the recipe; the head is fitted in all of them
    holdout: float = Field(0.1, ge=0, lt=1)  # share of labelled rows that no model is trained on


class StorageConfig(Config):
    """Where `s3://` is. Credentials come from the platform, never from here."""

    endpoint: str | None = None
    region: str | None = None


class Settings(Config):
    """A whole campaign. What has no default has to be given."""

    run: str  # folder or s3:// URI of the run
    seed: int = Field(0, ge=0)
    classes: list[str] | None = None  # in the head's order; none: those seen in the labels, sorted
    pool: PoolConfig
    labels: str | None = None  # labels that are there already, and not paid for
    test: TestConfig | None = None
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    pretrain: PretrainConfig | None = None  # train the backbone on the pool first, without labels
    head: HeadConfig = Field(default_factory=HeadConfig)
    strategy: Annotated[Strategy, StrategyFamily]
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    regime: Literal["standard", "svpp", "asvp"] = "svpp"  # what selects: a fine-tuned network, or a proxy on features
    switch: Annotated[SwitchRule, SwitchFamily] = Off()  # asvp: when to fine-tune and embed the pool again
    budget: BudgetConfig
    labeller: Annotated[Labeller, LabellerFamily]
    costs: CostsConfig = Field(default_factory=CostsConfig)
    stopping: StoppingConfig = Field(default_factory=StoppingConfig)
    forecast: ForecastConfig = Field(default_factory=ForecastConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)

    @field_validator("pool", mode="before")
    @classmethod
    def _pool_by_its_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | list) else value

    @field_validator("switch", mode="before")
    @classmethod
    def _switch_in_words(cls, value: Any) -> Any:
        return from_words(value)

    @model_validator(mode="after")
    def _regime_fits(self) -> Self:
        if self.regime != "asvp" and not isinstance(self.switch, Off):
            raise ValueError(
                f"`switch` is {self.switch.name}, and `regime` is {self.regime}, which has no switch: set it to asvp"
            )
        if isinstance(self.switch, LogmePed) and not self.budget.control and self.strategy.name != "random":
            raise ValueError(
                "`switch` is logme_ped, whose evidence is measured on rows drawn at random, and after round 0 none "
                "are: set `budget.control`, the share of each round that is drawn at random, for example to 0.2"
            )
        if isinstance(self.switch, LogmePed) and self.strategy.name != "random" and self.budget.per_round in (1, [1]):
            raise ValueError(
                "`switch` is logme_ped, whose evidence is measured on rows drawn at random, and `budget.per_round` is "
                "1, which leaves none for them: ask for 2 labels or more a round"
            )
        if self.regime == "standard" and isinstance(self.training.recipe, LinearProbe):
            raise ValueError(
                "`regime` is standard, which trains the whole network in every round: set `training.recipe` to "
                "fine_tune, lp_ft or auto"
            )
        return self

    @model_validator(mode="after")
    def _guard_fits(self) -> Self:
        if self.switch.guard != "holdout" or isinstance(self.switch, Off):
            return self
        if not self.training.holdout:
            raise ValueError(
                "`switch.guard` is holdout, and `training.holdout` is 0: nothing would be held out to judge by. Set "
                "`training.holdout`, for example to 0.2, or `switch.guard` to half"
            )
        if self.training.recipe.alignment().stops_early:
            raise ValueError(
                "`switch.guard` is holdout, and the fine-tuning of an alignment has a `patience`, which stops it by "
                "the same rows: set `switch.guard` to half, or take `patience` out"
            )
        return self

    @model_validator(mode="after")
    def _strategy_can_be_met(self) -> Self:
        if "reference" in self.strategy.wants and not self.training.holdout:
            raise ValueError(
                f"`{self.strategy.name}` asks which rows would lower the loss of held-out ones, and `training.holdout` "
                "is 0: set it, for example to 0.2"
            )
        rounds = len(self.budget.per_round) if isinstance(self.budget.per_round, list) else 1
        try:
            for round in range(1, rounds + 1):
                self.selection.check(self.budget.of_strategy(round))
        except StrategyError as fault:
            raise ValueError(str(fault)) from None
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.budget.dollars is not None and not self.costs.dearest:
            raise ValueError("`budget.dollars` needs the price of a label: set `costs.label` above 0")
        if (fault := self.costs.fault(self.classes)) is not None:
            raise ValueError(fault)
        if self.budget.initial == 0 and self.labels is None:
            raise ValueError("`budget.initial` is 0 and there are no `labels`: the first head needs some. Give one")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError("`classes` has a name twice: name each class once")
        if self.runtime.address not in (None, "auto", "local") and storage.is_relative(self.run):
            raise ValueError(
                f"`run` is the relative path {self.run!r}, which another machine of the cluster at "
                f"`runtime.address` {self.runtime.address} would look for elsewhere: give an absolute path or s3://"
            )
        return self
