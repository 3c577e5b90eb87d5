"""Assertions that two engines agree: on files, schemas and rows, and how near numbers must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.conformance.case import Case, QuantileOutput

RELATIVE = 1e-5
"""Largest difference of a float from Beam's, relative to its size or, around zero, to the column's spread."""
NUMBERS_PER_KEY = "numbers_"
"""Prefix of the names of files that hold floats before the keys."""
_FLOAT32_STEP = 2.0**-23
_SUFFICIENT_STEPS = 2
"""A float this many float32 steps from the float64 reference is near enough, even if Beam's is nearer."""


def assert_same_artifact(beam: Path, local: Path, near: bool = False) -> None:
    """Asserts byte-equal vocabularies, equal schemas and equal asset maps, and that TFT reads both artifacts.

    Args:
        beam: Folder of Beam's artifact.
        local: Folder of the local engine's artifact.
        near: Whether bucket boundaries in the schema may differ in their last digits.
    """
    names = [sorted(p.name for p in (folder / "transform_fn" / "assets").glob("*")) for folder in (beam, local)]
    assert names[1] == names[0], "assets"
    for name in names[0]:
        theirs, ours = (_vocabulary(folder / "transform_fn" / "assets" / name) for folder in (beam, local))
        if name.startswith(NUMBERS_PER_KEY):
            assert _parse_numbers(ours)[0] == _parse_numbers(theirs)[0], name
            np.testing.assert_allclose(_parse_numbers(ours)[1], _parse_numbers(theirs)[1], rtol=RELATIVE)
        else:
            assert ours == theirs, _first_difference(name, theirs, ours)
    assert _schema(local, near) == _schema(beam, near)
    maps = [folder / "transformed_metadata" / "asset_map" for folder in (beam, local)]
    theirs, ours = (path.read_bytes() if path.exists() else None for path in maps)
    assert ours == theirs, "asset_map"


def assert_same_rows(case: Case, table: pa.Table, beam: pa.Table, local: pa.Table) -> None:
    """Asserts equal integers and strings, and floats near Beam's that are no farther from the reference than Beam's.

    Args:
        case: What is known of the outputs.
        table: All raw rows.
        beam: Some or all rows as Beam transforms them.
        local: The same rows as the local engine transforms them.
    """
    assert local.schema == beam.schema
    rows = _flatten(beam["row"])[1]
    wrong = []
    for name in beam.column_names:
        (their_lengths, theirs), (our_lengths, ours) = (_flatten(made[name]) for made in (beam, local))
        if our_lengths != their_lengths:
            wrong.append(f"{name}: rows have other lengths")
        elif theirs.dtype.kind != "f":
            wrong += _unequal(name, theirs, ours, case.near.get(name, 0.0))
        elif name in case.quantiles:
            for made, engine in ((theirs, "beam"), (ours, "local")):
                wrong += _rank_errors(f"{engine}'s {name}", made, case.quantiles[name], table)
        else:
            wrong += far_values(name, theirs, ours)
            if name in case.exact:
                exact = np.asarray(case.exact[name](table), np.float64)
                wrong += less_exact_values(name, theirs, ours, exact[rows] if exact.ndim else exact)
    assert not wrong, "\n".join(wrong)


def far_values(name: str, theirs: np.ndarray, ours: np.ndarray) -> list[str]:
    """Returns a message if floats are not near Beam's."""
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


def less_exact_values(name: str, theirs: np.ndarray, ours: np.ndarray, exact: np.ndarray) -> list[str]:
    """Returns a message if floats are farther from a float64 reference than Beam's. NaN in it is not compared."""
    exact = np.broadcast_to(exact, ours.shape) if exact.ndim == 0 else exact.reshape(-1)
    known = np.isfinite(exact)
    errors = [np.abs(made.astype(np.float64) - exact)[known].max(initial=0) for made in (theirs, ours)]
    step = _FLOAT32_STEP * np.abs(exact[known]).max(initial=0)
    if errors[1] <= max(errors[0], _SUFFICIENT_STEPS * step):
        return []
    return [f"{name}: {errors[1]:.3g} from the reference, Beam {errors[0]:.3g}; a step of float32 is {step:.3g}"]


def _vocabulary(path: Path) -> list[bytes] | bytes:
    if not path.name.endswith(".gz"):
        return path.read_bytes()
    return list(tf.data.TFRecordDataset(str(path), compression_type="GZIP").as_numpy_iterator())


def _parse_numbers(lines: bytes) -> tuple[list[bytes], list[list[float]]]:
    """Returns the keys, and the numbers before each of them."""
    pairs = [line.split(b" ", 1) for line in lines.splitlines()]
    return [key for _, key in pairs], [[float(number) for number in numbers.split(b",")] for numbers, _ in pairs]


def _first_difference(name: str, theirs: bytes | list, ours: bytes | list) -> str:
    lines = [content if isinstance(content, list) else content.split(b"\n") for content in (theirs, ours)]
    for number, (beam, local) in enumerate(zip(*lines, strict=False)):
        if beam != local:
            return f"{name}, line {number}: beam {beam!r}, local {local!r}"
    return f"{name}: beam has {len(lines[0])} lines, local {len(lines[1])}"


def _schema(folder: Path, near: bool):
    schema = tft.TFTransformOutput(str(folder)).transformed_metadata.schema
    if near:
        for feature in schema.feature:
            feature.ClearField("annotation")
    return schema


def _flatten(column: pa.ChunkedArray) -> tuple[list, np.ndarray]:
    """Returns the lengths of the lists on each level, and the values."""
    array, lengths = column.combine_chunks(), []
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths.append(pc.fill_null(pc.list_value_length(array), -1).to_pylist())
        array = array.flatten()
    return lengths, array.to_numpy(zero_copy_only=False)


def _unequal(name: str, theirs: np.ndarray, ours: np.ndarray, share: float) -> list[str]:
    where = np.flatnonzero(theirs != ours)
    if len(where) <= share * len(theirs):
        return []
    first = where[0]
    return [f"{name}: {len(where)} of {len(theirs)} differ, first beam {theirs[first]!r}, local {ours[first]!r}"]


def _rank_errors(name: str, boundaries: np.ndarray, quantiles: QuantileOutput, table: pa.Table) -> list[str]:
    """Returns a message for each boundary whose rank among the values is off by more than the sketch's error."""
    values, weights = quantiles.values(table)
    weights = np.ones(len(values)) if weights is None else weights
    total, wrong = weights.sum(), []
    for number, boundary in enumerate(boundaries[: quantiles.buckets - 1], 1):
        below, up_to = weights[values < boundary].sum() / total, weights[values <= boundary].sum() / total
        want = number / quantiles.buckets
        if not below - quantiles.epsilon <= want <= up_to + quantiles.epsilon:
            wrong.append(f"{name}: {boundary} is at {below:.4f} to {up_to:.4f}, not {want:.4f}")
    return wrong
