"""A LightGBM model as TensorFlow ops, for serving.

Every decision of a tree looks at one feature and only asks which of finitely many ranges or ids its value is in. So a
row's values are first turned into *bins*: for a number the place among all thresholds at which any node cuts it
(compared as float64, as LightGBM does) or a bin for NaN; for a category its id, or one bin for all ids that no node
asks for. What a node does with a bin is found by asking LightGBM's rule about one value of it, so missing values need
no ops.

From bins to leaves nothing is walked. As in QuickScorer (Lucchese et al., SIGIR 2015) the leaves of a tree are bits,
left to right; a node that sends a row to the right rules out the leaves to its left; and the leaf that the row ends in
is the first one that no node has ruled out. What all nodes on one feature rule out depends on the feature's bin alone,
so it is computed beforehand: one table a feature, from bins to the bits that are left of every tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

_ZERO = float(np.float32(1e-35))
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2
_WORD_BITS = 64


@dataclass
class _Tree:
    """One tree of the model's text; N inner nodes, N + 1 leaves. A child below 0 is the leaf `-child - 1`."""

    feature: np.ndarray
    threshold: np.ndarray
    decision: np.ndarray
    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    cat_boundaries: np.ndarray
    cat_bitsets: np.ndarray

    @classmethod
    def parse(cls, text: str) -> _Tree:
        entries = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

        def numbers(key: str, dtype: type) -> np.ndarray:
            return np.array(entries.get(key, "").split(), dtype)

        if entries.get("is_linear", "0") != "0":
            raise ValueError("linear trees cannot be exported")
        return cls(
            numbers("split_feature", np.int64), numbers("threshold", np.float64), numbers("decision_type", np.int64),
            numbers("left_child", np.int64), numbers("right_child", np.int64), numbers("leaf_value", np.float64),
            numbers("cat_boundaries", np.int64), numbers("cat_threshold", np.uint32),
        )  # fmt: skip

    def categories(self, node: int) -> np.ndarray:
        """The ids that a categorical node sends to the left."""
        start, end = self.cat_boundaries[int(self.threshold[node]) :][:2]
        bits = np.unpackbits(self.cat_bitsets[start:end].astype("<u4").view(np.uint8), bitorder="little")
        return np.flatnonzero(bits)

    def goes_left(self, node: int, values: np.ndarray) -> np.ndarray:
        """LightGBM's rule (`Tree::NumericalDecision`) for float64 values at a numerical node."""
        missing = (self.decision[node] >> 2) & 3
        nan = np.isnan(values)
        known = np.where(nan, 0.0, values)
        absent = nan if missing == _MISSING_NAN else (np.abs(known) <= _ZERO) & (missing == _MISSING_ZERO)
        return np.where(absent, bool(self.decision[node] & _DEFAULT_LEFT), known <= self.threshold[node])


@dataclass
class _Binning:
    """How one feature's values become bins: 0 to `size` - 1."""

    categorical: bool
    cuts: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Ascending. A number is in the first bin whose cut is not below it; then follow the bin above all cuts and
    NaN's."""
    ids: int = 0
    """A category is in the bin of its id; what is not below `ids` is in bin `ids`."""

    @property
    def size(self) -> int:
        return self.ids + 1 if self.categorical else len(self.cuts) + 2

    def left_bins(self, tree: _Tree, node: int) -> np.ndarray:
        """[size] bool: the bins that a node sends to the left."""
        if not self.categorical:
            return tree.goes_left(node, np.concatenate([self.cuts, [np.inf, np.nan]]))
        left = np.zeros(self.size, bool)
        left[tree.categories(node)] = True
        return left


class Forest:
    """All trees, as one table a feature. A word is 64 leaves; W words hold the leaves of the largest tree.

    Attributes:
        binnings: By feature, for those that any tree uses.
        tables: By feature `(rows, words)`: rows [bins] int32 says which row of words [distinct rows, trees * W] int64
            a bin has. The words are variables, because a graph's constants are limited to 2 GiB.
        first: [trees] int32, where in `values` a tree's leaves begin.
        values: [leaves of all trees] float64, each tree's from left to right.
        words: W.
        slope: The sigmoid's.
    """

    def __init__(self, trees: Sequence[_Tree], slope: float):
        self.slope = slope
        self.binnings = _binnings(trees)
        orders = [_leaves_in_order(tree) for tree in trees]
        leaves = np.array([len(tree.values) for tree in trees], np.int64)
        self.first = (np.cumsum(leaves) - leaves).astype(np.int32)
        self.values = np.concatenate(
            [tree.values[order] for tree, (order, _) in zip(trees, orders, strict=True)] or [[0.0]]
        )
        self.words = -(-int(leaves.max(initial=1)) // _WORD_BITS)
        ruled_out = [[_bits(*span, self.words) for span in spans] for _, spans in orders]
        self.tables = {feature: self._table(feature, trees, ruled_out) for feature in self.binnings}

    def _table(
        self, feature: int, trees: Sequence[_Tree], ruled_out: list[list[np.ndarray]]
    ) -> tuple[np.ndarray, tf.Variable]:
        binning = self.binnings[feature]
        table = np.full((binning.size, len(trees), self.words), -1, np.int64)
        for place, tree in enumerate(trees):
            for node in np.flatnonzero(tree.feature == feature).tolist():
                table[~binning.left_bins(tree, node), place] &= ~ruled_out[place][node]
        # Rare ids are in no node's set, so most rows of a large vocabulary are the same.
        distinct, rows = np.unique(table.reshape(binning.size, -1), axis=0, return_inverse=True)
        variable = tf.Variable(tf.constant(distinct), trainable=False, dtype=tf.int64, name=f"leaves_{feature}")
        return rows.reshape(-1).astype(np.int32), variable

    @property
    def variables(self) -> list[tf.Variable]:
        """What the tables are kept in."""
        return [words for _, words in self.tables.values()]

    @classmethod
    def parse(cls, text: str) -> Forest:
        """From a model's text (`Booster.model_to_string()`) with the objective `binary`.

        Raises:
            ValueError: another objective, or linear trees.
        """
        header, *parts = text.split("\nTree=")
        objective = next((line.split("=", 1)[1] for line in header.splitlines() if line.startswith("objective=")), "")
        name, *settings = objective.split()
        if name != "binary":
            raise ValueError(f"cannot export the objective {objective!r}")
        slope = dict(s.split(":", 1) for s in settings).get("sigmoid", "1")
        return cls([_Tree.parse(part.split("\nend of trees")[0]) for part in parts], float(slope))

    def score(self, columns: Sequence[tf.Tensor]) -> tf.Tensor:
        """Probabilities [batch] float32.

        Args:
            columns: The features in the booster's order, each [batch], int32 ids or float32 numbers.
        """
        rows = tf.shape(columns[0])[0]
        if not len(self.first):
            return tf.fill([rows], 0.5)
        left = tf.fill([rows, len(self.first) * self.words], tf.constant(-1, tf.int64))
        for feature, (places, words) in self.tables.items():
            bins = _to_bins(columns[feature], self.binnings[feature])
            left &= tf.gather(words, tf.gather(tf.constant(places), bins))
        values = tf.gather(tf.constant(self.values), self.first + self._first_leaf(left))
        return tf.cast(tf.sigmoid(self.slope * tf.reduce_sum(values, axis=1)), tf.float32)

    def _first_leaf(self, left: tf.Tensor) -> tf.Tensor:
        """[batch, trees * W] int64 to the place [batch, trees] int32 of the lowest bit of each tree."""
        if self.words == 1:
            return _lowest_bit(left)
        left = tf.reshape(left, [-1, len(self.first), self.words])
        word = tf.argmax(left != 0, axis=2, output_type=tf.int32)
        return word * _WORD_BITS + _lowest_bit(tf.gather(left, word, batch_dims=2))


def _binnings(trees: Sequence[_Tree]) -> dict[int, _Binning]:
    """By feature, in the features' order."""
    cuts: dict[int, list[float]] = {}
    ids: dict[int, int] = {}
    for tree in trees:
        for node, feature in enumerate(tree.feature.tolist()):
            if tree.decision[node] & _CATEGORICAL:
                ids[feature] = max(ids.get(feature, 0), int(tree.categories(node).max(initial=-1)) + 1)
                continue
            found = cuts.setdefault(feature, [])
            found.append(tree.threshold[node])
            if (tree.decision[node] >> 2) & 3 == _MISSING_ZERO:
                found += [np.nextafter(-_ZERO, -np.inf), _ZERO]
    numbers = {feature: _Binning(False, cuts=np.unique(values)) for feature, values in cuts.items()}
    categories = {feature: _Binning(True, ids=n) for feature, n in ids.items()}
    return dict(sorted((numbers | categories).items()))


def _to_bins(values: tf.Tensor, binning: _Binning) -> tf.Tensor:
    """[batch] int32."""
    if binning.categorical:
        ids = tf.cast(values, tf.int32)
        return tf.where((ids >= 0) & (ids < binning.ids), ids, binning.ids)
    values = tf.cast(values, tf.float64)
    places = tf.searchsorted(tf.constant(binning.cuts), values, side="left")
    return tf.where(tf.math.is_nan(values), len(binning.cuts) + 1, places)


def _lowest_bit(words: tf.Tensor) -> tf.Tensor:
    """The place, int32, of the lowest bit of int64 words that are not 0."""
    return tf.cast(tf.raw_ops.PopulationCount(x=(words & -words) - 1), tf.int32)


def _bits(start: int, stop: int, words: int) -> np.ndarray:
    """[words] int64 with the bits from `start` to before `stop`."""
    bits = np.zeros(words * _WORD_BITS, np.uint8)
    bits[start:stop] = 1
    return np.packbits(bits, bitorder="little").view("<i8").astype(np.int64)


def _leaves_in_order(tree: _Tree) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The tree's leaves from left to right, and for each node the span in that order of the leaves to its left."""
    order: list[int] = []
    spans = [(0, 0)] * len(tree.feature)
    # A node is met twice: before its left side, and with the span's start after it.
    stack: list[tuple[int, int | None]] = [(0, None)] if len(tree.feature) else [(-1, None)]
    while stack:
        child, start = stack.pop()
        if child < 0:
            order.append(-child - 1)
        elif start is None:
            stack += [(child, len(order)), (int(tree.left[child]), None)]
        else:
            spans[child] = (start, len(order))
            stack.append((int(tree.right[child]), None))
    return np.array(order), spans
