"""A LightGBM model as TensorFlow ops, for serving.

Every decision of a tree looks at one feature and only asks which of finitely many ranges or ids its value is in. So a
row's values are first turned into *bins*: for a number the place among all thresholds at which any node cuts it
(compared as float64, as LightGBM does) or a bin for NaN; for a category its id, or one bin for all ids that no node
asks for. Then every node is a bitset over its feature's bins, which says what goes to the left. It is filled by asking
LightGBM's rule about one value of each bin, so missing values and categories need no ops of their own. All trees are
walked down at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

_ZERO = float(np.float32(1e-35))
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2
_WORD_BITS = 32


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
    """All trees, as arrays over nodes. Leaves are nodes too, whose children are they themselves.

    Attributes:
        binnings: By feature, for those that any tree uses.
        roots: [trees] int32, deepest tree first.
        depths: [trees], in the same order.
        feature: [nodes] int32, place of the node's feature among `binnings`.
        word: [nodes] int32, where the node's bitset begins in `words`.
        words: int32, the bitsets.
        children: [2 * nodes] int32, right and left child.
        values: [nodes] float64, value of a leaf.
        order: [trees] int32, the place in `roots` of each tree of the model.
        slope: The sigmoid's.
    """

    def __init__(self, trees: Sequence[_Tree], slope: float):
        self.slope = slope
        self.binnings = _binnings(trees)
        column = {feature: place for place, feature in enumerate(self.binnings)}
        depths = np.array([_depth(tree) for tree in trees], np.int64)
        placed = np.argsort(-depths, kind="stable")
        self.depths = depths[placed]
        self.order = np.argsort(placed).astype(np.int32)
        roots, feature, word, children, values = [], [], [], [], []
        bitsets: list[np.ndarray] = []
        next_word = 0
        for tree in (trees[i] for i in placed):
            first, inner = len(feature), len(tree.feature)
            roots.append(first)
            for node in range(inner):
                binning = self.binnings[tree.feature[node]]
                bitset = _pack(binning.left_bins(tree, node))
                feature.append(column[tree.feature[node]])
                word.append(next_word)
                bitsets.append(bitset)
                next_word += len(bitset)
                for child in (tree.right[node], tree.left[node]):
                    children.append(first + (child if child >= 0 else inner - child - 1))
            for leaf in range(first + inner, first + inner + len(tree.values)):
                feature.append(0)
                word.append(0)
                children += [leaf, leaf]
            values += [0.0] * inner + list(tree.values)
        self.roots, self.feature, self.word = (np.array(x, np.int32) for x in (roots, feature, word))
        self.children, self.values = np.array(children, np.int32), np.array(values, np.float64)
        self.words = np.concatenate(bitsets) if bitsets else np.zeros(1, np.int32)

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
        if not len(self.roots):
            return tf.fill(tf.shape(columns[0]), 0.5)
        if self.binnings:
            bins = tf.stack([_to_bins(columns[i], binning) for i, binning in self.binnings.items()], axis=1)
        else:
            bins = tf.zeros([tf.shape(columns[0])[0], 1], tf.int32)
        leaves = self._leaves(bins)
        values = tf.gather(tf.gather(self.values, leaves), self.order, axis=1)
        return tf.cast(tf.sigmoid(self.slope * tf.reduce_sum(values, axis=1)), tf.float32)

    def _leaves(self, bins: tf.Tensor) -> tf.Tensor:
        """The leaf [batch, trees] int32 that each row reaches in each tree, the trees in the order of `roots`."""
        batch, width = tf.shape(bins)[0], bins.shape[1]
        flat = tf.reshape(bins, [-1])
        starts = (tf.range(batch) * width)[:, None]
        feature, first_word, words, children = map(tf.constant, (self.feature, self.word, self.words, self.children))
        nodes = tf.tile(tf.constant(self.roots)[None, :], [batch, 1])
        reached = []
        for depth in range(1, int(self.depths.max()) + 1):
            going = int((self.depths >= depth).sum())
            reached.append(nodes[:, going:])
            nodes = nodes[:, :going]
            place = tf.gather(flat, starts + tf.gather(feature, nodes))
            word = tf.gather(words, tf.gather(first_word, nodes) + place // _WORD_BITS)
            left = tf.bitwise.right_shift(word, place % _WORD_BITS) & 1
            nodes = tf.gather(children, nodes * 2 + left)
        return tf.concat([nodes, *reversed(reached)], axis=1)


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


def _pack(bits: np.ndarray) -> np.ndarray:
    """Bits to int32 words, the lowest bit first."""
    padded = np.zeros(-(-len(bits) // _WORD_BITS) * _WORD_BITS, np.uint8)
    padded[: len(bits)] = bits
    return np.packbits(padded, bitorder="little").view("<u4").astype(np.uint32).view(np.int32)


def _depth(tree: _Tree) -> int:
    """Decisions on the longest way from the root to a leaf."""
    depth = np.zeros(len(tree.feature), np.int64)
    deepest = 0
    # LightGBM numbers a child above its parent, so one pass goes down.
    for node in range(len(tree.feature)):
        deepest = max(deepest, int(depth[node]) + 1)
        for child in (tree.left[node], tree.right[node]):
            if child >= 0:
                depth[child] = depth[node] + 1
    return deepest
