"""The transform graph on disk: its three ways to compute features, its export, TFX's readers, its bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.transform.preprocess_runs import FEATURES, Run, example_table, run
from tidemill.errors import Code, TidemillError
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import SENTINELS, to_dense

pytestmark = pytest.mark.tensorflow


FEW = {name: FEATURES[name] for name in ("zscore", "buckets", "text", "crossed")}
FEW_SPLITS = {"train": example_table(800, 1, 0.0), "test": example_table(90, 2, 0.0)}


@pytest.fixture(scope="module")
def few_kinds(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with one feature of each kind."""
    return run(tmp_path_factory.mktemp("few"), FEW_SPLITS, features=FEW)


def dense_rows(all_kinds: Run, split: str) -> dict[str, np.ndarray]:
    names = [c.name for c in all_kinds.graph.raw_columns]
    batch = all_kinds.examples.read(split, names).combine_chunks().to_batches()[0]
    return to_dense(batch, all_kinds.graph.raw_columns)


def example_function(graph: TransformGraph):
    """A `tf.Module` from serialized `tf.Example` protos `[batch]` to the features `[batch]`."""
    from tidemill.transform.dense_function import ExampleFunction

    return ExampleFunction(graph.dense_function(), graph.raw_columns)


def serialized(all_kinds: Run, split: str) -> list[bytes]:
    """Returns rows as serialized `tf.Example`s.

    A missing value has no entry in even rows, and an empty list in odd rows.
    """
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
    assert set(outputs) == {feature["name"] for feature in all_kinds.graph.features}
    for name, values in outputs.items():
        expected = all_kinds.transformed_column(split, name)
        assert values.numpy().dtype == expected.dtype, name
        np.testing.assert_array_equal(values.numpy(), expected, err_msg=name)


def test_dense_inputs_examples_and_parquet_give_the_same_features(all_kinds: Run):
    dense, example = all_kinds.graph.dense_function(), example_function(all_kinds.graph)
    for split in ("train", "test"):
        assert_rows(dense(dense_rows(all_kinds, split)), all_kinds, split)
        assert_rows(example(serialized(all_kinds, split)), all_kinds, split)


def test_export_contains_the_vocabularies(few_kinds: Run, tmp_path: Path):
    """Exports as training does: traced in tf.functions, saved, and loaded after the transform graph is removed."""
    import tensorflow as tf

    moved = tmp_path / "graph"
    shutil.copytree(few_kinds.graph.path, moved)
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
        loaded.signatures["serialized_examples"](examples=tf.constant(serialized(few_kinds, "test"))), few_kinds, "test"
    )
    rows = {name: tf.constant(values) for name, values in dense_rows(few_kinds, "test").items()}
    assert_rows(loaded.serve(rows), few_kinds, "test")


def test_transforms_missing_values_and_no_rows(all_kinds: Run):
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


def test_rejects_an_example_with_two_values(all_kinds: Run):
    import tensorflow as tf

    two = tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2]))
    proto = tf.train.Example(features=tf.train.Features(feature={"zscore": two})).SerializeToString()
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than one value"):
        example_function(all_kinds.graph)([proto])


def test_tfx_reads_the_graph(all_kinds: Run):
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


def test_features_file_holds_labels_and_columns(all_kinds: Run):
    facts = json.loads((all_kinds.graph.path / "features.json").read_text())
    assert facts["labels"] == ["y"]
    assert "y" not in {c["name"] for c in facts["raw_columns"]}
    metadata = all_kinds.transformed.metadata
    assert metadata == {
        "labels": ["y"],
        "features": all_kinds.graph.features,
        "transform_fingerprint": all_kinds.graph.fingerprint,
    }


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_input_gives_the_same_files(few_kinds: Run, tmp_path: Path):
    """Only saved_model.pb may differ: TensorFlow numbers functions within a process."""
    assert run(tmp_path, FEW_SPLITS, features=FEW).summary == few_kinds.summary
    first, second = file_bytes(few_kinds.examples.path.parent), file_bytes(tmp_path)
    assert first.keys() == second.keys()
    differing = {name for name in first if first[name] != second[name]}
    assert differing <= {
        "transform_graph/transform_fn/saved_model.pb",
        "transform_graph/manifest.json",
        "transformed/manifest.json",
    }
    assert b"/tmp" not in first["transform_graph/transform_fn/saved_model.pb"]


@pytest.mark.full
@pytest.mark.process
def test_same_input_gives_the_same_bytes_in_another_process(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from tests.transform.preprocess_runs import run; "
        "from tests.transform.test_graph import FEW, FEW_SPLITS; run(Path(sys.argv[1]), FEW_SPLITS, features=FEW)"
    )
    for name in "ab":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True, cwd=Path(__file__).parents[2])
    assert file_bytes(tmp_path / "a") == file_bytes(tmp_path / "b")


def test_rejects_an_incomplete_graph(tmp_path: Path):
    with pytest.raises(TidemillError) as caught:
        TransformGraph(tmp_path)
    assert caught.value.code is Code.INCOMPLETE_ARTIFACT
