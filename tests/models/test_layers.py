"""Layers against their formulas, written out."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from tidemill.models.core.layers import BilinearFusion, Embeddings, PairwiseProducts, PairwiseSum

RNG = np.random.default_rng(0)
FIELDS = RNG.normal(size=(5, 4, 3)).astype(np.float32)


def test_pairwise_sum():
    wanted = [sum(row[i] @ row[j] for i, j in itertools.combinations(range(4), 2)) for row in FIELDS]
    assert np.asarray(PairwiseSum()(FIELDS))[:, 0] == pytest.approx(wanted, rel=1e-5)


def test_pairwise_products():
    wanted = [[row[i] @ row[j] for i in range(4) for j in range(i)] for row in FIELDS]
    assert np.asarray(PairwiseProducts()(FIELDS)) == pytest.approx(np.array(wanted), rel=1e-5)


def test_bilinear_fusion():
    x, y = FIELDS.reshape(5, 12)[:, :6], FIELDS.reshape(5, 12)[:, 6:10]
    layer = BilinearFusion(2)
    found = np.asarray(layer(x, y))[:, 0]
    of_x, of_y, bias, between = (np.asarray(w) for w in (layer.x_kernel, layer.y_kernel, layer.bias, layer.bilinear))
    wanted = [
        a @ of_x[:, 0] + b @ of_y[:, 0] + bias[0] + a[:3] @ between[0] @ b[:2] + a[3:] @ between[1] @ b[2:]
        for a, b in zip(x, y, strict=True)
    ]
    assert found == pytest.approx(wanted, rel=1e-4)


def test_embeddings_of_two_sizes_one_shared_one_cut():
    layer = Embeddings(dims=[2, 3, 2, 3], rows=[4, 5, 4, 2], tables=[0, 1, 0, 3], num_ids=[4, 5, 4, 10])
    layer.build((None, 4))
    layer.slots.assign([*range(4), *range(5), *range(4), 0, *[1] * 9])
    ids = np.array([[0, 0, 3, 0], [3, 4, 0, 9]], np.int32)
    twos, threes = (np.asarray(part) for part in layer(ids))
    of_two, of_three = (np.asarray(table) for table in layer.tables_by_size)
    assert of_two.shape == (4, 2) and of_three.shape == (7, 3)
    assert np.array_equal(twos, of_two[[[0, 3], [3, 0]]])
    # The feature that was cut has its rows behind those of the other of its size; all ids but 0 read the last.
    assert np.array_equal(threes, of_three[[[0, 5], [4, 6]]])


def test_a_network_is_read_back(tmp_path):
    inputs = keras.Input((3,), dtype="int32")
    (part,) = Embeddings([2, 2, 2], [4, 5, 6], [0, 1, 1], l2=0.1)(inputs)
    network = keras.Model(inputs, PairwiseSum()(part))
    network.save(tmp_path / "m.keras")
    ids = RNG.integers(0, 4, (6, 3)).astype(np.int32)
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert np.array_equal(np.asarray(network(ids)), np.asarray(again(ids)))
    assert len(again.losses) == 1
