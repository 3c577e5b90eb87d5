"""The table 'Names and files' of docs/reading.md holds: each row has examples, which are written and read."""

import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.runs import Runner
from tests.docs.test_reading_page import rows_of
from tidemill.errors import Code, TidemillError

ROWS = {cells[0]: cells[1] for cells in rows_of("Names and files")}


def parquet(**columns) -> bytes:
    return parquet_of(list(columns), *columns.values())


def parquet_of(names: list[str], *values) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(v) for v in values], names=names), sink)
    return sink.getvalue()


def csv(*lines: str) -> str:
    return "\n".join(lines) + "\n"


GOOD = {"csv": csv("k,v", "1,2"), "jsonl": '{"k": 1, "v": 2}\n', "parquet": parquet(k=[1], v=[2])}
ODD_NAME = "it's [2024] 100%/a #1 (b).csv"

# By the first cell: examples of files. For a refused file a part of the message, for a malformed row how many rows
# stay, else the values of the column v.
EXAMPLES = {
    "Two columns that differ only in case: CSV, JSON, Parquet": [
        ({"a.csv": csv("v,V", "1,2")}, "'V' twice: also as 'v'"),
        ({"a.jsonl": '{"v": 1, "V": 2}\n'}, "'v' twice: also as 'V'"),
        ({"1.jsonl": '{"v": 1}\n', "2.jsonl": '{"V": 1}\n'}, "'v' twice: also as 'V'"),
        ({"a.parquet": parquet(v=[1], V=[2])}, "'V' twice: also as 'v'"),
    ],
    "One name twice: CSV, Parquet": [
        ({"a.csv": csv("v,v", "1,2")}, "the column name 'v' twice"),
        ({"a.parquet": parquet_of(["v", "v"], [1], [2])}, "the column name 'v' twice"),
    ],
    "A JSON object with one key twice": [({"a.jsonl": '{"v": 1}\n{"v": 1, "v": 2}\n'}, 1)],
    "A column with the name of a partition folder, such as `day=1`": [
        ({f"v=1/a.{kind}": text}, "partition folder") for kind, text in GOOD.items()
    ],
    "Files of one table with different columns: CSV, Parquet": [
        ({"1.csv": GOOD["csv"], "2.csv": csv("k,w", "1,2")}, "the extra column '"),
        ({"1.parquet": GOOD["parquet"], "2.parquet": parquet(k=[1])}, "column 'v'"),
    ],
    "A column without a name: CSV, JSON, Parquet": [
        ({"a.csv": csv("v,", "1,2")}, "a column without a name"),
        ({"a.jsonl": '{"v": 1, "": 2}\n'}, "a column without a name"),
        ({"a.parquet": parquet_of(["v", ""], [1], [2])}, "a column without a name"),
    ],
    "The first column of a CSV file without a name, which is pandas' index": [
        ({"a.csv": csv(",v", "0,1", "1,5")}, [1, 5])
    ],
    "Partition folders `month=01` to `month=12`": [
        ({f"v={month:02}/a.{kind}": text.replace(b"v", b"w") if isinstance(text, bytes) else text.replace("v", "w")
          for month in (1, 12)}, [1, 12])
        for kind, text in GOOD.items() if kind != "parquet"
    ] + [({f"v={month:02}/a.parquet": parquet(k=[1]) for month in (1, 12)}, [1, 12])],
    "Partition folders `zip=01234` and `zip=1234`": [
        ({f"v={text}/a.csv": csv("k", "1") for text in ("01234", "1234")}, ["01234", "1234"])
    ],
    "A CSV file with lines that end in CRLF and LF": [
        ({"a.csv": 'k,v\r\n1,a\n2,"b\r\nc"\r\n3,"d\ne"\n'}, ["a", "b\r\nc", "d\ne"]),
    ],
    "A CSV file in UTF-16 with a byte order mark, UTF-8 with or without one": [
        ({"a.csv": csv("k,v", "1,é").encode(encoding)}, ["é"]) for encoding in ("utf-16", "utf-8", "utf-8-sig")
    ],
    "A CSV file in UTF-16 without a byte order mark": [
        ({"a.csv": csv("k,v", "1,é").encode(encoding)}, f"source.tables.t.csv.encoding to {encoding}")
        for encoding in ("utf-16-le", "utf-16-be")
    ],
    "A JSON file that begins with `[`": [({"a.json": json.dumps([{"v": 1}, {"v": 2}])}, [1, 2])],
    r"A CSV file whose header is one column with a `;`, a tab or a `\|` in its name": [
        ({"a.csv": csv(f"k{char}v", f"1{char}2")}, f"set source.tables.t.delimiter to {written}")
        for char, written in ((";", '";"'), ("\t", r'"\t"'), ("|", '"|"'))
    ],
    "A CSV row with too few or too many fields, or a quote that does not end": [
        ({"a.csv": csv("k,v", "1,2", row)}, 1) for row in ("1", "1,2,3", '1,"2')
    ],
    "A CSV or JSON row that is not UTF-8": [
        ({"a.csv": b"k,v\n1,a\n2,\xff\n"}, 1),
        ({"a.jsonl": b'{"v": "a"}\n{"v": "\xff"}\n'}, 1),
    ],
    "Decimals of more than 38 digits in Parquet": [
        ({"a.parquet": parquet(v=pa.array([Decimal(10) ** 40], pa.decimal256(41, 0)))}, "at most 38 digits")
    ],
    "A Parquet file that is cut off": [({"a.parquet": GOOD["parquet"][:-20]}, "a damaged Parquet file")],
    "Binary columns that are not UTF-8 in Parquet": [({"a.parquet": parquet(v=[b"\xff", b"a"])}, [b"\xff", b"a"])],
    "File names with `#`, `%`, quotes, spaces and brackets": [({ODD_NAME: csv("k,v", "1,2")}, [2])],
}  # fmt: skip


def test_each_row_has_examples():
    assert list(EXAMPLES) == list(ROWS)


@pytest.mark.parametrize(
    ("row", "files", "expected"),
    [(row, files, expected) for row, examples in EXAMPLES.items() for files, expected in examples],
    ids=[f"{row[:40]}-{index}" for row, examples in EXAMPLES.items() for index in range(len(examples))],
)
def test_files_are_read_as_promised(tmp_path, row, files, expected):
    runner = Runner(tmp_path)
    uris = [runner.write(name, content) for name, content in files.items()]
    run = lambda: runner.run(  # noqa: E731
        {"t": {"uri": uris}}, stage="predict", labels=[], source={"max_bad_share": 1.0}
    )
    result = ROWS[row]
    if result.startswith("refused"):
        with pytest.raises(TidemillError) as error:
            run()
        assert error.value.code is Code.UNREADABLE_FILE
        assert expected in str(error.value)
    elif result == "malformed":
        found = run()
        assert (len(found.rows()), len(found.quarantine)) == (expected, 1)
    else:
        assert result.split()[0].strip(";,") in ("read", "numbers", "text", "kept")
        found = run()
        assert sorted(r["v"] for r in found.rows()) == sorted(expected)
        assert not found.quarantine


def test_refuses_binary_features(tmp_path):
    runner = Runner(tmp_path)
    content = parquet(v=[b"\xff", b"a"] * 50, y=[0, 1] * 50)
    with pytest.raises(TidemillError) as error:
        runner.run({"t": runner.write("a.parquet", content)}, columns=["v"])
    assert error.value.code is Code.FEATURE_TYPE
