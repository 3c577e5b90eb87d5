"""Transform modules: their outputs, and the errors for mistakes in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.transform.preprocess_runs import Run, run
from tidemill.errors import Code, TidemillError
from tidemill.transform.module_function import FILE_NAME, user_errors

pytestmark = pytest.mark.tensorflow
TAXI = Path(__file__).with_name("taxi_transform.py").read_text(encoding="utf-8")


def taxi_table(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)

    def with_nulls(values: np.ndarray) -> pa.Array:
        return pa.array(values.tolist(), mask=rng.random(rows) < 0.1)

    fare = rng.lognormal(2, 1, rows)
    return pa.table(
        {
            "key": pa.array([f"{seed}-{i}" for i in range(rows)]),
            "trip_start": pa.array(np.arange(rows), pa.timestamp("s")),
            "trip_miles": with_nulls(rng.lognormal(1, 1, rows)),
            "fare": with_nulls(fare),
            "trip_seconds": with_nulls(rng.integers(60, 5000, rows).astype(np.float64)),
            "pickup_latitude": with_nulls(rng.normal(41.9, 0.1, rows)),
            "trip_start_hour": with_nulls(rng.integers(0, 24, rows)),
            "payment_type": with_nulls(rng.choice(["Cash", "Credit Card", "Unknown"], rows)),
            "company": with_nulls(rng.choice([f"company {i}" for i in range(30)], rows)),
            "tips": with_nulls(fare * rng.random(rows) * 0.5),
        }
    )


@pytest.fixture(scope="module")
def taxi(tmp_path_factory: pytest.TempPathFactory) -> Run:
    splits = {"train": taxi_table(1500, 1), "valid": taxi_table(300, 2), "test": taxi_table(50, 3)}
    return run(tmp_path_factory.mktemp("taxi"), splits, labels=["tips"], transform_module=TAXI)


def column(taxi: Run, split: str, name: str, fill: float | str) -> np.ndarray:
    values = [fill if v is None else v for v in taxi.raw(split, name)]
    return np.array(values, object if isinstance(fill, str) else np.float32)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_taxi_features_match_numpy(taxi: Run, split: str):
    for name in ("trip_miles", "fare", "trip_seconds"):
        train = column(taxi, "train", name, 0).astype(np.float64)
        expected = (column(taxi, split, name, 0) - train.mean()) / train.std()
        np.testing.assert_allclose(taxi.transformed_column(split, f"{name}_xf"), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        taxi.transformed_column(split, "trip_start_hour_xf"), column(taxi, split, "trip_start_hour", 0)
    )
    label = column(taxi, split, "tips", 0) > column(taxi, split, "fare", 0) * np.float32(0.2)
    np.testing.assert_array_equal(taxi.transformed_column(split, "tips"), label)
    for name in ("payment_type", "company"):
        counts = Counter(column(taxi, "train", name, ""))
        counts.pop("")
        words = sorted(counts, key=lambda word: (counts[word], word), reverse=True)
        assert taxi.num_ids(f"{name}_xf") == len(words) + 10
        ids = taxi.transformed_column(split, f"{name}_xf")
        for value, i in zip(column(taxi, split, name, ""), ids, strict=True):
            assert i == words.index(value) if value else i >= len(words)
    buckets = taxi.transformed_column(split, "pickup_latitude_xf")
    assert taxi.num_ids("pickup_latitude_xf") == 10
    assert 0 <= buckets.min() <= buckets.max() <= 9


def test_taxi_graph_lists_features_columns_and_labels(taxi: Run):
    kinds = {f["name"]: f["kind"] for f in taxi.graph.features}
    assert kinds == {
        "company_xf": "id",
        "fare_xf": "number",
        "payment_type_xf": "id",
        "pickup_latitude_xf": "id",
        "trip_miles_xf": "number",
        "trip_seconds_xf": "number",
        "trip_start_hour_xf": "number",
    }
    raw = {c.name for c in taxi.graph.raw_columns}
    assert raw == {
        "company",
        "fare",
        "payment_type",
        "pickup_latitude",
        "trip_miles",
        "trip_seconds",
        "trip_start_hour",
    }
    assert {c.name for c in taxi.graph.computed_labels["tips"]} == {"fare", "tips"}
    assert taxi.transformed.metadata["labels"] == ["tips"]


def small_table(rows: int = 6) -> pa.Table:
    return pa.table(
        {
            "key": [str(i) for i in range(rows)],
            "x": pa.array([None, *range(1, rows)], pa.float64()),
            "word": pa.array(["a", None, *"b" * (rows - 2)]),
            "y": pa.array([i % 2 for i in range(rows)], pa.int8()),
        }
    )


HEAD = "import tensorflow as tf\nimport tensorflow_transform as tft\n"
DENSE = "    x = tf.reshape(tf.sparse.to_dense(inputs['x']), [-1, 1])\n"
Y = "    y = tf.squeeze(tf.sparse.to_dense(inputs['y']), 1)\n"


def module(body: str) -> str:
    return f"{HEAD}\n\ndef preprocessing_fn(inputs):\n{body}"


def test_outputs_are_squeezed_offset_and_cast(tmp_path: Path):
    """The outputs are a column `[batch, 1]`, ids from -1, integers and, implicitly, the label."""
    body = DENSE + (
        "    word = tf.squeeze(tf.sparse.to_dense(inputs['word']), 1)\n"
        "    assert set(inputs) == {'x', 'word', 'y'}, sorted(inputs)\n"
        "    word = tft.compute_and_apply_vocabulary(word, top_k=1)\n"
        "    return {'column': x, 'word': word, 'whole': tf.cast(x, tf.int64)}\n"
    )
    result = run(tmp_path, {"train": small_table()}, transform_module=module(body))
    assert result.graph.features == [
        {"name": "column", "kind": "number"},
        {"name": "whole", "kind": "number"},
        {"name": "word", "kind": "id", "num_ids": 2},
    ]
    np.testing.assert_array_equal(result.transformed_column("train", "column"), [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(result.transformed_column("train", "whole"), [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(result.transformed_column("train", "word"), [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(result.transformed_column("train", "y"), [0, 1, 0, 1, 0, 1])
    dense = {"x": np.array([np.nan, 7], np.float32), "word": np.array([b"b", b"zzz"], object)}
    served = result.graph.dense_function()(dense)
    assert [c.name for c in result.graph.raw_columns] == ["x", "word"]
    np.testing.assert_array_equal(served["word"].numpy(), [1, 0])
    np.testing.assert_array_equal(served["column"].numpy(), [0, 7])


BAD = {
    "syntax": ("def preprocessing_fn(inputs)\n", Code.TRANSFORM_FAILED, "line 1"),
    "import": ("import no_such_module\n", Code.TRANSFORM_FAILED, "line 1.*no_such_module"),
    "file": ("open('/no/such/file')\n", Code.TRANSFORM_FAILED, "line 1.*no/such"),
    "exit": ("import sys\nsys.exit(0)\n", Code.TRANSFORM_FAILED, "line 2.*SystemExit"),
    "no function": ("x = 1\n", Code.TRANSFORM_FAILED, "without preprocessing_fn"),
    "arguments": ("def preprocessing_fn():\n    return {}\n", Code.TRANSFORM_FAILED, "TypeError"),
    "column": (module("    return {'a': inputs['zzz']}\n"), Code.TRANSFORM_FAILED, "line 6.*zzz.*inputs has .*word"),
    "default": (
        module("    return {'a': tf.squeeze(tf.sparse.to_dense(inputs['word'], 0.0), 1)}\n"),
        Code.TRANSFORM_FAILED,
        "line 6.*string",
    ),
    "trace": (module(DENSE + "    return {'a': tf.matmul(x, tf.zeros([2, 3]))}\n"), Code.TRANSFORM_FAILED, "line 7"),
    "type": (module("    return 3\n"), Code.TRANSFORM_FAILED, "int"),
    "value": (module("    return {'a': 3}\n"), Code.TRANSFORM_FAILED, "'a'"),
    "empty": (module("    return {}\n"), Code.TRANSFORM_FAILED, "empty"),
    "constant": (module("    return {'a': tf.zeros([5])}\n"), Code.TRANSFORM_FAILED, "no column"),
    "only the label": (module(Y + "    return {'y': y}\n"), Code.TRANSFORM_FAILED, "except the label"),
    "sparse": (module("    return {'a': inputs['x']}\n"), Code.UNSUPPORTED, "'a'.*sparse"),
    "ragged": (module("    return {'a': tf.RaggedTensor.from_sparse(inputs['x'])}\n"), Code.UNSUPPORTED, "'a'.*ragged"),
    "string": (module("    return {'a': tf.sparse.to_dense(inputs['word'])}\n"), Code.UNSUPPORTED, "'a'.*string"),
    "integer type": (module(DENSE + "    return {'a': tf.cast(x, tf.int32)}\n"), Code.UNSUPPORTED, "'a'.*int32"),
    "width": (module("    return {'a': tf.sparse.to_dense(inputs['x'])}\n"), Code.UNSUPPORTED, "None, None.*squeeze"),
    "wide": (module(DENSE + "    return {'a': tf.tile(x, [1, 2])}\n"), Code.UNSUPPORTED, "'a'.*2"),
    "python": (
        module(DENSE + "    return {'a': tf.reshape(tf.numpy_function(lambda x: x, [x], tf.float32), [-1])}\n"),
        Code.UNSUPPORTED,
        "Python function",
    ),
    "leak": (module(Y + "    return {'a': y}\n"), Code.LEAKAGE, "'a'.*'y'"),
    "label value": (module(DENSE + "    return {'a': x, 'y': x}\n"), Code.LABEL_TYPE, "y"),
    "one file": (
        module(
            "    word = tf.sparse.to_dense(inputs['word'])\n"
            "    a = tft.compute_and_apply_vocabulary(word, vocab_filename='my words', top_k=1)\n"
            "    b = tft.compute_and_apply_vocabulary(word, vocab_filename='my-words')\n"
            "    return {'a': tf.squeeze(a, 1), 'b': tf.squeeze(b, 1)}\n"
        ),
        Code.TRANSFORM_FAILED,
        "line 8.*a second vocabulary of vocab_filename 'my-words'",
    ),
    "while running": (
        module(DENSE + "    with tf.control_dependencies([tf.debugging.assert_less(x, 3.0, 'too large')]):\n"
               "        x = tf.identity(x)\n    return {'a': x - tft.mean(x)}\n"),
        Code.TRANSFORM_FAILED,
        "line 7: got InvalidArgumentError: assertion failed.*too large",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_reports_mistakes_in_the_module(tmp_path: Path, name: str):
    text, code, message = BAD[name]
    with pytest.raises(TidemillError, match=message) as caught:
        run(tmp_path, {"train": small_table()}, transform_module=text)
    assert caught.value.code is code
    assert sorted(p.name for p in tmp_path.iterdir()) == ["examples", "schema"]


@pytest.mark.parametrize("engine", ["local", pytest.param("beam", marks=[pytest.mark.beam, pytest.mark.full])])
def test_accepts_the_same_vocabulary_twice(tmp_path: Path, engine: str):
    body = (
        "    word = tf.squeeze(tf.sparse.to_dense(inputs['word']), 1)\n"
        "    tft.vocabulary(word, vocab_filename='words')\n"
        "    a = tft.compute_and_apply_vocabulary(word, vocab_filename='words')\n"
        "    b = tft.compute_and_apply_vocabulary(word, vocab_filename='words')\n"
        "    c = tft.vocabulary(word, vocab_filename='words', file_format='tfrecord_gzip')\n"
        "    c = tft.apply_vocabulary(word, c, file_format='tfrecord_gzip')\n"
        "    return {'a': a, 'b': b, 'c': c}\n"
    )
    result = run(tmp_path, {"train": small_table()}, transform_module=module(body), engine=engine)
    # A text file lacks the empty token; a file of records contains it.
    for name, empty in (("a", 0), ("b", 0), ("c", 3)):
        np.testing.assert_array_equal(result.transformed_column("train", name), [2, empty, 1, 1, 1, 1])


OTHER = {
    "tokens": "tf.strings.upper(word), vocab_filename='words'",
    "weights": "word, weights=tf.ones_like(word, tf.float32), vocab_filename='words'",
    "threshold": "word, frequency_threshold=2, vocab_filename='words'",
}


@pytest.mark.parametrize("name", list(OTHER))
def test_rejects_another_vocabulary_with_the_same_filename(tmp_path: Path, name: str):
    body = (
        "    word = tf.squeeze(tf.sparse.to_dense(inputs['word']), 1)\n"
        "    a = tft.compute_and_apply_vocabulary(word, vocab_filename='words')\n"
        f"    b = tft.compute_and_apply_vocabulary({OTHER[name]})\n"
        "    return {'a': a, 'b': b}\n"
    )
    with pytest.raises(TidemillError, match="line 8: got a second vocabulary of vocab_filename 'words'"):
        run(tmp_path, {"train": small_table()}, transform_module=module(body))


def test_inputs_are_checked_only_if_no_line_of_the_module_failed(tmp_path: Path):
    checks: list[str] = []
    with (
        pytest.raises(TidemillError, match="line 1: got ZeroDivisionError"),
        user_errors("1 / 0", lambda: checks.append("line")),
    ):
        exec(compile("1 / 0", FILE_NAME, "exec"), {})
    for text in ("1 / 0", None):
        with pytest.raises(Exception, match="no"), user_errors(text, lambda: checks.append("no line")):
            raise ValueError("no")
    assert checks == ["no line", "no line"]


def test_a_full_disk_is_not_a_mistake_in_the_module():
    import tensorflow as tf

    text = module("    return {}\n")
    full = tf.errors.ResourceExhaustedError(None, None, "saved_model.pb; No space left on device")
    for error in (full, OSError(28, "No space left on device")):
        with pytest.raises(type(error), match="No space"), user_errors(text, lambda: None):
            raise error
    with pytest.raises(TidemillError, match="ValueError: no"), user_errors(text, lambda: None):
        raise ValueError("no")


COMPUTED = module(DENSE + "    return {'a': x, 'high': tf.cast(x > 1.0, tf.int64)}\n")


def test_labels_may_be_columns_or_computed(tmp_path: Path):
    result = run(tmp_path, {"train": small_table()}, transform_module=COMPUTED, labels=["y", "high"])
    assert [c.name for c in result.graph.computed_labels["high"]] == ["x"] and result.graph.given_labels == ["y"]
    assert [f["name"] for f in result.graph.features] == ["a"]
    assert list(result.transformed.columns) == ["a", "y", "high"]
    made = result.transformed.read("train")
    assert made["high"].to_pylist() == [float(value > 1.0) for value in made["a"].to_pylist()]
    assert made["y"].to_pylist() == small_table()["y"].to_pylist()


def test_rejects_a_feature_computed_from_the_second_label(tmp_path: Path):
    with pytest.raises(TidemillError, match=r"'a'.*the label 'y'") as caught:
        run(tmp_path, {"train": small_table()}, transform_module=module(Y + "    return {'a': y}\n"), labels=["x", "y"])
    assert caught.value.code is Code.LEAKAGE
