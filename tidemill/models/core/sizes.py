"""The sizes of embedding tables: by hand, by rule, shared, and within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.models.core.family import Network
from tidemill.models.core.inputs import Layout

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Sizes:
    """The embedding of each id feature, in the layout's order.

    Attributes:
        dims: Size of a vector.
        rows: Rows of its table. Where they are fewer than the feature's ids, the last one is that of all ids that have
            none of their own.
        tables: The feature whose table it reads, as a place in the order: its own, or an earlier one's.
        floats: Numbers that a row takes, a weight of its own included where the family has one for each id.
        slots: The row of each id, [number of ids] int32 a feature; empty where each has its own.
    """

    dims: tuple[int, ...]
    rows: tuple[int, ...]
    tables: tuple[int, ...]
    floats: tuple[int, ...]
    slots: tuple[np.ndarray, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all tables."""
        own = (place for place, table in enumerate(self.tables) if place == table)
        return sum(self.floats[place] * self.rows[place] * FLOAT_BYTES for place in own)


def sizes(config: Network, layout: Layout) -> Sizes:
    """The sizes that a family's hyperparameters ask for, without the budget.

    Raises:
        TidemillError: `invalid-value` for a feature that is none of the layout's id features, and for shared embeddings
            of features with different numbers of ids.
    """
    where = f"models.{config.name}"
    asked = config.embedding_dims if isinstance(config.embedding_dims, dict) else {}
    _check_names(asked, layout, f"{where}.embedding_dims")
    dims = []
    for name, n in zip(layout.ids, layout.num_ids, strict=True):
        dim = asked.get(name, config.embedding_dim)
        if config.embedding_dims == "auto":
            dim = min(dim, -(-int(np.ceil(6 * n**0.25)) // 4) * 4)
        dims.append(1 if not config.embeds else dim if config.one_size else min(dim, n))
    tables = list(range(len(layout.ids)))
    for group in config.shared_embeddings:
        _check_names(group, layout, f"{where}.shared_embeddings")
        first, *others = sorted(layout.ids.index(name) for name in group)
        for place in others:
            if (layout.num_ids[place], dims[place]) != (layout.num_ids[first], dims[first]):
                one, other = (
                    f"{layout.ids[p]!r} with {layout.num_ids[p]:,} ids of size {dims[p]}" for p in (first, place)
                )
                want = "share embeddings only of features with one vocabulary and one size"
                raise TidemillError(Code.INVALID_VALUE, f"{where}.shared_embeddings", f"{one} and {other}", want)
            tables[place] = tables[first]
    floats = tuple(dim * config.embeds + config.linear for dim in dims)
    return Sizes(tuple(dims), layout.num_ids, tuple(tables), floats)


def count_ids(data: Dataset, layout: Layout) -> list[np.ndarray]:
    """For each id feature how often each id occurs in train, [number of ids] int64."""
    counts = [np.zeros(n, np.int64) for n in layout.num_ids]
    for batch in data.batches("train", list(layout.ids)):
        for place, name in enumerate(layout.ids):
            ids = batch.column(name).to_numpy(zero_copy_only=False)
            counts[place] += np.bincount(ids, minlength=layout.num_ids[place])
    return counts


def within_budget(found: Sizes, counts: Sequence[np.ndarray], budget: int, where: str) -> Sizes:
    """The sizes cut so that the tables fit into a budget and as few rows of train as possible lose their id.

    What is cut first is what occurs least for the bytes that it takes, over all tables.

    Args:
        found: The sizes without the budget.
        counts: For each feature how often each id occurs.
        budget: Bytes.
        where: Where the budget was given.

    Raises:
        TidemillError: `invalid-value` where not even one row a table fits.
    """
    if found.bytes <= budget:
        return found
    own = [place for place, table in enumerate(found.tables) if place == table]
    least = sum(found.floats[place] * FLOAT_BYTES for place in own)
    if least > budget:
        want = f"give at least {least:,} bytes, one row a table, or smaller embeddings"
        raise TidemillError(Code.INVALID_VALUE, where, f"{budget:,} bytes for {len(own)} tables", want)
    together = {p: sum(counts[q] for q, table in enumerate(found.tables) if table == p) for p in own}
    orders = {p: np.argsort(-together[p], kind="stable") for p in own}
    worth = np.concatenate([together[p][orders[p]][: found.rows[p] - 1] / found.floats[p] for p in own])
    place = np.concatenate([np.full(found.rows[p] - 1, p) for p in own])
    best = np.argsort(-worth, kind="stable")
    room = np.cumsum(np.array(found.floats)[place[best]]) * FLOAT_BYTES
    kept = np.bincount(place[best[: np.searchsorted(room, budget - least, side="right")]], minlength=len(found.rows))
    rows = tuple(int(kept[table]) + 1 for table in found.tables)
    slots = []
    for table, n in zip(found.tables, rows, strict=True):
        slot = np.empty(len(orders[table]), np.int32)
        slot[orders[table]] = np.minimum(np.arange(len(slot)), n - 1)
        slots.append(slot)
    return replace(found, rows=rows, slots=tuple(slots))


def report(found: Sizes, layout: Layout, counts: Sequence[np.ndarray] | None) -> dict:
    """The tables as JSON: `bytes`, and for each feature `ids`, `rows`, `dim`, and `cut_share`, the share of train whose
    id has no row of its own, where there are counts."""
    features = {}
    for place, name in enumerate(layout.ids):
        n, rows = layout.num_ids[place], found.rows[place]
        features[name] = {"ids": n, "rows": rows, "dim": found.dims[place]}
        if found.tables[place] != place:
            features[name]["table_of"] = layout.ids[found.tables[place]]
        if counts is not None:
            cut = counts[place][found.slots[place] == rows - 1].sum() if rows < n else 0
            features[name]["cut_share"] = round(float(cut / max(1, counts[place].sum())), 6)
    return {"bytes": found.bytes, "features": features}


def _check_names(names: Sequence[str] | dict[str, int], layout: Layout, where: str) -> None:
    for name in names:
        if name not in layout.ids:
            want = f"name one of {', '.join(map(repr, layout.ids))}" if layout.ids else "leave it out: there is none"
            raise TidemillError(Code.INVALID_VALUE, where, f"{name!r}, which is no feature with ids", want)
