"""Small inputs that went wrong once: what is right for each of them.

The names begin with the number under which the case was reported. Cases of the steps after ingest are in the tests of
these steps: r10 and r11 in tests/validation/test_lost_values.py, r20 also in test_model_types.py, r02 in
tests/publishing/test_predict.py, r42 in tests/validation/test_leakage.py, e01 in
tests/transform/test_features_function.py, and a notice of an own family's failure (r31) in tests/pipelines.
"""

import io
import json
import os
import re
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.runs import Runner
from tidemill.artifacts.examples import MALFORMED, NULL_WORDS
from tidemill.cli.main import main
from tidemill.data import source_record
from tidemill.errors import Code, TidemillError
from tidemill.experiment import load
from tidemill.experiment.source import Source

LONG = 12345678901234500


def csv(header: str, cell, rows: int = 60) -> str:
    return f"id,{header},y\n" + "".join(f"{i},{cell(i)},{i % 2}\n" for i in range(rows))


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def refusal(runner: Runner, files: dict[str, str | bytes], code: Code, **fields) -> str:
    paths = [runner.write(name, content) for name, content in files.items()]
    table = {"uri": paths, **fields.pop("table", {})}
    with pytest.raises(TidemillError) as error:
        runner.run({"t": table}, **fields)
    assert error.value.code is code, error.value
    return str(error.value)


def column(runner: Runner, name: str, content: str | bytes, of: str, **fields) -> dict:
    """Returns the values of a column by id."""
    table = {"uri": runner.write(name, content), **fields.pop("table", {})}
    run = runner.run({"t": table}, **fields)
    assert not run.quarantine
    return {row["id"]: row[of] for row in run.rows()}


@pytest.mark.parametrize("declared", [None, {"t": "TIMESTAMP"}])
def test_b42_offsets_are_instants_in_utc(runner, declared):
    """The hour that winter time repeats. By the clock it would be in the wrong order."""
    texts = ["2024-10-27T02:30:00+02:00", "2024-10-27T02:30:00+01:00", "2024-10-27T02:30:00Z"]
    values = column(runner, "a.csv", csv("t", lambda i: texts[i % 3]), "t", table={"columns": declared})
    assert [str(values[i]) for i in range(3)] == ["2024-10-27 00:30:00", "2024-10-27 01:30:00", "2024-10-27 02:30:00"]


def test_b70_am_and_pm_order_the_splits(runner):
    text = csv(
        "t", lambda i: f"2024-01-{1 + i // 4:02} {('09:00', '11:59', '02:15', '11:00')[i % 4]}:00 {'AP'[i % 4 // 2]}M"
    )
    path = runner.write("a.csv", text)
    run = runner.run({"t": path}, split={"by": "time", "column": "t"})
    ids = [[row["id"] for row in run.rows(split)] for split in ("train", "valid", "test")]
    assert max(ids[0]) < min(ids[1]) and max(ids[1]) < min(ids[2])


def test_b39_b41_declared_types_refuse_what_they_would_cut(runner):
    times = csv("day", lambda i: f"2024-01-{1 + i % 28:02} 23:50:00")
    assert "'DATE'" in refusal(runner, {"a.csv": times}, Code.MALFORMED_ROWS, table={"columns": {"day": "DATE"}})
    for kind in ("HUGEINT", "DECIMAL(9,0)", "BIGINT"):
        halves = csv("x", lambda i: i + 0.5)
        refusal(runner, {"a.csv": halves}, Code.MALFORMED_ROWS, table={"columns": {"x": kind}})


def test_p23_p24_j01_r50_names_that_sql_does_not_distinguish(runner):
    data = {"id": range(60), "ID": range(60), "y": [0, 1] * 30}
    for name, content in {
        "p.parquet": parquet(**data),
        "j.jsonl": "".join(json.dumps({k: v[i] for k, v in data.items()}) + "\n" for i in range(60)),
    }.items():
        words = refusal(runner, {name: content}, Code.UNREADABLE_FILE, sql="SELECT id, y FROM t")
        assert "'id'" in words and "'ID'" in words


def test_n11_r01_decimal_keys_keep_their_digits(runner):
    keys = [Decimal(18 * 10**18 + i) for i in range(600)]
    content = parquet(user=pa.array(keys, pa.decimal128(20, 0)), x=range(600), y=[0, 1] * 300)
    path = runner.write("a.parquet", content)
    for stage, labels in (("train", ["y"]), ("predict", [])):
        run = runner.run({"t": path}, key=["user"], stage=stage, labels=labels)
        assert {row["user"] for row in run.rows()} == {str(key) for key in keys}


def test_b52_a_nan_among_long_ids(runner):
    values = column(runner, "a.csv", csv("user", lambda i: "nan" if i == 30 else LONG + i), "user")
    assert values == {i: None if i == 30 else LONG + i for i in range(60)}


def test_p13_long_ids_beside_floats_of_another_file(runner):
    ids = pa.array([LONG + i for i in range(60)])
    files = {
        "1.parquet": parquet(user=ids, y=[0, 1] * 30),
        "2.parquet": parquet(user=ids.cast("float64", safe=False), y=[0, 1] * 30),
    }
    words = refusal(runner, files, Code.UNREADABLE_FILE)
    assert "BIGINT" in words and "DOUBLE" in words


def test_r02_predictions_without_a_key_carry_all_columns(runner):
    path = runner.write("a.csv", csv("x", float))
    run = runner.run({"t": path}, stage="predict", labels=[])
    assert set(run.dataset.columns) == {"id", "x", "y"}


def test_n01_n04_nan_is_null_for_the_sql_too(runner):
    x = [float("nan") if i % 4 == 0 else float(i) for i in range(200)]
    path = runner.write("a.parquet", parquet(id=range(200), x=x, y=[0, 1] * 100))
    assert sum(row["x"] is None for row in runner.run({"t": path}).rows()) == 50
    assert len(runner.run({"t": path}, sql="SELECT * FROM t WHERE NOT isnan(x)").rows()) == 150


MODULE = "from helpers import clean\n\n\ndef preprocessing_fn(inputs):\n    return {'x': clean(inputs['x'])}\n"


def experiment(folder: Path, **changes) -> str:
    content = {"name": "c", "source": {"tables": {"t": "d.csv"}}, "label": "y", "models": [{"family": "gbdt"}]}
    content |= {"features": {"x": {"kind": "numeric"}}} if "transform_module" not in changes else {}
    (folder / "experiment.yaml").write_text(json.dumps(content | changes))
    return str(folder / "experiment.yaml")


def test_r36_a_changed_module_beside_the_transform_module_is_noticed(tmp_path):
    (tmp_path / "my.py").write_text(MODULE)
    texts = set()
    for line in ("return x", "return x * 0.0"):
        (tmp_path / "helpers.py").write_text(f"def clean(x):\n    {line}\n")
        texts.add(load(experiment(tmp_path, transform_module="my.py")).transform_module)
    assert len(texts) == 2


def test_r35_a_file_that_is_rewritten_with_the_same_size_and_time_is_noticed(runner, monkeypatch):
    monkeypatch.setattr(source_record, "_RACY_S", 0)
    path = runner.write("a.csv", csv("x", lambda i: i % 10))
    stat = os.stat(path)
    first = source_record.record(Source.model_validate({"tables": {"t": path}})).fingerprint
    Path(path).write_text(csv("x", lambda i: 9 - i % 10))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert os.stat(path).st_size == stat.st_size
    assert source_record.record(Source.model_validate({"tables": {"t": path}})).fingerprint != first


@pytest.mark.parametrize("mixed", [slice(20, 40), slice(59, 61), slice(0, 1)], ids=["b06", "b36", "the header"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_b06_b36_line_ends_of_two_kinds(runner, mixed, quote):
    lines = [f"id,g,{quote}y{quote}", *(f"{i},{quote}{'ab'[i % 2]}{quote},{quote}{i % 2}{quote}" for i in range(60))]
    ends = ["\r\n"] * len(lines)
    ends[mixed] = ["\n"] * len(ends[mixed])
    content = "".join(line + end for line, end in zip(lines, ends, strict=True))
    assert column(runner, "a.csv", content, "g") == {i: "ab"[i % 2] for i in range(60)}


def test_p34_j02_columns_without_a_name(runner):
    for name, content in {"a.parquet": parquet(id=[1], **{"": [2]}), "a.jsonl": '{"id": 1, "": 2}\n'}.items():
        assert "a column without a name" in refusal(runner, {name: content}, Code.UNREADABLE_FILE)


def test_b69_types_of_400_columns(runner):
    names = [f"c{i}" for i in range(400)]
    text = (
        ",".join(["y", *names]) + "\n" + "".join(f"{k % 2}," + ",".join([str(k / 7)] * 400) + "\n" for k in range(60))
    )
    path = runner.write("a.csv", text)
    start = time.process_time()
    run = runner.run({"t": path})
    assert time.process_time() - start < 5  # 7.3 s for the types only, when their inference was quadratic
    assert {run.dataset.columns[name] for name in names} == {"double"}


def test_r20_the_rows_that_were_left_out_are_counted(runner):
    text = csv("x", lambda i: "oops" if i == 7 else i / 2)
    table = {"uri": runner.write("a.csv", text), "columns": {"x": "DOUBLE"}}
    run = runner.run({"t": table}, stage="predict", labels=[], source={"max_bad_share": 0.1})
    assert run.dataset.metadata[MALFORMED] == {"t": 1}
    assert [bad["line"] for bad in run.quarantine] == [9]


def test_b01_leading_zeros_are_text(runner):
    values = column(runner, "a.csv", csv("zip", lambda i: ("01234", "1234")[i % 2]), "zip")
    assert set(values.values()) == {"01234", "1234"}


def test_b03_a_frequent_null_word_is_reported(runner):
    path = runner.write("a.csv", csv("country", lambda i: ("NA", "DE", "FR")[i % 3]))
    run = runner.run({"t": path})
    assert run.dataset.metadata[NULL_WORDS] == {"t": {"country": {"NA": pytest.approx(1 / 3)}}}


def test_r31_a_split_of_one_class_is_told_at_ingest_with_counts(runner):
    text = csv("t,x", lambda i: f"{i},{i % 7}", 3000).splitlines()
    text = [text[0], *(line[:-1] + str(int(i in (5, 50, 500))) for i, line in enumerate(text[1:]))]
    split, needed = {"by": "time", "column": "t"}, ["train", "valid", "test"]
    words = refusal(runner, {"a.csv": "\n".join(text)}, Code.LABEL_ONE_CLASS, split=split, both_classes=needed)
    assert re.search(r"rows with 1: train 3 of 2,400, valid 0 of 300, test 0 of 300", words)


@pytest.mark.parametrize(
    ("cell", "named", "csv_options"),
    [
        (lambda i: r"\N" if i % 9 == 0 else i / 2, r"'\\N'", {"nullstr": [r"\N"]}),
        (lambda i: f'"{i * 1000:,}.50"', "'1,000.50'", {"thousands": ","}),
        (lambda i: f'"{i},5"', "'0,5'", {"decimal_separator": ","}),
    ],
    ids=["r03", "b14", "decimal comma"],
)
def test_r03_b14_the_values_that_are_no_numbers_and_the_options_that_read_them(
    tmp_path, capsys, cell, named, csv_options
):
    (tmp_path / "d.csv").write_text(csv("x", cell))
    assert main(["validate", "--data", experiment(tmp_path)]) == 2
    words = capsys.readouterr().err
    assert named in words and f"csv.{next(iter(csv_options))}" in words
    table = {"uri": "d.csv", "csv": csv_options}
    assert main(["validate", "--data", experiment(tmp_path, source={"tables": {"t": table}})]) == 0


def test_r06_pandas_index_and_b17_a_name_twice(runner):
    assert column(runner, "a.csv", ",id,y\n" + "".join(f"{i},{i},{i % 2}\n" for i in range(60)), "index")[59] == 59
    twice = csv("x,x", lambda i: f"{i},3")
    words = refusal(runner, {"a.csv": twice}, Code.UNREADABLE_FILE)
    (skipped,) = re.findall(r"csv: \{skip: (\d), header: false\}", words)
    table = {"csv": {"skip": int(skipped), "header": False}}
    table["columns"] = dict.fromkeys(("id", "x", "x_2", "y"), "BIGINT")
    assert column(runner, "a.csv", twice, "x_2", table=table) == dict.fromkeys(range(60), 3)


def test_b28_b30_quotes_as_they_come(runner):
    escaped = csv("g", lambda i: '"a \\"quoted\\" word"')
    assert "csv.quote and csv.escape" in refusal(runner, {"a.csv": escaped}, Code.MALFORMED_ROWS)
    values = column(runner, "a.csv", escaped, "g", table={"csv": {"escape": "\\"}})
    assert set(values.values()) == {'a "quoted" word'}
    inches = csv("g", lambda i: ('5" screen', '"x', "plain")[i % 3]).replace(",", "\t")
    assert "csv.quote and csv.escape" in refusal(runner, {"a.tsv": inches}, Code.MALFORMED_ROWS)
    values = column(runner, "a.tsv", inches, "g", table={"csv": {"quote": ""}})
    assert set(values.values()) == {'5" screen', '"x', "plain"}


def test_b09_utf16_and_b13_a_semicolon(runner):
    text = csv("g", lambda i: "é")
    assert set(column(runner, "a.csv", text.encode("utf-16"), "g").values()) == {"é"}
    words = refusal(runner, {"a.csv": text.replace(",", ";")}, Code.UNREADABLE_FILE)
    assert words.endswith('set source.tables.t.delimiter to ";".')
    values = column(runner, "a.csv", text.replace(",", ";"), "g", table={"delimiter": ";"})
    assert set(values.values()) == {"é"}


def test_p06_an_unsigned_time(runner):
    path = runner.write("a.parquet", parquet(id=range(60), x=pa.array(np.arange(60), pa.uint64()), y=[0, 1] * 30))
    run = runner.run({"t": path}, split={"by": "time", "column": "x"})
    assert [row["id"] for row in run.rows("test")] and max(r["id"] for r in run.rows("train")) < 48


def test_r37_any_character_in_a_path(runner):
    path = runner.write("Data [2024] it's 100%/d #1 (a).csv", csv("x", float))
    for uri in (path, path.replace("[", "[[]"), path.replace("#1", "#*").replace("[2024]", "*")):
        assert sum(runner.run({"t": uri}).summary.rows.values()) == 60


def test_b50_ties_at_the_border_of_a_split(runner):
    text = csv("t", lambda i: "2024-01-01" if i < 54 else "2024-01-02")
    words = refusal(runner, {"a.csv": text}, Code.EMPTY_SPLIT, split={"by": "time", "column": "t"})
    assert "rows of one 't' stay together, and 2024-01-01 has 54 of them" in words


@pytest.mark.parametrize(
    "at", [pa.array(range(60), pa.date32()), pa.array(range(60), pa.timestamp("ns", "Europe/Berlin"))]
)
def test_r39_a_time_as_a_feature_and_what_the_query_makes_of_it(tmp_path, capsys, at):
    (tmp_path / "d.parquet").write_bytes(parquet(id=range(60), at=at, y=[0, 1] * 30))
    source = {"tables": {"t": "d.parquet"}}
    assert (
        main(["validate", "--data", experiment(tmp_path, source=source, features={"at": {"kind": "categorical"}})]) == 2
    )
    advice = re.findall(r"\w+\([^ ]*\)", capsys.readouterr().err)
    assert [call.split("(")[0] for call in advice] == ["dayofweek", "hour", "epoch"]
    source["sql"] = "SELECT id, y, " + ", ".join(f"{call} AS x{i}" for i, call in enumerate(advice)) + " FROM t"
    features = {f"x{i}": {"kind": "numeric"} for i in range(3)}
    assert main(["validate", "--data", experiment(tmp_path, source=source, features=features)]) == 0


YAML = {
    "a tab without double quotes": ({"delimiter": r"\t"}, r'a tab is "\t" in double quotes'),
    "a separator by pandas' name": ({"sep": ";"}, "write it in csv: {delim: …}"),
    "a quote": ({"quote": "'"}, "write it in csv: {quote: …}"),
    "a key twice": ({"delimiter": ";", "csv": {"delim": ";"}}, "mean the same"),
}


@pytest.mark.parametrize("case", YAML)
def test_y_yaml_options_where_they_do_not_belong(tmp_path, capsys, case):
    options, words = YAML[case]
    (tmp_path / "d.csv").write_text(csv("x", float))
    assert main(["validate", experiment(tmp_path, source={"tables": {"t": {"uri": "d.csv", **options}}})]) == 2
    assert words in capsys.readouterr().err
