"""The tables of docs/reading.md hold: each row is written to a file and read."""

import io
import json
import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.data.runs import IngestRun, Runner
from tidemill.errors import Code, TidemillError

PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text("utf-8")


def rows_of(heading: str) -> list[list[str]]:
    """Returns the cells of the rows of the first table below a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])] for line in lines]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def results(cell: str) -> list[str | None]:
    """Returns the texts in a result's cell. None for a malformed value."""
    return [code if code else None for code in re.findall(r"`([^`]*)`|malformed", cell)]


def shown(value: object) -> str:
    return value if isinstance(value, str) else str(value) if not is_json(value) else json.dumps(value)


def is_json(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float)


def check(runner: Runner, table: dict, kind: str, expected: list[str | None]) -> IngestRun:
    run = runner.run({"t": table}, stage="predict", labels=[], source={"max_bad_share": 1.0})
    assert run.dataset.columns["v"] == kind
    kept = {row["k"]: row["v"] for row in run.rows()}
    assert [shown(kept[k]) if k in kept else None for k in range(len(expected))] == expected
    assert len(run.quarantine) == expected.count(None)
    return run


TEXTS = rows_of("CSV, TSV and JSON")


@pytest.mark.parametrize("cells", TEXTS, ids=lambda cells: " ".join(cells[1:4]))
def test_texts_are_read_as_promised(tmp_path, cells):
    runner = Runner(tmp_path)
    file_format, options, declared, values = (codes(cell) for cell in cells[:4])
    table = yaml.safe_load(options[0]) if options else {}
    if declared:
        table["columns"] = {"v": declared[0]}
    if file_format == ["jsonl"]:
        text = "".join(f'{{"k": {i}, "v": {value}}}\n' for i, value in enumerate(values))
    else:
        delimiter = table.get("csv", {}).get("delim", ",")
        text = f"k{delimiter}v\n" + "".join(f"{i}{delimiter}{value}\n" for i, value in enumerate(values))
    content = text.encode(table.get("csv", {}).get("encoding", "utf-8"))
    path = runner.write(f"a.{file_format[0]}", content)
    check(runner, {"uri": path, **table}, codes(cells[4])[0], results(cells[5]))


def parquet_value(text: str, kind: pa.DataType) -> object:
    if pa.types.is_decimal(kind):
        return Decimal(text)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return float(text) if pa.types.is_floating(kind) else int(text)
    return text.encode() if pa.types.is_binary(kind) else text


def arrow_type(name: str) -> pa.DataType:
    decimal = re.fullmatch(r"decimal128\((\d+), (\d+)\)", name)
    return pa.decimal128(int(decimal[1]), int(decimal[2])) if decimal else pa.type_for_alias(name)


@pytest.mark.parametrize("cells", rows_of("Parquet"), ids=lambda cells: " ".join(cells[:3]))
def test_parquet_is_read_as_promised(tmp_path, cells):
    runner = Runner(tmp_path)
    types, values, declared = [arrow_type(name) for name in codes(cells[0])], codes(cells[1]), codes(cells[2])
    pieces = [values] if len(types) == 1 else [[value] for value in values]
    keys = iter(range(len(values)))
    for number, (kind, piece) in enumerate(zip(types, pieces, strict=True)):
        array = pa.array([parquet_value(text, kind) for text in piece], kind)
        sink = io.BytesIO()
        pq.write_table(pa.table({"k": [next(keys) for _ in piece], "v": array}), sink)
        runner.write(f"{number}.parquet", sink.getvalue())
    table = {"uri": f"{runner.folder}/in/*.parquet", "columns": {"v": declared[0]} if declared else None}
    if cells[4] == "refused":
        with pytest.raises(TidemillError) as error:
            check(runner, table, "", [])
        assert error.value.code is Code.UNREADABLE_FILE
    else:
        check(runner, table, codes(cells[3])[0], results(cells[4]))
