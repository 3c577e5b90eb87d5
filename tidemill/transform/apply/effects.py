"""Which ops of a graph do more than compute. Imports TensorFlow."""

from __future__ import annotations

import tensorflow as tf

from tidemill.transform.apply import ops

LOOP = "NextIteration"
"""The op that closes a loop of TensorFlow 1, the one way in which a graph has cycles."""


class Effects:
    """Effects of the ops of one graph, which does not change meanwhile."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {}

    def of(self, op: tf.Operation) -> frozenset[str]:
        """The types of those ops, among an op and all before it, that do more than compute: assert, print, draw."""
        stack = [op]
        while stack:
            top = stack[-1]
            if top.name in self._known:
                stack.pop()
                continue
            before = [*(part.op for part in top.inputs), *top.control_inputs]
            missing = [other for other in before if other.name not in self._known]
            if missing and top.type != LOOP:
                stack.extend(missing)
                continue
            has_own = top.type == LOOP or (top.type not in ops.TABLE_READS and top.op_def.is_stateful)
            # What closes a loop has the loop's ops before and after it.
            found = [self._known[other.name] for other in before] if not missing else []
            self._known[top.name] = frozenset([top.type] if has_own else []).union(*found)
            stack.pop()
        return self._known[op.name]
