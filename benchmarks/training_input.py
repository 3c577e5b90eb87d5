"""Measures how fast rows reach the training step.

    python benchmarks/training_input.py

On transformed synthetic Criteo rows, with the files in the page cache, it compares in turns:

- Tidemill's shuffling reader, without a training step, and tf.data over gzip TFRecords of `tf.Example` protos with the
  same rows, which TFX trains from;
- DCN-V2's training step on shuffled batches from files, and the same step on one batch that stays in memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tidemill.artifacts.examples import Dataset, finish_dataset
from tidemill.models.core.inputs import Layout, Rows
from tidemill.training.input import shuffled

BATCH_ROWS = 4096


def prepared(work: Path, rows: int) -> Dataset:
    """Returns the transformed rows, and makes them if they do not exist yet."""
    from transforms import by_local
    from transforms.work import LABEL, preprocessing_fn, write_rows

    from tidemill.transform.local_engine import LocalEngine
    from tidemill.transform.transformed import transformed_schema

    examples, transformed = work / f"rows-{rows}", work / f"transformed-{rows}"
    write_rows(examples, rows)
    if not transformed.exists():
        raw = Dataset(examples)
        graph, _ = by_local.analyze(preprocessing_fn, examples, work / f"graph-{rows}", 2)
        LocalEngine().transform(graph, raw, transformed, by_local.Quiet("transform"))
        names = {name: [file.name for file in split.files] for name, split in raw.splits.items()}
        finish_dataset(transformed, transformed_schema(graph), names, {"labels": [LABEL], "features": graph.features})
    return Dataset(transformed)


def write_records(files: list[Path], layout: Layout, label: str, folder: Path) -> list[str]:
    """Writes the rows as TFRecords, one file for each file."""
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    paths = []
    for file in files:
        paths.append(str(folder / f"{file.stem}.gz"))
        if Path(paths[-1]).exists():
            continue
        table = pq.read_table(file)
        columns = {name: table.column(name).to_pylist() for name in [*layout.columns, label]}
        with tf.io.TFRecordWriter(paths[-1], "GZIP") as writer:
            for row in range(table.num_rows):
                example = tf.train.Example()
                for name in layout.ids:
                    example.features.feature[name].int64_list.value.append(columns[name][row])
                for name in [*layout.numbers, label]:
                    example.features.feature[name].float_list.value.append(columns[name][row])
                writer.write(example.SerializeToString())
    return paths


def records(paths: list[str], layout: Layout, label: str) -> tf.data.Dataset:
    """Reads TFRecords as the guide of tf.data recommends: interleaved, shuffled, parsed in batches, and prefetched."""
    spec = {name: tf.io.FixedLenFeature([], tf.int64) for name in layout.ids}
    spec |= {name: tf.io.FixedLenFeature([], tf.float32) for name in [*layout.numbers, label]}

    def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        columns = tf.io.parse_example(batch, spec)
        ids = tf.stack([tf.cast(columns[name], tf.int32) for name in layout.ids], axis=1)
        return ids, tf.stack([columns[name] for name in layout.numbers], axis=1), columns[label]

    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    rows = files.interleave(
        lambda path: tf.data.TFRecordDataset(path, "GZIP"), cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE
    )
    batches = rows.shuffle(100_000).batch(BATCH_ROWS).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


def read_to_page_cache(files: Iterable[str | Path]) -> None:
    """Reads the files, so that the disk is not measured."""
    for file in files:
        Path(file).read_bytes()


def reading_speed(batches: Iterable[Any]) -> float:
    """Reads all batches, and returns the rows per second."""
    started, rows = time.perf_counter(), 0
    for batch in batches:
        rows += len(batch.labels) if isinstance(batch, Rows) else int(batch[2].shape[0])
    return rows / (time.perf_counter() - started)


def dcn_v2_step(layout: Layout) -> Callable[[Rows], None]:
    """Returns the training step of DCN-V2 with the default settings of the family."""
    from tidemill.experiment.training import Training
    from tidemill.models.core.neural import logits_of, tables_of
    from tidemill.models.core.registry import new_model
    from tidemill.models.core.sizes import table_sizes
    from tidemill.models.dcn_v2 import DcnV2
    from tidemill.training.tensorflow_stepper import TensorFlowStepper

    TensorFlowStepper.prepare(0, None)
    model = new_model(DcnV2(family="dcn_v2"), layout)
    network = model.build(table_sizes(model.config, layout))
    return TensorFlowStepper(logits_of(network), tables_of(network), layout, Training(), 1000).step


def training_speed(step: Callable[[Rows], None], batches: Iterable[Rows]) -> float:
    """Trains on all whole batches, and returns the rows per second."""
    started, rows = time.perf_counter(), 0
    for batch in batches:
        if len(batch) == BATCH_ROWS:
            step(batch)
            rows += len(batch)
    return rows / (time.perf_counter() - started)


def epoch_of(data: Dataset, layout: Layout, epoch: int) -> Iterator[Rows]:
    """Returns the batches of an epoch from Tidemill's reader."""
    return shuffled(data, "train", layout, batch_size=BATCH_ROWS, seed=0, epoch=epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--record-rows", type=int, default=1_000_000, help="rows of TFRecords and training steps")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder to keep rows in; defaults to a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        from transforms.work import LABEL

        large, small = (prepared(work, rows) for rows in (args.rows, args.record_rows))
        layout = Layout.of(small.metadata["features"], [LABEL])
        paths = write_records(small.files("train"), layout, LABEL, work / f"records-{args.record_rows}")
        step = dcn_v2_step(layout)
        speeds: dict[str, list[float]] = {name: [] for name in ("reader", "tf.data", "step, files", "step, memory")}
        batch = next(epoch_of(small, layout, 0))
        training_speed(step, [batch] * 3)
        steps = args.record_rows // BATCH_ROWS
        for turn in range(args.turns):
            read_to_page_cache(large.files("train"))
            speeds["reader"].append(reading_speed(epoch_of(large, layout, turn)))
            read_to_page_cache(paths)
            speeds["tf.data"].append(reading_speed(records(paths, layout, LABEL)))
            read_to_page_cache(small.files("train"))
            speeds["step, files"].append(training_speed(step, epoch_of(small, layout, turn)))
            speeds["step, memory"].append(training_speed(step, [batch] * steps))
        medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"rows per second, medians of {args.turns} turns, batches of {BATCH_ROWS:,}")
    for name, speed in medians.items():
        print(f"  {name:<14} {speed:>12,.0f}   ({', '.join(f'{turn:,.0f}' for turn in speeds[name])})")
    print(f"reader / tf.data over gzip TFRecords: {medians['reader'] / medians['tf.data']:.1f}")
    print(f"step on files / step on one batch in memory: {medians['step, files'] / medians['step, memory']:.1%}")


if __name__ == "__main__":
    main()
