"""A LightGBM model as TensorFlow ops, for serving.

Each node of a tree tests one feature, and distinguishes only finitely many ranges or ids of its values. So the values
of a row are first converted to *bins*. The bin of a number is its position among all thresholds of the feature
(compared as float64, like LightGBM), or a bin for NaN. The bin of a category is its id, or one bin for all ids that no
node tests. What a node does with a bin is computed in advance by applying LightGBM's rule to one value of the bin, so
missing values need no ops.

The trees are not traversed. As in QuickScorer (Lucchese et al., SIGIR 2015), the leaves of a tree are bits, from left
to right. A node that sends a row to the right excludes the leaves on its left. The row ends in the first leaf that no
node excludes. The leaves that all nodes of one feature exclude depend only on the feature's bin. So they are computed
in advance: a table for each feature, from bins to the remaining leaves of all trees.
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
    """One tree with N inner nodes and N + 1 leaves. A negative child is the leaf `-child - 1`."""

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
        """Returns the ids that a categorical node sends to the left."""
        start, end = self.cat_boundaries[int(self.threshold[node]) :][:2]
        bits = np.unpackbits(self.cat_bitsets[start:end].astype("<u4").view(np.uint8), bitorder="little")
        return np.flatnonzero(bits)

    def goes_left(self, node: int, values: np.ndarray) -> np.ndarray:
        """Applies LightGBM's rule (`Tree::NumericalDecision`) for float64 values at a numerical node."""
        missing = (self.decision[node] >> 2) & 3
        nan = np.isnan(values)
        known = np.where(nan, 0.0, values)
        absent = nan if missing == _MISSING_NAN else (np.abs(known) <= _ZERO) & (missing == _MISSING_ZERO)
        return np.where(absent, bool(self.decision[node] & _DEFAULT_LEFT), known <= self.threshold[node])


@dataclass
class _Binning:
    """The mapping of one feature's values to bins, 0 to `size` - 1."""

    categorical: bool
    cuts: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Ascending. A number is in the first bin whose cut is not below it. The last two bins hold numbers above all cuts,
    and NaN."""
    ids: int = 0
    """A category is in the bin of its id. All ids from `ids` on are in bin `ids`."""

    @property
    def size(self) -> int:
        return self.ids + 1 if self.categorical else len(self.cuts) + 2

    def left_bins(self, tree: _Tree, node: int) -> np.ndarray:
        """Returns which bins a node sends to the left, [size] bool."""
        if not self.categorical:
            return tree.goes_left(node, np.concatenate([self.cuts, [np.inf, np.nan]]))
        left = np.zeros(self.size, bool)
        left[tree.categories(node)] = True
        return left


class Forest:
    """All trees of a model, as one table for each feature.

    A word has 64 bits, one for each leaf. W words hold the leaves of the largest tree.

    Attributes:
        binnings: The binning of each feature that a tree uses.
        tables: `(rows, words)` of each feature. `rows` [bins] int32 is the row of each bin in `words` [distinct rows,
            trees * W] int64. The words are variables, because the constants of a graph are limited to 2 GiB.
        first: [trees] int32, the index in `values` of each tree's first leaf.
        values: [leaves of all trees] float64, those of each tree from left to right.
        words: W.
        slope: Slope of the sigmoid.
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
        excluded = [[_bits(*leaves, self.words) for leaves in left] for _, left in orders]
        self.tables = {feature: self._table(feature, trees, excluded) for feature in self.binnings}

    def _table(
        self, feature: int, trees: Sequence[_Tree], excluded: list[list[np.ndarray]]
    ) -> tuple[np.ndarray, tf.Variable]:
        binning = self.binnings[feature]
        table = np.full((binning.size, len(trees), self.words), -1, np.int64)
        for i, tree in enumerate(trees):
            for node in np.flatnonzero(tree.feature == feature).tolist():
                table[~binning.left_bins(tree, node), i] &= ~excluded[i][node]
        # No node tests rare ids, so most rows of a large vocabulary are equal.
        distinct, rows = np.unique(table.reshape(binning.size, -1), axis=0, return_inverse=True)
        variable = tf.Variable(tf.constant(distinct), trainable=False, dtype=tf.int64, name=f"leaves_{feature}")
        return rows.reshape(-1).astype(np.int32), variable

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables that hold the tables."""
        return [words for _, words in self.tables.values()]

    @classmethod
    def parse(cls, text: str) -> Forest:
        """Parses the text of a model (`Booster.model_to_string()`) with the objective `binary`.

        Raises:
            ValueError: The model has another objective, or linear trees.
        """
        header, *tree_texts = text.split("\nTree=")
        objective = next((line.split("=", 1)[1] for line in header.splitlines() if line.startswith("objective=")), "")
        name, *settings = objective.split()
        if name != "binary":
            raise ValueError(f"cannot export the objective {objective!r}")
        slope = dict(s.split(":", 1) for s in settings).get("sigmoid", "1")
        return cls([_Tree.parse(part.split("\nend of trees")[0]) for part in tree_texts], float(slope))

    def score(self, columns: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns probabilities [batch] float32.

        Args:
            columns: The features in the booster's order, each [batch]: int32 ids or float32 numbers.
        """
        rows = tf.shape(columns[0])[0]
        if not len(self.first):
            return tf.fill([rows], 0.5)
        left = tf.fill([rows, len(self.first) * self.words], tf.constant(-1, tf.int64))
        for feature, (table_rows, words) in self.tables.items():
            bins = _to_bins(columns[feature], self.binnings[feature])
            left &= tf.gather(words, tf.gather(tf.constant(table_rows), bins))
        values = tf.gather(tf.constant(self.values), self.first + self._first_leaf(left))
        return tf.cast(tf.sigmoid(self.slope * tf.reduce_sum(values, axis=1)), tf.float32)

    def _first_leaf(self, left: tf.Tensor) -> tf.Tensor:
        """Returns the index of each tree's lowest bit, [batch, trees] int32, from [batch, trees * W] int64."""
        if self.words == 1:
            return _lowest_bit(left)
        left = tf.reshape(left, [-1, len(self.first), self.words])
        word = tf.argmax(left != 0, axis=2, output_type=tf.int32)
        return word * _WORD_BITS + _lowest_bit(tf.gather(left, word, batch_dims=2))


def _binnings(trees: Sequence[_Tree]) -> dict[int, _Binning]:
    """Returns the binning of each feature that a tree uses, in the features' order."""
    cuts: dict[int, list[float]] = {}
    ids: dict[int, int] = {}
    for tree in trees:
        for node, feature in enumerate(tree.feature.tolist()):
            if tree.decision[node] & _CATEGORICAL:
                ids[feature] = max(ids.get(feature, 0), int(tree.categories(node).max(initial=-1)) + 1)
                continue
            thresholds = cuts.setdefault(feature, [])
            thresholds.append(tree.threshold[node])
            if (tree.decision[node] >> 2) & 3 == _MISSING_ZERO:
                thresholds += [np.nextafter(-_ZERO, -np.inf), _ZERO]
    numbers = {feature: _Binning(False, cuts=np.unique(values)) for feature, values in cuts.items()}
    categories = {feature: _Binning(True, ids=n) for feature, n in ids.items()}
    return dict(sorted((numbers | categories).items()))


def _to_bins(values: tf.Tensor, binning: _Binning) -> tf.Tensor:
    """Returns the bins of values [batch], int32."""
    if binning.categorical:
        ids = tf.cast(values, tf.int32)
        return tf.where((ids >= 0) & (ids < binning.ids), ids, binning.ids)
    values = tf.cast(values, tf.float64)
    bins = tf.searchsorted(tf.constant(binning.cuts), values, side="left")
    return tf.where(tf.math.is_nan(values), len(binning.cuts) + 1, bins)


def _lowest_bit(words: tf.Tensor) -> tf.Tensor:
    """Returns the index, int32, of the lowest bit of int64 words that are not 0."""
    return tf.cast(tf.raw_ops.PopulationCount(x=(words & -words) - 1), tf.int32)


def _bits(start: int, stop: int, words: int) -> np.ndarray:
    """Returns words [words] int64 with the bits from `start` up to, but not including, `stop`."""
    bits = np.zeros(words * _WORD_BITS, np.uint8)
    bits[start:stop] = 1
    return np.packbits(bits, bitorder="little").view("<i8").astype(np.int64)


def _leaves_in_order(tree: _Tree) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Returns a tree's leaves from left to right, and for each node the range of leaves on its left in that order."""
    order: list[int] = []
    left = [(0, 0)] * len(tree.feature)
    # Each node is visited twice: before its left side and, with the range's start, after it.
    stack: list[tuple[int, int | None]] = [(0, None)] if len(tree.feature) else [(-1, None)]
    while stack:
        child, start = stack.pop()
        if child < 0:
            order.append(-child - 1)
        elif start is None:
            stack += [(child, len(order)), (int(tree.left[child]), None)]
        else:
            left[child] = (start, len(order))
            stack.append((int(tree.right[child]), None))
    return np.array(order), left
