"""What it means that two engines give the same: files, schema, rows, and how near numbers must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.equality.case import Case, Quantiles

RELATIVE = 1e-5
"""How far a float may be from Beam's, relative to it; for columns around zero relative to the column's spread."""
NUMBERS_PER_KEY = "numbers_"
"""How the names of files begin that hold floats beside the keys."""
_FLOAT32_STEP = 2.0**-23
_SUFFICIENT_STEPS = 2
"""Steps of float32 from the float64 reference that are near enough, however near Beam is."""


def assert_same_artifact(beam: Path, local: Path, near: bool = False) -> None:
    """Byte-equal vocabularies, the same schema and asset map, and TFT loads both.

    Args:
        beam: Beam's artifact.
        local: The local engine's.
        near: Bucket boundaries in the schema may differ in their last digits.
    """
    ours, theirs = tft.TFTransformOutput(str(local)), tft.TFTransformOutput(str(beam))
    names = [sorted(p.name for p in (folder / "transform_fn" / "assets").glob("*")) for folder in (beam, local)]
    assert names[1] == names[0], "assets"
    for name in names[0]:
        one, other = (_vocabulary(folder / "transform_fn" / "assets" / name) for folder in (beam, local))
        if name.startswith(NUMBERS_PER_KEY):
            assert _parsed(other)[0] == _parsed(one)[0], name
            np.testing.assert_allclose(_parsed(other)[1], _parsed(one)[1], rtol=RELATIVE)
        else:
            assert other == one, _first_difference(name, one, other)
    assert _schema(ours, near) == _schema(theirs, near)
    for file in ("asset_map",):
        one, other = (folder / "transformed_metadata" / file for folder in (beam, local))
        assert one.exists() == other.exists() and (not one.exists() or one.read_bytes() == other.read_bytes()), file


def assert_same_rows(case: Case, table: pa.Table, beam: pa.Table, local: pa.Table) -> None:
    """Integers and strings are identical; floats near Beam's and not farther from the reference than Beam's.

    Args:
        case: Says what is known of the outputs.
        table: The raw rows.
        beam: Beam's transformed rows.
        local: The local engine's.
    """
    assert local.schema == beam.schema
    wrong = []
    for name in beam.column_names:
        theirs, ours = (_flat(made[name]) for made in (beam, local))
        if ours[0] != theirs[0]:
            wrong.append(f"{name}: rows are of other lengths")
        elif theirs[1].dtype.kind != "f":
            wrong += _differing(name, theirs[1], ours[1], case.near.get(name, 0.0))
        elif name in case.quantiles:
            for made, who in ((theirs, "beam"), (ours, "local")):
                wrong += _rank_errors(f"{who}'s {name}", made[1], case.quantiles[name], table)
        else:
            wrong += far(name, theirs[1], ours[1])
            if name in case.exact:
                wrong += farther(name, theirs[1], ours[1], case.exact[name](table))
    assert not wrong, "\n".join(wrong)


def assert_same_bits(
    one: Path, one_rows: pa.Table, other: Path, other_rows: pa.Table, is_row_wise: bool = True
) -> None:
    """The same vocabularies, metadata and transformed rows to the last bit.

    Args:
        one: An artifact.
        one_rows: What it makes of rows.
        other: The other artifact.
        other_rows: What that makes of rows.
        is_row_wise: The rows are the same. Otherwise only outputs that are the same for all rows are looked at.
    """
    for part in ("transform_fn/assets", "transformed_metadata"):
        files = [{p.name: p.read_bytes() for p in (folder / part).glob("*") if p.is_file()} for folder in (one, other)]
        assert files[0].keys() == files[1].keys()
        differing = [name for name in files[0] if files[0][name] != files[1][name]]
        assert not differing, f"{part}: {differing}"
    assert one_rows.schema == other_rows.schema
    for name in one_rows.column_names:
        first, second = (_flat(rows[name]) for rows in (one_rows, other_rows))
        if is_row_wise or all(len(np.unique(values)) == 1 for _, values in (first, second)):
            assert first[0] == second[0], name
            same = first[1].tolist() == second[1].tolist() if first[1].dtype == object else None
            assert same if same is not None else first[1].tobytes() == second[1].tobytes(), name


def _vocabulary(path: Path) -> list[bytes] | bytes:
    if not path.name.endswith(".gz"):
        return path.read_bytes()
    return list(tf.data.TFRecordDataset(str(path), compression_type="GZIP").as_numpy_iterator())


def _parsed(lines: bytes) -> tuple[list[bytes], list[list[float]]]:
    """The keys, and the numbers before each of them."""
    pairs = [line.split(b" ", 1) for line in lines.splitlines()]
    return [key for _, key in pairs], [[float(number) for number in numbers.split(b",")] for numbers, _ in pairs]


def _first_difference(name: str, one: bytes | list, other: bytes | list) -> str:
    lines = [made if isinstance(made, list) else made.split(b"\n") for made in (one, other)]
    for number, pair in enumerate(zip(*lines, strict=False)):
        if pair[0] != pair[1]:
            return f"{name}, line {number}: beam {pair[0]!r}, local {pair[1]!r}"
    return f"{name}: beam has {len(lines[0])} lines, local {len(lines[1])}"


def _schema(output: tft.TFTransformOutput, near: bool):
    schema = output.transformed_metadata.schema
    if near:
        for feature in schema.feature:
            feature.ClearField("annotation")
    return schema


def _flat(column: pa.ChunkedArray) -> tuple[list, np.ndarray]:
    """The lengths of all levels of lists, and the values."""
    array, lengths = column.combine_chunks(), []
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths.append(pc.fill_null(pc.list_value_length(array), -1).to_pylist())
        array = array.flatten()
    return lengths, array.to_numpy(zero_copy_only=False)


def _differing(name: str, theirs: np.ndarray, ours: np.ndarray, share: float) -> list[str]:
    where = np.flatnonzero(theirs != ours)
    if len(where) <= share * len(theirs):
        return []
    first = where[0]
    return [f"{name}: {len(where)} of {len(theirs)} differ, first beam {theirs[first]!r}, local {ours[first]!r}"]


def far(name: str, theirs: np.ndarray, ours: np.ndarray) -> list[str]:
    """What to say of floats that are too far from Beam's."""
    theirs, ours = theirs.astype(np.float64), ours.astype(np.float64)
    finite = np.isfinite(theirs)
    same = np.where(finite, True, (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    spread = np.std(theirs[finite]) if finite.any() else 0.0
    with np.errstate(invalid="ignore"):
        same &= ~finite | (np.abs(ours - theirs) <= RELATIVE * np.maximum(np.abs(theirs), spread))
    where = np.flatnonzero(~same)
    if not len(where):
        return []
    first = where[0]
    return [f"{name}: {len(where)} of {len(theirs)} are far, first beam {theirs[first]!r}, local {ours[first]!r}"]


def farther(name: str, theirs: np.ndarray, ours: np.ndarray, exact: np.ndarray | float) -> list[str]:
    """What to say of floats that are farther from a reference in float64 than Beam's. NaN in it is not looked at."""
    exact = np.asarray(exact, np.float64)
    exact = np.broadcast_to(exact, ours.shape) if exact.ndim == 0 else exact.reshape(-1)
    there = np.isfinite(exact)
    errors = [np.abs(made.astype(np.float64) - exact)[there].max(initial=0) for made in (theirs, ours)]
    step = _FLOAT32_STEP * np.abs(exact[there]).max(initial=0)
    if errors[1] <= max(errors[0], _SUFFICIENT_STEPS * step):
        return []
    return [f"{name}: {errors[1]:.3g} from the reference, Beam {errors[0]:.3g}; a step of float32 is {step:.3g}"]


def _rank_errors(name: str, boundaries: np.ndarray, told: Quantiles, table: pa.Table) -> list[str]:
    """Boundaries whose rank among the values is farther off than the sketch's error."""
    values, weights = told.values(table)
    weights = np.ones(len(values)) if weights is None else weights
    total, wrong = weights.sum(), []
    for number, boundary in enumerate(boundaries[: told.buckets - 1], 1):
        below, up_to = weights[values < boundary].sum() / total, weights[values <= boundary].sum() / total
        want = number / told.buckets
        if not below - told.epsilon <= want <= up_to + told.epsilon:
            wrong.append(f"{name}: {boundary} is at {below:.4f} to {up_to:.4f}, not {want:.4f}")
    return wrong
