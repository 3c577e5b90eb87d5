"""Sizes of embedding tables: explicit, by rule, shared, and within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.models.core.family import Network
from tidemill.models.core.inputs import FLOAT_BYTES, Layout, TableSizes


def table_sizes(config: Network, layout: Layout) -> TableSizes:
    """Returns the sizes that a family's hyperparameters specify, ignoring the budget.

    Raises:
        TidemillError: `invalid-value` for a name that is not an id feature, and for shared embeddings of features with
            different numbers of ids.
    """
    where = f"models.{config.name}"
    dims_by_name = config.embedding_dims if isinstance(config.embedding_dims, dict) else {}
    _check_names(dims_by_name, layout, f"{where}.embedding_dims")
    dims = []
    for name, n in zip(layout.ids, layout.num_ids, strict=True):
        dim = dims_by_name.get(name, config.embedding_dim)
        if config.embedding_dims == "auto":
            dim = min(dim, -(-int(np.ceil(6 * n**0.25)) // 4) * 4)
        dims.append(1 if not config.embeds else dim if config.one_size else min(dim, n))
    tables = list(range(len(layout.ids)))
    for group in config.shared_embeddings:
        _check_names(group, layout, f"{where}.shared_embeddings")
        first, *others = sorted(layout.ids.index(name) for name in group)
        for other in others:
            if (layout.num_ids[other], dims[other]) != (layout.num_ids[first], dims[first]):
                texts = (f"{layout.ids[i]!r} with {layout.num_ids[i]:,} ids of size {dims[i]}" for i in (first, other))
                want = "share embeddings only between features with one vocabulary and one size"
                raise TidemillError(Code.INVALID_VALUE, f"{where}.shared_embeddings", " and ".join(texts), want)
            tables[other] = tables[first]
    floats = tuple(dim * config.embeds + config.linear for dim in dims)
    return TableSizes(tuple(dims), layout.num_ids, tuple(tables), floats)


def count_ids(data: Dataset, layout: Layout) -> list[np.ndarray]:
    """Counts how often each id occurs in train, [number of ids] int64 for each id feature."""
    counts = [np.zeros(n, np.int64) for n in layout.num_ids]
    for batch in data.batches("train", list(layout.ids)):
        for i, name in enumerate(layout.ids):
            ids = batch.column(name).to_numpy(zero_copy_only=False)
            counts[i] += np.bincount(ids, minlength=layout.num_ids[i])
    return counts


def within_budget(sizes: TableSizes, counts: Sequence[np.ndarray], budget: int, where: str) -> TableSizes:
    """Cuts the tables so that they fit the budget and as few rows of train as possible lose their id.

    Over all tables, it first cuts the ids with the fewest occurrences per byte.

    Args:
        sizes: The sizes without the budget.
        counts: How often each id occurs, for each feature.
        budget: Bytes.
        where: The setting that specifies the budget.

    Raises:
        TidemillError: `invalid-value` if not even one row for each table fits.
    """
    if sizes.bytes <= budget:
        return sizes
    own = [i for i, table in enumerate(sizes.tables) if i == table]
    minimum = sum(sizes.floats[i] * FLOAT_BYTES for i in own)
    if minimum > budget:
        want = f"allow at least {minimum:,} bytes, one row for each table, or use smaller embeddings"
        raise TidemillError(Code.INVALID_VALUE, where, f"{budget:,} bytes for {len(own)} tables", want)
    totals = {i: np.sum([counts[j] for j, table in enumerate(sizes.tables) if table == i], axis=0) for i in own}
    orders = {i: np.argsort(-totals[i], kind="stable") for i in own}
    worth = np.concatenate([totals[i][orders[i]][: sizes.rows[i] - 1] / sizes.floats[i] for i in own])
    table_of = np.concatenate([np.full(sizes.rows[i] - 1, i) for i in own])
    best = np.argsort(-worth, kind="stable")
    used = np.cumsum(np.array(sizes.floats)[table_of[best]]) * FLOAT_BYTES
    kept_tables = table_of[best[: np.searchsorted(used, budget - minimum, side="right")]]
    kept = np.bincount(kept_tables, minlength=len(sizes.rows))
    rows = tuple(int(kept[table]) + 1 for table in sizes.tables)
    slots = []
    for table, n in zip(sizes.tables, rows, strict=True):
        slot = np.empty(len(orders[table]), np.int32)
        slot[orders[table]] = np.minimum(np.arange(len(slot)), n - 1)
        slots.append(slot)
    return replace(sizes, rows=rows, slots=tuple(slots))


def report(sizes: TableSizes, layout: Layout, counts: Sequence[np.ndarray] | None) -> dict[str, Any]:
    """Describes the tables as JSON.

    Args:
        sizes: The tables.
        layout: The features.
        counts: How often each id occurs, for each feature; None if unknown.

    Returns:
        `bytes`, and `features` with `ids`, `rows` and `dim` of each id feature; `table_of` if it reads another
        feature's table; and with `counts` also `cut_share`, the share of train whose id has no row of its own.
    """
    features = {}
    for i, name in enumerate(layout.ids):
        n, rows = layout.num_ids[i], sizes.rows[i]
        entry: dict[str, Any] = {"ids": n, "rows": rows, "dim": sizes.dims[i]}
        if sizes.tables[i] != i:
            entry["table_of"] = layout.ids[sizes.tables[i]]
        if counts is not None:
            cut = counts[i][sizes.slots[i] == rows - 1].sum() if rows < n else 0
            entry["cut_share"] = round(float(cut / max(1, counts[i].sum())), 6)
        features[name] = entry
    return {"bytes": sizes.bytes, "features": features}


def _check_names(names: Iterable[str], layout: Layout, where: str) -> None:
    for name in names:
        if name not in layout.ids:
            want = f"name one of {', '.join(map(repr, layout.ids))}" if layout.ids else "remove it: there is none"
            raise TidemillError(Code.INVALID_VALUE, where, f"{name!r}, which is not an id feature", want)
