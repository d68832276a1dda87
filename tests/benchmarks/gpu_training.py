"""Pictures per second of extraction, SimSiam and fine-tuning, each against a plain PyTorch loop of the same model.

    python tests/benchmarks/gpu_training.py WORK [--backbone resnet18_small] [--rows 20000] [--batch 512]
        [--pictures CIFAR] [--runtime ray --workers 1] [--loaders 8]

Correctness comes first: the same rows, weights and batches must give the same features and first losses, or it ends
with 1. Then each pair is timed, alray first. On a GPU both sides use bf16 autocast and channels_last; on a CPU fp32.
What a plain loop does:

    extraction    a DataLoader of `--loaders` processes decodes the Parquet file's bytes; the model is run on batches
    SimSiam       decoded pictures in memory, both views by `views.make`, SGD: what is compared is the loop around it
    fine-tuning   a DataLoader of `--loaders` processes crops decoded pictures by torchvision's v2; SGD

The first epoch of training, which decodes, is not timed. WORK holds what is made; all numbers go to gpu_training.json
in $OUT, or in WORK where that is not set.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plain_loops
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from plain_loops import CLASSES, DEVICE, SEED, Bench, timed

from alray import storage, training
from alray.cli import show
from alray.features import FeaturesConfig, build
from alray.models.backbone import BackboneConfig, plain
from alray.pool import Pool
from alray.runtime import RuntimeConfig, open_runtime
from alray.training import TrainSet
from alray.training import rows as rows_of
from alray.training.pretrain import pretrain

SAME_LOSS = 0.02
"""Largest difference of first-epoch losses, relative: bf16 and the order of sums differ, nothing else."""

SAME_FEATURES = 0.02
"""Largest root mean square of the features' difference, relative to that of the features: fp16, and bf16 on a GPU."""


def main() -> None:
    args = parse()
    net = BackboneConfig(backbone=args.backbone, image_size=args.image_size)
    rows = write_pool(args)
    with open_runtime(RuntimeConfig(name=args.runtime, workers=args.workers)) as runtime:
        bench = Bench(args, net, rows, runtime)
        located = rows_of.locate(rows)
        found = dict(rows_of.pictures(located, np.arange(len(located)), bench.model().transform.shrink))
        bench.pixels = [found[i] for i in range(len(located))]
        checks = [check_features(bench), check_simsiam(bench), check_tuning(bench)]
        show.table(["correctness", "alray", "plain", "difference", "allowed"], [c.row() for c in checks])
        if not all(check.fine for check in checks):
            sys.exit(1)
        speeds = [time_features(bench), time_simsiam(bench), time_tuning(bench)]
    show.table(["pictures per second", "alray", "plain", "alray / plain"], [speed.row() for speed in speeds])
    size = bench.model().transform.crop
    print(f"{args.backbone} at {size} pixels, {len(rows.ids):,} pictures, batch {args.batch}, on {device()}")
    out = os.environ.get("OUT") or str(args.work)
    numbers = {"device": device(), "torch": torch.__version__, "arguments": {k: str(v) for k, v in vars(args).items()}}
    parts = {"correctness": [vars(c) for c in checks], "speed": [vars(s) for s in speeds]}
    storage.write_json(storage.join(out, "gpu_training.json"), {**numbers, **parts})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=lambda text: Path(text).resolve())
    parser.add_argument("--backbone", default="resnet18_small")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--pictures", type=Path, help="folder of pool-*.parquet (id, image); default: made here")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=4, help="of which the first is not timed")
    parser.add_argument("--runtime", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--loaders", type=int, default=0, help="processes of a plain DataLoader")
    return parser.parse_args()


def device() -> str:
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"


def write_pool(args: argparse.Namespace) -> TrainSet:
    """Write the pool's one file, and give its rows any labels: only speed is asked for."""
    path = args.work / f"pool-{args.rows}" / "pool.parquet"
    if args.pictures:
        files = sorted(args.pictures.glob("pool*.parquet"))
        table = pa.concat_tables([pq.read_table(f, columns=["id", "image"]) for f in files]).slice(0, args.rows)
    else:
        ids, cells = [f"row-{i:06d}" for i in range(args.rows)], [picture(i) for i in range(args.rows)]
        table = pa.table({"id": ids, "image": cells})
    if not path.exists():
        storage.write_parquet(str(path), table)
    ids = sorted(table["id"].to_pylist(), key=str.encode)
    return TrainSet(Pool.open(str(path)), ids, [CLASSES[i % len(CLASSES)] for i in range(len(ids))], CLASSES)


def picture(number: int, size: int = 32) -> bytes:
    """Return a JPEG of smooth noise."""
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((size, size)).save(out, format="JPEG")
    return out.getvalue()


@dataclass
class Check:
    """One comparison of numbers that must be the same."""

    name: str
    alray: float
    plain: float
    difference: float
    allowed: float

    @property
    def fine(self) -> bool:
        return self.difference <= self.allowed

    def row(self) -> list[str]:
        return [self.name, *(f"{value:.4f}" for value in (self.alray, self.plain, self.difference, self.allowed))]


@dataclass
class Speed:
    """Pictures per second of both sides: medians of what was timed."""

    name: str
    alray: list[float]
    plain: list[float]

    def row(self) -> list[str]:
        one, other = statistics.median(self.alray), statistics.median(self.plain)
        return [self.name, f"{one:,.0f}", f"{other:,.0f}", f"{one / other:.2f}"]


def losses(name: str, one: float, other: float) -> Check:
    return Check(name, one, other, abs(one - other) / max(abs(other), 1e-9), SAME_LOSS)


# alray's side, the checks, and the times


def alray_features(bench: Bench) -> np.ndarray:
    config = FeaturesConfig(**plain(bench.net).model_dump(), path=bench.fresh(), batch=bench.args.batch)
    made = build(bench.rows.pool, config, bench.runtime, seed=SEED)
    found = [shard.read() for shard in made.shards]
    ids = [i for part in found for i in part.ids.tolist()]
    order = sorted(range(len(ids)), key=lambda i: ids[i].encode())
    return np.concatenate([part.features_ND for part in found])[order]


def alray_simsiam(bench: Bench, epochs: int) -> list[dict[str, Any]]:
    return pretrain(bench.config(epochs), bench.rows.pool, bench.net, bench.runtime, seed=SEED).history


def alray_tuning(bench: Bench, epochs: int, augmentation: str) -> list[dict[str, Any]]:
    recipe, where = bench.recipe(epochs, augmentation), {"name": "tuned", "folder": bench.fresh()}
    return training.run(recipe, bench.rows, bench.net, None, bench.runtime, **where, seed=SEED).history


def check_features(bench: Bench) -> Check:
    one, other = (found.astype(np.float64) for found in (alray_features(bench), plain_loops.features(bench)))
    scale = [float(np.sqrt(np.square(found).mean())) for found in (one, other)]
    return Check("features", *scale, float(np.sqrt(np.square(one - other).mean())) / scale[1], SAME_FEATURES)


def check_simsiam(bench: Bench) -> Check:
    return losses("SimSiam, first epoch", alray_simsiam(bench, 1)[0]["loss"], plain_loops.simsiam(bench, 1)[0][0])


def check_tuning(bench: Bench) -> Check:
    plain_loss = plain_loops.tuning(bench, 1, crop=False, planned=True)[0][0]
    return losses("fine-tuning, first epoch", alray_tuning(bench, 1, "none")[0]["loss"], plain_loss)


def time_features(bench: Bench) -> Speed:
    ours, other = timed(bench, lambda: alray_features(bench)), timed(bench, lambda: plain_loops.features(bench))
    return Speed("extraction", [ours[1]], [other[1]])


def time_simsiam(bench: Bench) -> Speed:
    ours = [epoch["pictures_per_second"] for epoch in alray_simsiam(bench, bench.args.epochs)]
    return Speed("SimSiam", ours[1:], plain_loops.simsiam(bench, bench.args.epochs)[1][1:])


def time_tuning(bench: Bench) -> Speed:
    ours = [epoch["rows"] / epoch["seconds"] for epoch in alray_tuning(bench, bench.args.epochs, "crop")]
    return Speed("fine-tuning", ours[1:], plain_loops.tuning(bench, bench.args.epochs, crop=True, planned=False)[1][1:])


if __name__ == "__main__":
    torch.set_num_threads(1 if DEVICE.type == "cpu" else torch.get_num_threads())
    main()
