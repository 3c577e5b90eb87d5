"""Streamed CSV files: one pass gives what the stored table gives, byte by byte, and reports the same malformed rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.runs import Runner
from tidemill.data import duckdb_engine
from tidemill.errors import TidemillError

TYPES = {"y": "TINYINT", "n": "BIGINT", "x": "DOUBLE", "t": "TIMESTAMP", "c": "VARCHAR"}
FIELDS = {
    "y": ["0", "1"],
    "n": ["", "7", "-3", "007", "7.0", "7.5", "1_0", "nan", " 8 ", "9223372036854775808", "NA"],
    "x": ["", "1.5", "1e3", "inf", "NaN", "0x1F", "1,5", "12345678901234567"],
    "t": ["", "2024-01-01", "2024-01-01 02:15 PM", "2024-01-01T00:00:00+02:00", "2024-02-30", "2024-01-01 CET"],
    "c": ["", "NA", "a", 'b"q', "c,d", "e\nf", " g ", "é", "a|b", "-"],
}
ROWS = st.lists(st.tuples(*(st.sampled_from(values) for values in FIELDS.values())), min_size=1, max_size=40)


def text(rows: list[tuple[str, ...]]) -> str:
    """Returns CSV text with a header. The first rows differ and have both classes, so that no split is empty."""
    rows = [(str(i % 2), str(100 + i), f"{i}.5", "2024-01-01", f"w{i}") for i in range(80)] + rows
    lines = [",".join('"' + field.replace('"', '""') + '"' for field in row) for row in rows]
    return "\n".join([",".join(TYPES), *lines]) + "\n"


def ingested(folder: Path, content: str, stored: bool, **options):
    """Returns the fingerprint, the malformed rows, and the error if there is one."""
    runner = Runner(folder)
    path = runner.write("t.csv", content)
    table = {"uri": path, "columns": TYPES, **options.pop("table", {})}
    fields = {"source": {"max_bad_share": 0.9}, **options}
    with pytest.MonkeyPatch.context() as patch:
        if stored:
            patch.setattr(duckdb_engine, "stream_table", lambda *_: None)
        try:
            run = runner.run({"t": table}, **fields)
        except TidemillError as error:
            malformed = [dict(row, uri="") for row in runner.quarantined()]
            return None, malformed, (error.code, str(error).replace(str(folder), ""))
    return run.summary.fingerprint, [dict(row, uri="") for row in run.quarantine], run.dataset.metadata["malformed"]


@settings(deadline=None, max_examples=12)
@given(ROWS, st.sampled_from([["NA", ""], [""], ["a"], {"n": ["7"]}, None]), st.sampled_from(["train", "predict"]))
def test_a_stream_gives_what_a_table_gives(tmp_path_factory, rows, nulls, stage):
    options = {"table": {} if nulls is None else {"null": nulls}, "stage": stage}
    options |= {"labels": []} if stage == "predict" else {}
    folder = tmp_path_factory.mktemp("stream")
    streamed = ingested(folder / "streamed", text(rows), False, **options)
    assert streamed == ingested(folder / "stored", text(rows), True, **options)
    assert streamed[0] is not None


def bad_lines(count: int) -> str:
    return text([]) + "0,x,1,2024-01-01,a\n" * count + "0,1\n" * count


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (bad_lines(3), {"source": {"max_bad_share": 0.01}}),
        (bad_lines(3), {"source": {"max_rows": 10}}),
        (text([]).replace('"1",', '"0",'), {}),
        (text([("2", "1", "1", "", "a")]), {}),
        (text([("", "1", "1", "", "a")]), {}),
        (",".join(TYPES) + "\n", {}),
        (text([]), {"columns": ["missing"]}),
        (text([]), {"split": {"fractions": {"train": 0.98, "valid": 0.01, "test": 0.01}}}),
        ("y,n,x,t\n0,1,1,\n", {}),
        (text([]) + '0,1,1,2024-01-01,"open\n', {"source": {"max_bad_share": 0.001}}),
    ],
)
def test_a_stream_fails_as_a_table_does(tmp_path, content, options):
    streamed = ingested(tmp_path / "streamed", content, False, **options)
    stored = ingested(tmp_path / "stored", content, True, **options)
    assert streamed[0] is None and streamed == stored
    assert not (tmp_path / "streamed" / "out" / "examples").exists()


@pytest.mark.parametrize("ends", ["\r\n", "mixed"])
def test_streams_files_with_other_line_ends(tmp_path, ends):
    content = text([]).replace("\n", "\r\n")
    if ends == "mixed":
        content = content.replace("\r\n", "\n", 5)
    streamed = ingested(tmp_path / "streamed", content, False)
    assert streamed == ingested(tmp_path / "stored", content, True)
    assert streamed == ingested(tmp_path / "plain", text([]), False)


def test_several_files_are_one_stream_whatever_their_names(tmp_path):
    rows = [(str(i % 2), str(i), f"{i}.5", "2024-01-01", f"c{i}") for i in range(200)]
    fingerprints = set()
    for name, parts in {"one": [rows], "two": [rows[:50], rows[50:]], "swapped": [rows[120:], rows[:120]]}.items():
        runner = Runner(tmp_path / name)
        header = ",".join(TYPES)
        for index, part in enumerate(parts):
            lines = [",".join(row) for row in part]
            runner.write(f"{index}.csv", "\n".join([header, *lines]) + "\n")
        run = runner.run({"t": {"uri": str(tmp_path / name / "in" / "*.csv"), "columns": TYPES}})
        assert sum(run.summary.rows.values()) == 200
        fingerprints.add(dataclasses.replace(run.summary, bytes_read=0, uneven="").fingerprint)
    assert len(fingerprints) == 1
