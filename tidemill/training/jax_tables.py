"""The updates of embedding tables in JAX: as those of `optimizers`, of the rows of the batch alone.

All writes are to rows that occur once, so that they need no order: a step gives the same bits again, on a GPU too,
where adding to one place from several threads would not.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tidemill.training.schedules import ADAGRAD_START, BETA_1, BETA_2, EPSILON

Slots = tuple[jax.Array, ...]


def summed(places: jax.Array, values: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """The gradient with each row once.

    Args:
        places: [n] int32, rows of a table, in any order and any number of times.
        values: [n, size] float32, the gradient at each.
        rows: Of the table.

    Returns:
        [n] int32 and [n, size] float32: each row that occurs, at one place, with the sum of its gradients; the other
        places have a number beyond the table, none twice, and zeros.
    """
    order = jnp.argsort(places)
    places, values = places[order], values[order]
    differs = places[1:] != places[:-1]
    first, last = jnp.append(True, differs), jnp.append(differs, True)

    def add(left: tuple, right: tuple) -> tuple:
        """Sums from the first place of a row on."""
        begins = right[0]
        return left[0] | begins, right[1] + jnp.where(begins[:, None], 0, left[1])

    _, sums = jax.lax.associative_scan(add, (first, values))
    beyond = rows + jnp.arange(len(places), dtype=places.dtype)
    return jnp.where(last, places, beyond), jnp.where(last[:, None], sums, 0)


def slots(name: str, table: jax.Array) -> Slots:
    """What the optimizer keeps of a table before the first step."""
    return tuple(jnp.full_like(table, start) for start in _STARTS[name])


def update(
    name: str, table: jax.Array, kept: Slots, rows: jax.Array, gradient: jax.Array, rate: jax.Array, step: jax.Array
) -> tuple[jax.Array, Slots]:
    """A table after a step.

    Args:
        name: `adam`, `adagrad` or `sgd`.
        table: [rows of the table, size] float32.
        kept: As of `slots`.
        rows: [n] int32, from `summed`.
        gradient: [n, size] float32, from `summed`.
        rate: The learning rate, float32.
        step: From 1, float32.

    Returns:
        The table, and what is kept.
    """
    change, own = _RULES[name]([_get(slot, rows) for slot in kept], gradient, rate, step)
    table = table.at[rows].add(-change, mode="drop", unique_indices=True)
    new = (slot.at[rows].set(value, mode="drop", unique_indices=True) for slot, value in zip(kept, own, strict=True))
    return table, tuple(new)


def _get(table: jax.Array, rows: jax.Array) -> jax.Array:
    return table.at[rows].get(mode="fill", fill_value=0, unique_indices=True)


def _adagrad(own: list, gradient: jax.Array, rate: jax.Array, step: jax.Array) -> tuple[jax.Array, list]:
    """Adagrad (Duchi et al., 2011)."""
    squares = own[0] + jnp.square(gradient)
    return rate * gradient / (jnp.sqrt(squares) + EPSILON), [squares]


def _lazy_adam(own: list, gradient: jax.Array, rate: jax.Array, step: jax.Array) -> tuple[jax.Array, list]:
    """Adam (Kingma & Ba, 2015, arXiv:1412.6980) whose moments decay when a row is seen, and only then. The correction
    of the bias is by the step."""
    mean = BETA_1 * own[0] + (1 - BETA_1) * gradient
    square = BETA_2 * own[1] + (1 - BETA_2) * jnp.square(gradient)
    rate = rate * jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    return rate * mean / (jnp.sqrt(square) + EPSILON), [mean, square]


def _sgd(own: list, gradient: jax.Array, rate: jax.Array, step: jax.Array) -> tuple[jax.Array, list]:
    """Stochastic gradient descent without momentum."""
    return rate * gradient, []


_RULES: dict[str, Callable] = {"adam": _lazy_adam, "adagrad": _adagrad, "sgd": _sgd}
_STARTS = {"adam": (0.0, 0.0), "adagrad": (ADAGRAD_START,), "sgd": ()}
