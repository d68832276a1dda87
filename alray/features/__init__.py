"""Embeddings of a pool, computed once: one fp16 file per shard, found again by its content."""

from alray.features.build import FeaturesConfig, build, from_pool
from alray.features.store import FeatureSet, FeatureShard, ShardRows

__all__ = ["FeatureSet", "FeatureShard", "FeaturesConfig", "ShardRows", "build", "from_pool"]
