"""The transform graph on disk: its three ways to the same features, export, TFX's readers, and its bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.transform.preprocess_runs import FEATURES, Run, run, table
from tidemill.errors import Code, TidemillError
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import SENTINELS, to_dense


def dense_rows(all_kinds: Run, split: str) -> dict[str, np.ndarray]:
    names = [c.name for c in all_kinds.graph.raw_columns]
    batch = all_kinds.examples.read(split, names).combine_chunks().to_batches()[0]
    return to_dense(batch, all_kinds.graph.raw_columns)


def example_function(graph: TransformGraph):
    """A `tf.Module` from serialized `tf.Example` protos `[batch]` to the features `[batch]`."""
    from tidemill.transform.dense_function import ExampleFunction

    return ExampleFunction(graph.dense_function(), graph.raw_columns)


def serialized(all_kinds: Run, split: str) -> list[bytes]:
    """The rows as `tf.Example` protos. A missing value is left out in even rows, and an empty list in odd ones."""
    import tensorflow as tf

    examples = []
    rows = all_kinds.examples.read(split, [c.name for c in all_kinds.graph.raw_columns]).to_pylist()
    for number, row in enumerate(rows):
        features = {}
        for column in all_kinds.graph.raw_columns:
            value = row[column.name]
            if value is None and number % 2 == 0:
                continue
            values = [] if value is None else [value]
            if column.dtype == "int64":
                features[column.name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))
            elif column.dtype == "float32":
                features[column.name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
            else:
                bytes_list = tf.train.BytesList(value=[v.encode() for v in values])
                features[column.name] = tf.train.Feature(bytes_list=bytes_list)
        examples.append(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return examples


def assert_rows(outputs: dict, all_kinds: Run, split: str) -> None:
    assert set(outputs) == set(FEATURES)
    for name, values in outputs.items():
        expected = all_kinds.made(split, name)
        assert values.numpy().dtype == expected.dtype, name
        np.testing.assert_array_equal(values.numpy(), expected, err_msg=name)


def test_dense_example_and_parquet_agree(all_kinds: Run):
    dense, example = all_kinds.graph.dense_function(), example_function(all_kinds.graph)
    for split in ("train", "test"):
        assert_rows(dense(dense_rows(all_kinds, split)), all_kinds, split)
        assert_rows(example(serialized(all_kinds, split)), all_kinds, split)


def test_exported_with_vocabularies(all_kinds: Run, tmp_path: Path):
    """As training exports it: traced inside tf.functions, saved, and loaded where the transform graph is gone."""
    import tensorflow as tf

    moved = tmp_path / "graph"
    shutil.copytree(all_kinds.graph.path, moved)
    graph = TransformGraph(moved)
    module = tf.Module()
    module.dense, module.example = graph.dense_function(), example_function(graph)
    dtypes = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}
    spec = {c.name: tf.TensorSpec([None], dtypes[c.dtype]) for c in graph.raw_columns}
    dense = tf.function(lambda inputs: module.dense(inputs))
    examples = tf.function(lambda examples: module.example(examples))
    module.serve = dense
    signatures = {
        "serialized_examples": examples.get_concrete_function(tf.TensorSpec([None], tf.string, "examples")),
        "dense": dense.get_concrete_function(spec),
    }
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signatures)
    shutil.rmtree(moved)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert_rows(
        loaded.signatures["serialized_examples"](examples=tf.constant(serialized(all_kinds, "test"))), all_kinds, "test"
    )
    rows = {name: tf.constant(values) for name, values in dense_rows(all_kinds, "test").items()}
    assert_rows(loaded.serve(rows), all_kinds, "test")


def test_one_row_of_missing_values_and_no_rows(all_kinds: Run):
    import tensorflow as tf

    dense, example = all_kinds.graph.dense_function(), example_function(all_kinds.graph)
    missing = {
        c.name: np.array([SENTINELS[c.dtype]], object if c.dtype == "string" else c.dtype)
        for c in all_kinds.graph.raw_columns
    }
    from_dense, from_example = dense(missing), example([tf.train.Example().SerializeToString()])
    for name in FEATURES:
        np.testing.assert_array_equal(from_dense[name].numpy(), from_example[name].numpy(), err_msg=name)
    assert from_dense["buckets"].numpy() == [8]
    assert from_dense["zscore"].numpy() == [0]
    infinite = missing | {"zscore": np.array([np.inf], np.float32)}
    assert dense(infinite)["zscore"].numpy() == [0]
    empty = dense({name: values[:0] for name, values in missing.items()})
    assert all(len(values.numpy()) == 0 for values in empty.values())


def test_an_example_with_two_values_is_refused(all_kinds: Run):
    import tensorflow as tf

    two = tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2]))
    proto = tf.train.Example(features=tf.train.Features(feature={"zscore": two})).SerializeToString()
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than one value"):
        example_function(all_kinds.graph)([proto])


def test_tfx_reads_it(all_kinds: Run):
    import tensorflow_transform as tft

    output = tft.TFTransformOutput(str(all_kinds.graph.path))
    assert set(output.transformed_feature_spec()) == set(FEATURES)
    assert set(output.raw_feature_spec()) == {c.name for c in all_kinds.graph.raw_columns}
    for feature in all_kinds.graph.features:
        if feature["kind"] == "id":
            assert output.num_buckets_for_transformed_feature(feature["name"]) == feature["num_ids"]
    name = next(
        p.name for p in (all_kinds.graph.path / "transform_fn" / "assets").iterdir() if p.name.endswith("_boolean")
    )
    assert set(output.vocabulary_by_name(name)) == {b"1", b"0", b"\x00"}


def test_features_file(all_kinds: Run):
    facts = json.loads((all_kinds.graph.path / "features.json").read_text())
    assert facts["labels"] == ["y"]
    assert "y" not in {c["name"] for c in facts["raw_columns"]}
    metadata = all_kinds.transformed.metadata
    assert metadata == {
        "labels": ["y"],
        "features": all_kinds.graph.features,
        "transform_fingerprint": all_kinds.graph.fingerprint,
    }


TWICE = {name: FEATURES[name] for name in ("zscore", "buckets", "text", "crossed")}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_rows_from_the_same_input(tmp_path: Path):
    """Within one process TensorFlow's counters go on, so that saved_model.pb differs, but nothing else does."""
    train, test = table(800, 1, 0.0), table(90, 2, 0.0)
    first = run(tmp_path / "a", {"train": train, "test": test}, features=TWICE)
    second = run(tmp_path / "b", {"train": train, "test": test}, features=TWICE)
    assert first.summary == second.summary
    made, again = files(tmp_path / "a"), files(tmp_path / "b")
    assert made.keys() == again.keys()
    differing = {name for name in made if made[name] != again[name]}
    assert differing <= {
        "transform_graph/transform_fn/saved_model.pb",
        "transform_graph/manifest.json",
        "transformed/manifest.json",
    }
    assert b"/tmp" not in made["transform_graph/transform_fn/saved_model.pb"]


@pytest.mark.slow
def test_same_bytes_from_the_same_input_in_another_process(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from tests.transform.preprocess_runs import run, table; "
        "from tests.transform.test_graph import TWICE; "
        "run(Path(sys.argv[1]), {'train': table(800, 1, 0.0), 'test': table(90, 2, 0.0)}, features=TWICE)"
    )
    for name in "ab":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True, cwd=Path(__file__).parents[2])
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_incomplete_graph_is_refused(all_kinds: Run, tmp_path: Path):
    with pytest.raises(TidemillError) as caught:
        TransformGraph(tmp_path)
    assert caught.value.code is Code.INCOMPLETE_ARTIFACT
