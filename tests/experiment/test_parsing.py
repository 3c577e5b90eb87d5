"""Parsing of experiments: each mistake is reported with its path, the value and what to write instead."""

import copy
from pathlib import Path

import pytest
import yaml

from tidemill.errors import Code, TidemillError
from tidemill.experiment import dump, json_schema, load, parse
from tidemill.experiment.unused import unused_settings

_FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "experiment.yaml"

VALID = {
    "name": "clicks",
    "source": {
        "tables": {"logs": {"uri": ["a.csv", "b.csv"], "format": "csv", "null": ["NA"]}, "ads": "ads.parquet"},
        "sql": "SELECT * FROM logs JOIN ads USING (ad) WHERE day >= $day",
        "params": {"day": "2013-01-01"},
        "max_bytes": "2GiB",
        "max_bad_share": 0.01,
    },
    "label": "clicked",
    "key": ["id"],
    "split": {"by": "time", "column": "at", "fractions": {"train": 0.8, "valid": 0.1, "test": 0.1}, "seed": 1},
    "validation": {"drift": {"numeric": 0.1}, "leakage": {"allow": ["position"]}},
    "features": {
        "price": {"kind": "numeric", "transform": "log", "missing": 0.5},
        "age": {"kind": "numeric", "transform": {"bucketize": 8}},
        "site": {"kind": "categorical", "vocabulary": {"min_count": 10}},
        "user": {"kind": "categorical", "hash": {"buckets": 1000}},
        "site_x_user": {"kind": "cross", "of": ["site", "user"]},
    },
    "models": [{"family": "gbdt", "num_leaves": 31}, {"family": "dcn_v2", "deep": [64, 32], "dropout": 0.1}],
    "training": {"epochs": 2, "optimizer": {"name": "adam", "learning_rate": 1e-3}, "early_stopping": None},
    "tuning": {"trials": 3, "space": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
    "evaluation": {"slices": [["site"]], "bootstrap": {"resamples": 10}, "gates": {"auc": {"min": 0.7}}},
    "predict": {"shards": 2, "columns": ["at"]},
    "compute": {"train": {"gpu": 1}, "preprocess": {"runner": "direct", "options": []}},
}
LOGS_CSV = "source.tables.logs.csv"
PREPROCESS = "compute.preprocess"


def changed(path: str, value: object) -> str:
    """Returns the valid experiment as YAML, with `value` at the dotted `path`."""
    data = copy.deepcopy(VALID)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    section = data
    for part in parents:
        section = section[part]
    section[last] = value
    return yaml.safe_dump(data, sort_keys=False)


def without(path: str) -> str:
    data = copy.deepcopy(VALID)
    *parents, last = path.split(".")
    section = data
    for part in parents:
        section = section[part]
    del section[last]
    return yaml.safe_dump(data, sort_keys=False)


def mistake(text: str) -> TidemillError:
    with pytest.raises(TidemillError) as raised:
        parse(text)
    return raised.value


def test_examples_are_valid():
    assert parse(yaml.safe_dump(VALID)).training.optimizer.learning_rate == 1e-3
    assert load(_FLIGHTS).name == "flights"


@pytest.mark.parametrize(
    ("path", "value", "where", "got", "want"),
    [
        # Wrong words.
        ("featurs", {}, "featurs", "the unknown key 'featurs'", "did you mean 'features'"),
        ("split.colum", "x", "split.colum", "the unknown key 'colum'", "did you mean 'column'"),
        (
            "features.price.vocabulary",
            {},
            "features.price.vocabulary",
            "the unknown key 'vocabulary'",
            "use one of kind",
        ),
        ("features.age.transform", {"bucketise": 3}, "features.age.transform.bucketise", "'bucketise'", "'bucketize'"),
        ("models.0.cross_layers", 3, "models.0.cross_layers", "the unknown key 'cross_layers'", "use one of bagging"),
        ("validation.schema_", "x", "validation.schema_", "the unknown key 'schema_'", "did you mean 'schema'"),
        ("evaluation.gates.acu", {"min": 1}, "evaluation.gates.acu", "the unknown key 'acu'", "did you mean 'auc'"),
        ("split.by", "tme", "split.by", "'tme'", "did you mean 'time'"),
        ("features.price.transform", "zcore", "features.price.transform", "'zcore'", "did you mean 'zscore'"),
        ("features.price.kind", "number", "features.price.kind", "'number'", "did you mean 'numeric'"),
        ("models.0.family", "gdbt", "models.0.family", "'gdbt'", "did you mean 'gbdt'"),
        ("models.0.family", ["gbdt"], "models.0.family", '["gbdt"]', "gbdt"),
        # Wrong types.
        ("source", "a.csv", "source", "'a.csv'", "write a mapping with the keys tables, sql"),
        ("source.tables.ads", 3, "source.tables.ads", "3", "write a mapping with the keys uri"),
        (
            "features.site",
            "categorical",
            "features.site",
            "'categorical'",
            "the key 'kind': numeric, categorical or cross",
        ),
        ("models", {"family": "gbdt"}, "models", '{"family": "gbdt"}', "write a list"),
        ("models.0", "gbdt", "models.0", "'gbdt'", "the key 'family'"),
        ("key", "id", "key", "'id'", "write a list, such as [a, b]"),
        ("label", 1, "label", "1", "write a string, in quotes"),
        ("training.epochs", "2", "training.epochs", "'2'", "write an integer, without quotes"),
        ("training.epochs", 2.5, "training.epochs", "2.5", "write an integer"),
        ("training.epochs", True, "training.epochs", "true", "write an integer"),
        ("source.max_bytes", True, "source.max_bytes", "true", "write an integer"),
        ("source.max_bytes", "2 parsecs", "source.max_bytes", "'2 parsecs'", "such as 500MB or 2GiB"),
        ("source.max_bytes", "9" * 999, "source.max_bytes", "'9999", "such as 500MB or 2GiB"),
        ("split.fractions.train", True, "split.fractions.train", "true", "write a number"),
        ("compute.train.gpu", 4, "experiment", "compute", "set training.backend to jax, which uses all"),
        ("compute.train.spot", "true", "compute.train.spot", "'true'", "write true or false, without quotes"),
        ("split", None, "split", "nothing", "write a mapping"),
        (PREPROCESS, {"engine": "loca"}, f"{PREPROCESS}.engine", "'loca'", "did you mean 'local'"),
        (PREPROCESS, {"local_limit": "64 gallons"}, f"{PREPROCESS}.local_limit", "'64 gallons'", "500MB or 2GiB"),
        (PREPROCESS, {"engine": "local", "runner": "flink"}, PREPROCESS, "flink", "remove runner: flink"),
        (PREPROCESS, {"runner": "spark"}, PREPROCESS, "spark", "needs the option --temp_location"),
        (PREPROCESS, {"options": ["--region=x"]}, PREPROCESS, "--region=x", "name the runner"),
        (PREPROCESS, {"engine": "beam", "options": ["--region=x"]}, PREPROCESS, "--region=x", "name the runner"),
        (PREPROCESS, {"analyzer_cache": True, "runner": "flink"}, PREPROCESS, "flink", "remove analyzer_cache"),
        (PREPROCESS, {"analyzer_cache": True, "engine": "beam"}, PREPROCESS, "beam", "remove analyzer_cache"),
        (
            "source.params.day",
            ["x"],
            "source.params.day",
            '["x"]',
            "write a string, an integer, a number or true or false",
        ),
        # Out of range.
        ("training.epochs", 0, "training.epochs", "0", "use more than 0"),
        ("training.seed", 2**32, "training.seed", "4294967296", "use less than 4294967296"),
        ("models.1.dropout", 1.0, "models.1.dropout", "1.0", "use less than 1"),
        ("features.age.transform.bucketize", 1, "features.age.transform.bucketize", "1", "use 2 or more"),
        (
            "features.age.transform",
            {"bucketize": 5, "clip": [0, 1]},
            "features.age.transform",
            "the key 'bucketize' next to 'clip'",
            "keep one of them, because they exclude each other",
        ),
        (LOGS_CSV, {"dateformat": "DD.MM.YYYY"}, f"{LOGS_CSV}.dateformat", "'DD.MM.YYYY'", "strptime, '%d.%m.%Y'"),
        (LOGS_CSV, {"dateformat": "day"}, f"{LOGS_CSV}.dateformat", "'day'", "strptime, such as %d.%m.%Y"),
        (
            LOGS_CSV,
            {"timestampformat": "yyyy-MM-dd HH:mm:ss"},
            f"{LOGS_CSV}.timestampformat",
            "'yyyy-MM-dd HH:mm:ss'",
            "strptime, '%Y-%m-%d %H:%M:%S'",
        ),
        ("features.age.transform", {"clip": [0.1]}, "features.age.transform.clip", "[0.1]", "name at least 2"),
        ("features.age.transform", {"clip": [0.1, 2]}, "features.age.transform.clip.1", "2", "use 1.0 or less"),
        ("features.age.transform", {"clip": [0.9, 0.1]}, "features.age.transform", "[0.9, 0.1]", "less than"),
        ("features.price.missing", "median", "features.price.missing", "'median'", "or write a number"),
        ("models", [], "models", "[]", "name at least 1"),
        ("labels", [], "labels", "[]", "name at least 1"),
        ("source.tables.logs.uri", [], "source.tables.logs.uri", "[]", "name at least 1"),
        ("source.tables.logs.delimiter", ";;", "source.tables.logs.delimiter", "';;'", "write one character"),
        ("source.tables.logs.delimiter", "", "source.tables.logs.delimiter", "''", "write one character"),
        (
            "source.tables.logs.delimiter",
            "\\t",
            "source.tables.logs.delimiter",
            "t'",
            'a tab is "\\t" in double quotes',
        ),
        ("source.tables.logs.sep", ";", "source.tables.logs.sep", "'sep'", "write it in csv: {delim: …}"),
        ("source.tables.logs.quote", "'", "source.tables.logs.quote", "'quote'", "write it in csv: {quote: …}"),
        ("source.tables.logs.csv", {"skiprows": 1}, "source.tables.logs.csv.skiprows", "'skiprows'", "write 'skip'"),
        ("source.tables.LOGS", "b.csv", "source.tables", "LOGS", "rename 'logs' or 'LOGS'"),
        ("evaluation.slices", [[]], "evaluation.slices.0", "[]", "name at least 1"),
        ("name", "Two Words", "name", "'Two Words'", "matches ^[a-z]"),
        # Keys that contradict each other.
        ("split.fractions.train", 0.5, "split.fractions", '"train": 0.5', "must add up to 1"),
        (
            "transform_module",
            "def preprocessing_fn(x):\n  pass",
            "experiment",
            "features",
            "either features or transform_module",
        ),
        ("features.clicked", {"kind": "numeric"}, "experiment", "features", "the label 'clicked' is also a feature"),
        (
            "validation.unseen",
            {"columns": {"agee": 0.1}},
            "experiment",
            "features",
            "validation.unseen.columns names 'agee'",
        ),
        (
            "validation.drift",
            {"columns": {"agee": 0.1}},
            "experiment",
            "features",
            "validation.drift.columns names 'agee'",
        ),
        ("models", [{"family": "gbdt"}] * 2, "models", "gbdt", "two members have the name 'gbdt'"),
        ("source.sql", None, "source", "tables", "several tables need sql"),
        ("evaluation.gates.auc", {}, "evaluation.gates.auc", "{}", "give min, max, better_than_baseline or slices"),
        # A text cannot name files.
        ("source.sql", "query.sql", "source.sql", "the file name 'query.sql'", "--resolved"),
    ],
)
def test_reports_path_value_and_remedy_of_a_wrong_value(path, value, where, got, want):
    error = mistake(changed(path, value))
    assert error.where == where
    assert got in error.got
    assert want in error.want
    assert error.code is (Code.UNKNOWN_KEY if "unknown key" in error.got else Code.INVALID_VALUE)


@pytest.mark.parametrize(
    ("path", "where", "got"),
    [
        ("name", "experiment", "no 'name'"),
        ("source.tables", "source", "no 'tables'"),
        ("source.tables.logs.uri", "source.tables.logs", "no 'uri'"),
        ("features.price.kind", "features.price", "no 'kind'"),
        ("features.site_x_user.of", "features.site_x_user", "no 'of'"),
    ],
)
def test_reports_a_missing_key(path, where, got):
    error = mistake(without(path))
    assert (error.code, error.where, error.got) == (Code.INVALID_VALUE, where, got)
    assert error.want.startswith(f"add the key {got[3:]}")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "defines preprocessing_fn"),
        ("def preprocess(inputs):\n  return inputs\n", "defines preprocessing_fn"),
        ("import tensorflow\ndef preprocessing_fn(inputs:\n", "line 2 is not Python"),
    ],
)
def test_rejects_an_invalid_transform_module(text, want):
    data = {key: value for key, value in VALID.items() if key != "features"}
    error = mistake(yaml.safe_dump(data | {"transform_module": text}))
    assert (error.code, error.where) == (Code.INVALID_VALUE, "transform_module")
    assert want in error.want


@pytest.mark.parametrize("text", ["preprocessing_fn = dict\n", "def preprocessing_fn(x): return x"])
def test_keeps_a_transform_module_of_one_line(tmp_path, text):
    data = {key: value for key, value in VALID.items() if key not in ("features", "source")}
    data |= {"source": {"tables": {"t": "t.csv"}}, "transform_module": "module.py"}
    (tmp_path / "module.py").write_text(text)
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(data))
    assert parse(dump(load(tmp_path / "e.yaml"))).transform_module == text


def test_rejects_a_renamed_key_and_names_the_new_one():
    error = mistake(changed(PREPROCESS, {"spans": True}))
    assert (error.code, error.where, error.want) == (Code.UNKNOWN_KEY, f"{PREPROCESS}.spans", "write 'analyzer_cache'")


def test_reports_an_unknown_key_before_other_mistakes():
    error = mistake(changed("soruce", VALID["source"]).replace("\nsource:", "\nsuorce:"))
    assert error.code is Code.UNKNOWN_KEY and error.details["mistakes"] > 1


@pytest.mark.parametrize("text", ["", "[]", "3", "a string", "- a\n- b", "null", "true"])
def test_requires_a_mapping_at_the_top_level(text):
    assert mistake(text).want == "write a mapping with name, source, label and models"


class TestLoad:
    def write(self, folder: Path, **files: str | bytes) -> Path:
        for name, content in files.items():
            path = folder / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / "experiment.yaml"

    def test_inlines_files_and_makes_paths_absolute(self, tmp_path):
        text = changed("source.sql", "q.sql")
        experiment = load(self.write(tmp_path, experiment__yaml=text, q__sql="SELECT 1"))
        assert experiment.source.sql == "SELECT 1"
        assert experiment.source.tables["ads"].uri == str(tmp_path / "ads.parquet")
        assert experiment.source.tables["logs"].uri == [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
        assert parse(dump(experiment)) == experiment

    @pytest.mark.parametrize(
        ("files", "code", "where"),
        [
            ({}, Code.MISSING_FILE, "experiment"),
            ({"experiment__yaml": b"\xff\xfe\x00"}, Code.UNREADABLE_FILE, "experiment"),
            ({"experiment__yaml": changed("source.sql", "q.sql")}, Code.MISSING_FILE, "source.sql"),
            ({"experiment__yaml": changed("source.sql", "x" * 300 + ".sql")}, Code.MISSING_FILE, "source.sql"),
            (
                {"experiment__yaml": changed("source.sql", "q.sql"), "q__sql": b"\xff"},
                Code.UNREADABLE_FILE,
                "source.sql",
            ),
            ({"experiment__yaml": changed("transform_module", "t.py")}, Code.MISSING_FILE, "transform_module"),
        ],
    )
    def test_rejects_unreadable_files(self, tmp_path, files, code, where):
        with pytest.raises(TidemillError) as raised:
            load(self.write(tmp_path, **files))
        assert (raised.value.code, raised.value.where) == (code, where)

    def test_rejects_a_folder(self, tmp_path):
        with pytest.raises(TidemillError, match="is a directory") as raised:
            load(tmp_path)
        assert raised.value.code is Code.MISSING_FILE


def test_json_schema_describes_each_key():
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert all(section.get("additionalProperties") is False for section in sections if section.get("type") == "object")
    assert "schema" in schema["$defs"]["Validation"]["properties"]


@pytest.mark.parametrize(
    ("changes", "unused"),
    [
        ({}, ["tuning"]),
        (
            {"tuning": None, "split": {"by": "column", "column": "s", "fractions": {}, "seed": 3}},
            ["split.fractions", "split.seed"],
        ),
        ({"tuning": None, "split": {"by": "random", "column": "user"}}, ["split.column"]),
        (
            {"tuning": None, "models": [{"family": "gbdt"}]},
            ["training.epochs", "training.optimizer", "compute.train.gpu"],
        ),
        ({"tuning": None, "evaluation": {"bootstrap": {"resamples": 0, "seed": 1}}}, ["evaluation.bootstrap.seed"]),
        (
            {"tuning": None, "source": {"tables": {"t": {"uri": "a", "format": "parquet", "null": ["x"]}}}},
            ["source.tables.t.null"],
        ),
    ],
)
def test_lists_settings_that_nothing_uses(changes, unused):
    assert list(unused_settings(parse(yaml.safe_dump(VALID | {"split": {}} | changes)))) == unused
