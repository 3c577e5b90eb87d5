"""CSV and TSV files before DuckDB reads them: their encoding, their header, and line ends that DuckDB does not read.

DuckDB reads UTF-8 with one kind of line end. Other files are copied into the staging folder: decoded, or with the line
ends of their first line. Line breaks inside quoted fields keep their bytes, and no line gets another number.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemill.data.column_types import check_names
from tidemill.data.source_files import SourceFile
from tidemill.data.staging import StagingFolder
from tidemill.errors import Code, TidemillError
from tidemill.experiment.csv_options import Csv

_HEADER_BYTES = 1 << 20
_CHUNK = 8 << 20
_SEARCHED = 1 << 18
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_OTHER_DELIMITERS = {";": '";"', "\t": '"\\t"', "|": '"|"'}


@dataclass(frozen=True)
class Header:
    """What stands above the first row of a file.

    Attributes:
        columns: The column names.
        lines: Number of lines up to the header's end.
        skip: Number of the lines above the header that DuckDB has to skip: it does not count comments.
    """

    columns: tuple[str, ...]
    lines: int
    skip: int


def decoded(staging: StagingFolder, path: Path, file: SourceFile, options: Csv) -> Path:
    """Returns a path to the file's text in UTF-8: the file itself, unless it has another encoding.

    Raises:
        TidemillError: `unreadable-file` if the bytes are not text in the encoding that is declared, `invalid-value` for
            an encoding that Python does not know.
    """
    encoding = options.encoding or _detected(path)
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        where, got = f"source.tables.{file.table}.csv.encoding", f"the unknown encoding {encoding!r}"
        want = "write a name that Python knows, such as utf-8, utf-16, latin-1 or cp1252"
        raise TidemillError(Code.INVALID_VALUE, where, got, want) from error
    if name in ("utf-8", "ascii", "utf-8-sig"):
        return path
    copy = staging.new_file(".csv")
    line = 1
    try:
        with path.open(encoding=name, newline="") as source, copy.open("w", encoding="utf-8", newline="") as target:
            while chunk := source.read(_CHUNK):
                line += chunk.count("\n")
                target.write(chunk.removeprefix("\ufeff") if not target.tell() else chunk)
    except UnicodeError as error:
        where, got = f"{file.table}: {file.uri}, after line {line}", f"bytes that are not text in {encoding}"
        want = f"set source.tables.{file.table}.csv.encoding to the file's encoding"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, want) from error
    staging.drop(path)
    return copy


def without_first_lines(staging: StagingFolder, path: Path, options: Csv) -> Path:
    """Returns a path to the file with empty lines in place of those to skip: the file itself if there are none.

    DuckDB counts rows and not lines, so that a quote in one of these lines would swallow others.
    """
    if not options.skip:
        return path
    copy = staging.new_file(".csv")
    with path.open("rb") as source, copy.open("wb") as target:
        for _ in range(options.skip):
            line = source.readline()
            target.write(b"\r\n" if line.endswith(b"\r\n") else b"\n" if line else b"")
        shutil.copyfileobj(source, target, _CHUNK)
    staging.drop(path)
    return copy


def mixes_line_ends(path: Path) -> bool:
    """Returns whether a file has line feeds with and without a carriage return before them."""
    line_feeds = pairs = 0
    last = b""
    with path.open("rb") as source:
        # Most files have no carriage return, which is found several times as fast as pairs are counted.
        if not any(b"\r" in chunk for chunk in iter(lambda: source.read(_SEARCHED), b"")):
            return False
        source.seek(0)
        while chunk := source.read(_CHUNK):
            line_feeds += chunk.count(b"\n")
            pairs += chunk.count(b"\r\n") + (last == b"\r" and chunk[:1] == b"\n")
            last = chunk[-1:]
    return 0 < pairs < line_feeds


def with_one_line_end(staging: StagingFolder, path: Path, options: Csv) -> Path:
    """Returns a path to a file whose lines all end with a line feed: the file itself if it does not mix line ends."""
    if not mixes_line_ends(path):
        return path
    copy = staging.new_file(".csv")
    # Only what is outside of quotes changes. A doubled quote ends a part and begins the next; an escaped one does not.
    escape = re.escape(options.escape.encode()) if options.escape and options.escape != options.quote else b""
    marks = [escape + b"[^\r]"] * bool(escape) + [re.escape(options.quote.encode())] * bool(options.quote)
    separator = re.compile(b"(" + b"|".join(marks) + b")", re.DOTALL) if marks else None
    open_ends = (b"\r", options.escape.encode()) if escape and options.escape else (b"\r",)
    quoted, pending = False, b""
    with path.open("rb") as source, copy.open("wb") as target:
        while chunk := source.read(_CHUNK):
            parts = separator.split(pending + chunk) if separator else [pending + chunk]
            pending = b""
            if parts[-1].endswith(open_ends):
                parts[-1], pending = parts[-1][:-1], parts[-1][-1:]
            for index, part in enumerate(parts):
                if index % 2:
                    quoted ^= part == options.quote.encode()
                    target.write(part)
                else:
                    target.write(part if quoted else part.replace(b"\r\n", b"\n"))
        target.write(pending)
    staging.drop(path)
    return copy


def read_header(path: Path, file: SourceFile, options: Csv, delimiter: str, undeclared_delimiter: bool) -> Header:
    """Reads the column names of a file, or finds the first row if the file has no header.

    Args:
        path: The file's text in UTF-8.
        file: The file, for errors.
        options: The table's options.
        delimiter: The separator of fields.
        undeclared_delimiter: Whether the experiment leaves the delimiter to its default.

    Raises:
        TidemillError: `unreadable-file` for a header that is missing, is not UTF-8, or names a column twice.
    """
    where = f"{file.table}: {file.uri}"
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if b"\0" in head:
        pair = "utf-16-be" if head.startswith(b"\0") else "utf-16-le"
        want = f"set source.tables.{file.table}.csv.encoding to {pair} if it is text, or set the table's format"
        raise TidemillError(Code.UNREADABLE_FILE, where, "zero bytes, which UTF-8 text does not have", want)
    text = head.decode("utf-8-sig", "surrogateescape")
    stream = io.StringIO(text, newline="" if "\n" in text else None)
    above, counted = _skip(stream, options)
    if not options.header:
        return Header((), above, counted)
    reader = csv.reader(stream, **python_dialect(options, delimiter))
    try:
        columns = tuple(next(reader, ()))
        "".join(columns).encode()
    except (UnicodeEncodeError, csv.Error) as error:
        want = f"write the file as text in UTF-8, or set its format or source.tables.{file.table}.csv.encoding"
        raise TidemillError(Code.UNREADABLE_FILE, where, "a header that is not UTF-8 text", want) from error
    if not columns:
        want = "write a header, or set header: false and columns"
        raise TidemillError(Code.UNREADABLE_FILE, where, "a file without a header line", want)
    if undeclared_delimiter and len(columns) == 1:
        for char, written in _OTHER_DELIMITERS.items():
            if char in columns[0]:
                want = f"set source.tables.{file.table}.delimiter to {written}"
                got = f"one column called {columns[0]!r}"
                raise TidemillError(Code.UNREADABLE_FILE, f"{where}, line {above + 1}", got, want)
    columns = _named_index(columns)
    want = (
        f"rename it in the file, or skip the header: `csv: {{skip: {above + reader.line_num}, header: false}}` "
        "and `columns` with a name and a type for each column"
    )
    check_names(f"{where}, line {above + 1}", columns, want)
    return Header(columns, above + reader.line_num, counted)


def python_dialect(options: Csv, delimiter: str) -> dict:
    """Returns the arguments with which Python's `csv.reader` reads what DuckDB reads."""
    if not options.quote:
        return {"delimiter": delimiter, "quoting": csv.QUOTE_NONE, "quotechar": None}
    escape = options.escape or options.quote
    if escape == options.quote:
        return {"delimiter": delimiter, "quotechar": options.quote, "doublequote": True}
    return {"delimiter": delimiter, "quotechar": options.quote, "escapechar": escape, "doublequote": False}


def _skip(stream: io.StringIO, options: Csv) -> tuple[int, int]:
    """Moves a stream behind the lines to skip and the comments after them.

    Returns:
        The number of these lines, and how many of them are not comments. DuckDB skips the latter number of lines.
    """
    above = counted = 0
    while True:
        position = stream.tell()
        line = stream.readline()
        is_comment = bool(options.comment) and line.lstrip(" ").startswith(options.comment or "")
        if not line or (above >= options.skip and not is_comment):
            stream.seek(position)
            return above, counted
        above += 1
        counted += not is_comment


def _named_index(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Names the first column `index` if it has no name: pandas writes a data frame's index like this."""
    taken = {c.lower() for c in columns}
    return ("index", *columns[1:]) if len(columns) > 1 and columns[0] == "" and "index" not in taken else columns


def _detected(path: Path) -> str:
    with path.open("rb") as stream:
        return "utf-16" if stream.read(2) in _BYTE_ORDER_MARKS else "utf-8"
