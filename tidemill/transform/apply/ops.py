"""TensorFlow's elementwise ops, whose output elements depend only on the input elements at the same position.

Imports TensorFlow.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_OF_NUMBERS = (
    "Abs Acos Acosh Add AddN AddV2 Asin Asinh Atan Atan2 Atanh BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast Ceil "
    "ClipByValue Cos Cosh Digamma Div DivNoNan Elu Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Inv Invert "
    "IsFinite IsInf IsNan LeakyRelu LeftShift Lgamma Log Log1p Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter "
    "Pow RealDiv Reciprocal Relu Relu6 RightShift Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt "
    "Square SquaredDifference Sub Tan Tanh TruncateDiv TruncateMod Xdivy Xlog1py Xlogy"
)
_OF_ANYTHING = (
    "Equal Greater GreaterEqual Less LessEqual LogicalAnd LogicalNot LogicalOr NotEqual OnesLike Select SelectV2 "
    "ZerosLike"
)
_OF_STRINGS = (
    "AsString StaticRegexFullMatch StaticRegexReplace StringJoin StringLength StringLower StringStrip "
    "StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper"
)
BROADCASTING = frozenset(f"{_OF_NUMBERS} {_OF_ANYTHING} {_OF_STRINGS}".split())
"""Ops whose inputs are all broadcast against each other."""

FIRST_ONLY = frozenset(["RegexFullMatch", "RegexReplace", "Substr"])
"""Ops that work on the elements of the first input and take scalars for the others."""

SCALARS_ONLY = frozenset(["AddN", "ClipByValue", "Select", "StringJoin"])
"""Ops that take inputs of one shape and scalars, and broadcast no other shapes."""

_MAY_FAIL = frozenset(["StringToNumber", "Substr", "StringLower", "StringUpper", "Pow", "LeftShift", "RightShift"])
_DIVIDES = frozenset(["Div", "FloorDiv", "FloorMod", "Mod", "RealDiv", "TruncateDiv", "TruncateMod"])

TABLE_READS = frozenset(["LookupTableFindV2", "LookupTableSizeV2"])
"""Stateful in name only: the tables of a transform graph do not change."""

PYTHON = frozenset(["EagerPyFunc", "PyFunc"])
"""Stateful in name only: a function passed to `tft.apply_pyfunc` only computes."""

TABLE_WRITES = frozenset(
    [
        *("InitializeTableFromDatasetV2", "InitializeTableFromTextFileV2", "InitializeTableV2"),
        *("LookupTableImportV2", "LookupTableInsertV2", "LookupTableRemoveV2"),
    ]
)
_HASHES = frozenset(["StringToHashBucket", "StringToHashBucketFast", "StringToHashBucketStrong"])


def cannot_fail(op: tf.Operation, divisor: np.ndarray | None) -> bool:
    """Returns whether an elementwise op has a result for every value of its dtype.

    Args:
        op: The op.
        divisor: The value of its second input if that is a constant.
    """
    if op.type in _MAY_FAIL:
        return False
    if op.type in _DIVIDES and op.inputs[0].dtype.is_integer:
        return divisor is not None and not np.any(divisor == 0)
    return True


def is_constant_hash(op: tf.Operation) -> bool:
    """Returns whether an op hashes into a single bucket."""
    return op.type in _HASHES and op.get_attr("num_buckets") == 1


def prints_integers(op: tf.Operation) -> bool:
    """Returns whether an `AsString` returns the decimal digits of an int64."""
    return (
        op.inputs[0].dtype == tf.int64
        and op.get_attr("width") == -1
        and op.get_attr("fill") in (b"", "")
        and not op.get_attr("scientific")
    )


def keeps_values(op: tf.Operation) -> bool:
    """Returns whether a `Cast` returns its input unchanged."""
    return op.inputs[0].dtype == op.outputs[0].dtype


LOOP = "NextIteration"
"""The op that closes a TF1 while loop, the only kind of cycle in a graph."""


class Effects:
    """The side effects of the ops of one graph, which must not change meanwhile."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {}

    def of(self, op: tf.Operation) -> frozenset[str]:
        """Returns the types of those among an op and its ancestors that do more than compute.

        Examples are asserting, printing and drawing random numbers.
        """
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
            has_own = top.type == LOOP or (top.type not in TABLE_READS and top.op_def.is_stateful)
            # The op that closes a loop has the loop's ops both before and after it.
            effects = [self._known[other.name] for other in before] if not missing else []
            self._known[top.name] = frozenset([top.type] if has_own else []).union(*effects)
            stack.pop()
        return self._known[op.name]
