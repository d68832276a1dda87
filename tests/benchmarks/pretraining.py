"""What SimSiam is worth: linear probes on its features, on those of random weights, and on the pixels themselves.

    python tests/benchmarks/pretraining.py WORK [--seeds 3] [--tune] [--runtime ray] [key=value …]
    python tests/benchmarks/pretraining.py WORK --pictures CIFAR --rows 5000 --tests 2000 backbone=resnet8 …

Without `--pictures` the bundled digits are used, by settings for 8 pixels. CIFAR is a folder of `pool-*.parquet`
(id, image), `oracle.parquet` (id, label) and `test.parquet` (id, image, label). Words are fields of `PretrainConfig`,
or `backbone` and `image_size`. `--tune` fine-tunes from the pre-trained and from the random weights, too. Accuracies
are means over the seeds (of weights and of pre-training) and `--draws` draws of labels for each; WORK keeps what was
pre-trained. Prints a table; all numbers go to WORK/pretraining.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from alray import config, storage, training
from alray.cli import show
from alray.models.backbone import BackboneConfig
from alray.pool import Pool, digits
from alray.runtime import Runtime, RuntimeConfig, open_runtime
from alray.training import FineTune, HeadConfig, TrainSet, evaluate, fit_head
from alray.training import rows as rows_of
from alray.training.pretrain import PretrainConfig, Pretrained, pretrain

DIGITS = ["backbone=resnet8", "image_size=8", "epochs=30", "batch=128", "lr=0.4", "dim=128", "hidden=32",
          "flip=false", "color=false"]  # fmt: skip
TUNE = FineTune(optimizer="adamw", lr=1e-3, epochs=60, batch=16)


class Settings(PretrainConfig):
    """Pre-training, and the backbone that is pre-trained."""

    backbone: str = "resnet8"
    image_size: int | None = None

    def parts(self) -> tuple[PretrainConfig, BackboneConfig]:
        """Return both apart."""
        given = self.model_dump()
        net = BackboneConfig(backbone=given.pop("backbone"), image_size=given.pop("image_size"))
        return PretrainConfig(**given), net


@dataclass(frozen=True)
class Task:
    """Pictures to learn from, their labels for the probes, and the rows that are judged on."""

    pool: TrainSet
    test: TrainSet

    def some(self, rows: int, draw: int) -> TrainSet:
        """Return a random draw of labelled rows."""
        index = np.sort(np.random.default_rng(draw).permutation(len(self.pool.ids))[:rows])
        ids, labels = [self.pool.ids[i] for i in index], [self.pool.labels[i] for i in index]
        return TrainSet(self.pool.pool, ids, labels, self.pool.classes)


def main() -> None:
    args = parse()
    words = [*([] if args.pictures else DIGITS), f"path={args.work / 'pretrained'}", *args.words]
    settings, net = config.parse(config.apply({}, words), Settings, source="the words").parts()
    task = open_task(args.work / "data", args.pictures, args.rows, args.tests)
    with open_runtime(RuntimeConfig(name=args.runtime, workers=args.workers)) as runtime:
        found, seconds = accuracies(args, task, settings, net, runtime)
    table(args, settings, net, task, found, seconds)
    storage.write_json(
        str(args.work / "pretraining.json"),
        {
            "settings": settings.model_dump(mode="json"),
            "backbone": net.model_dump(),
            "rows": len(task.pool.ids),
            "runtime": args.runtime,
            "pretraining": seconds,
            "accuracy": {name: {n: list(values) for n, values in one.items()} for name, one in found.items()},
        },
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder that keeps everything")
    parser.add_argument("--pictures", type=Path, help="folder of CIFAR's Parquet files; default: digits")
    parser.add_argument("--rows", type=int, help="pool rows, the first; default: all")
    parser.add_argument("--tests", type=int, help="test rows, the first; default: all")
    parser.add_argument("--labels", type=lambda text: [int(n) for n in text.split(",")], default=[100, 200, 300])
    parser.add_argument("--draws", type=int, default=3, help="draws of labels for each seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tune", action="store_true", help="fine-tune too")
    parser.add_argument("--runtime", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("words", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def open_task(work: Path, pictures: Path | None, rows: int | None, tests: int | None) -> Task:
    """Write the first rows of each file beneath `work`, and open them."""
    source = pictures or work / "digits"
    if pictures is None:
        digits.write(str(source))
    oracle = pq.read_table(source / "oracle.parquet")
    label_of = dict(zip(oracle["id"].to_pylist(), oracle["label"].to_pylist(), strict=True))
    pool = pa.concat_tables([pq.read_table(file) for file in sorted(source.glob("pool*.parquet"))])
    test = pq.read_table(source / "test.parquet")
    classes = sorted(set(label_of.values()))
    out = work / f"{source.name}-{rows or 'all'}-{tests or 'all'}"
    return Task(
        _part(out / "pool.parquet", pool.slice(0, rows), label_of, classes),
        _part(out / "test.parquet", test.slice(0, tests), dict(_pairs(test)), classes),
    )


def _part(path: Path, table: pa.Table, label_of: dict[str, str], classes: list[str]) -> TrainSet:
    ids = sorted(table["id"].to_pylist(), key=str.encode)
    if not path.exists():
        storage.write_parquet(str(path), table.select(["id", "image"]))
    return TrainSet(Pool.open(str(path)), ids, [label_of[i] for i in ids], classes)


def _pairs(table: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)


Found = dict[str, dict[int, list[float]]]


def accuracies(
    args: argparse.Namespace, task: Task, settings: PretrainConfig, net: BackboneConfig, runtime: Runtime
) -> tuple[Found, list[dict[str, float]]]:
    """Return test accuracies by features, labels and draw; and what each seed's pre-training took."""
    found: Found = {}
    seconds = []
    size = net.image_size or 32
    probe(found, "raw pixels", args, task, BackboneConfig(backbone="torch.nn:Flatten", image_size=size), 1, runtime)
    for seed in range(args.seeds):
        start = time.perf_counter()
        made = pretrain(settings, task.pool.pool, net, runtime, seed=seed)
        seconds.append({**taken(made), "wall": time.perf_counter() - start})
        trained = net.model_copy(update={"weights": made.checkpoint})
        for name, one in (("random weights", net), ("SimSiam", trained)):
            probe(found, name, args, task, one, seed, runtime)
            if args.tune:
                tune(found, f"{name}, fine-tuned", args, task, one, seed, runtime)
    return found, seconds


def taken(made: Pretrained) -> dict[str, float]:
    """Return what a pre-training took and came to, its first epoch (which decodes pictures) apart."""
    later = made.history[1:] or made.history
    return {
        "seconds": sum(epoch["seconds"] for epoch in made.history),
        "pictures_per_second": len(later) / sum(1 / epoch["pictures_per_second"] for epoch in later),
        "loss": made.metrics["loss"],
        "spread": made.metrics["spread"],
    }


def probe(
    found: Found, name: str, args: argparse.Namespace, task: Task, net: BackboneConfig, seed: int, runtime: Runtime
) -> None:
    """Add the accuracies of linear probes on the features of `net`."""
    model = evaluate.Model(net, seed)
    train, test = (
        evaluate.outputs(model, rows_of.locate(part), runtime, stage="features") for part in (task.pool, task.test)
    )
    place = {i: row for row, i in enumerate(train.ids)}
    for labels in args.labels:
        for draw in range(args.draws):
            some = task.some(labels, draw)
            x_MD = train.values[[place[i] for i in some.ids]].astype(np.float32)
            head = fit_head(HeadConfig(), x_MD, some.labels, some.classes, seed)
            logits = head.logits(torch.from_numpy(test.values.astype(np.float32))).numpy()
            said = [task.test.classes[c] for c in logits.argmax(1)]
            right = np.mean([a == b for a, b in zip(said, task.test.labels, strict=True)])
            found.setdefault(name, {}).setdefault(labels, []).append(float(right))


def tune(
    found: Found, name: str, args: argparse.Namespace, task: Task, net: BackboneConfig, seed: int, runtime: Runtime
) -> None:
    """Add the accuracies of fine-tuning from `net`."""
    for labels in args.labels:
        for draw in range(args.draws):
            where = {"name": f"tuned-{labels}-{draw}", "folder": str(args.work / "tuned")}
            made = training.run(TUNE, task.some(labels, draw), net, None, runtime, **where, seed=seed)
            assert made.checkpoint
            result = evaluate.accuracy(evaluate.Model.of_checkpoint(made.checkpoint), task.test, runtime)
            found.setdefault(name, {}).setdefault(labels, []).append(result["accuracy"])


def table(
    args: argparse.Namespace,
    settings: PretrainConfig,
    net: BackboneConfig,
    task: Task,
    found: Found,
    seconds: list[dict[str, float]],
) -> None:
    rows = [
        [name, *(f"{np.mean(one[n]):.4f} ± {np.std(one[n]):.3f}" for n in args.labels)] for name, one in found.items()
    ]
    show.table(["test accuracy", *(f"{n:,} labels" for n in args.labels)], rows)
    mean = {key: float(np.mean([one[key] for one in seconds])) for key in seconds[0]}
    show.pairs(
        {
            "pictures": f"{len(task.pool.ids):,} to learn from, {len(task.test.ids):,} to judge on",
            "backbone": f"{net.backbone} at {net.image_size or 32} pixels",
            "pre-training": f"{settings.epochs} epochs in {mean['seconds']:.1f} s on {args.runtime}, "
            f"{mean['pictures_per_second']:,.0f} pictures/s, last loss {mean['loss']:.3f}, spread {mean['spread']:.3f}",
        }
    )
    print(json.dumps({"settings": settings.model_dump(mode="json", exclude_defaults=True)}))


if __name__ == "__main__":
    main()
