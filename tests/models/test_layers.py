"""Layers, compared with their formulas."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from tidemill.models.core.layers import BilinearFusion, Embeddings, PairwiseProducts, PairwiseSum

RNG = np.random.default_rng(0)
FIELDS = RNG.normal(size=(5, 4, 3)).astype(np.float32)


def test_pairwise_sum_adds_all_inner_products():
    expected = [sum(row[i] @ row[j] for i, j in itertools.combinations(range(4), 2)) for row in FIELDS]
    assert np.asarray(PairwiseSum()(FIELDS))[:, 0] == pytest.approx(expected, rel=1e-5)


def test_pairwise_products_are_all_inner_products():
    expected = [[row[i] @ row[j] for i in range(4) for j in range(i)] for row in FIELDS]
    assert np.asarray(PairwiseProducts()(FIELDS)) == pytest.approx(np.array(expected), rel=1e-5)


def test_bilinear_fusion_equals_its_formula():
    x, y = FIELDS.reshape(5, 12)[:, :6], FIELDS.reshape(5, 12)[:, 6:10]
    layer = BilinearFusion(2)
    fused = np.asarray(layer(x, y))[:, 0]
    weights = (layer.x_kernel, layer.y_kernel, layer.bias, layer.bilinear)
    x_kernel, y_kernel, bias, bilinear = (np.asarray(weight) for weight in weights)
    expected = [
        a @ x_kernel[:, 0] + b @ y_kernel[:, 0] + bias[0] + a[:3] @ bilinear[0] @ b[:2] + a[3:] @ bilinear[1] @ b[2:]
        for a, b in zip(x, y, strict=True)
    ]
    assert fused == pytest.approx(expected, rel=1e-4)


def test_embeddings_have_two_sizes_a_shared_table_and_a_cut_one():
    layer = Embeddings(dims=[2, 3, 2, 3], rows=[4, 5, 4, 2], tables=[0, 1, 0, 3], num_ids=[4, 5, 4, 10])
    layer.build((None, 4))
    layer.slots.assign([*range(4), *range(5), *range(4), 0, *[1] * 9])
    ids = np.array([[0, 0, 3, 0], [3, 4, 0, 9]], np.int32)
    vectors_2, vectors_3 = (np.asarray(vectors) for vectors in layer(ids))
    tables_2, tables_3 = (np.asarray(table) for table in layer.tables_by_size)
    assert tables_2.shape == (4, 2) and tables_3.shape == (7, 3)
    assert np.array_equal(vectors_2, tables_2[[[0, 3], [3, 0]]])
    # The rows of the cut table follow those of the other table of its size. All ids except 0 read its last row.
    assert np.array_equal(vectors_3, tables_3[[[0, 5], [4, 6]]])


def test_a_saved_network_loads(tmp_path):
    inputs = keras.Input((3,), dtype="int32")
    (vectors,) = Embeddings([2, 2, 2], [4, 5, 6], [0, 1, 1], l2=0.1)(inputs)
    network = keras.Model(inputs, PairwiseSum()(vectors))
    network.save(tmp_path / "m.keras")
    ids = RNG.integers(0, 4, (6, 3)).astype(np.int32)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert np.array_equal(np.asarray(network(ids)), np.asarray(loaded(ids)))
    assert len(loaded.losses) == 1
