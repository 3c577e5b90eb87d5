"""Awkward tokens, and settings of vocabularies."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.transform.vocabulary.single_vocabulary import Vocabulary

AWKWARD = [b"", b"a", b"b", b"A", b"\n", b"a\rb", b"a\x00", b"a\x00b", b"\x00", b" a", b"a b", "größe".encode()]
AWKWARD += ["\U0001f40b".encode(), "\uffff".encode(), b"-1", b"0"]
NO_UTF8 = [b"\xff", b"\xc3(", b"a\xff", b"\xff\n"]
TEXTS = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(max_size=4).map(str.encode),
    st.integers(0, 5).map(lambda i: b"near-unique-and-long-" * 3 + b"%d" % i),
)
BYTES = st.one_of(TEXTS, st.sampled_from(NO_UTF8), st.binary(max_size=3))
INTEGERS = st.one_of(st.integers(-3, 12), st.sampled_from([2**63 - 1, -(2**63) + 1, 2**53 + 1, 2**53, -(10**18)]))


def first_byte(token: bytes) -> bytes:
    """Returns the key of a token for coverage."""
    return token[:1]


_KEYED = {"coverage_top_k": 1, "key_fn": first_byte}
VOCABULARIES = {
    "plain": Vocabulary(),
    "top": Vocabulary(top_k=3),
    "threshold": Vocabulary(frequency_threshold=2.0),
    "both": Vocabulary(top_k=3, frequency_threshold=1.5),
    "none": Vocabulary(frequency_threshold=1e9),
    "none_top": Vocabulary(frequency_threshold=1e9, top_k=2),
    "shuffled": Vocabulary(fingerprint_shuffle=True),
    "shuffled_top": Vocabulary(fingerprint_shuffle=True, top_k=4),
    "reserved": Vocabulary(reserved=(b"r", b"a")),
    "reserved_top": Vocabulary(reserved=(b"b", b"r"), top_k=3),
    "reserved_none": Vocabulary(reserved=(b"r",), frequency_threshold=1e9),
    "reserved_none_top": Vocabulary(reserved=(b"r",), frequency_threshold=1e9, top_k=1),
    "reserved_empty": Vocabulary(reserved=(), frequency_threshold=1e9),
    "coverage": Vocabulary(top_k=2, **_KEYED),
    "coverage_threshold": Vocabulary(top_k=1, coverage_frequency_threshold=2.0, key_fn=first_byte),
    "coverage_none": Vocabulary(top_k=2, frequency_threshold=1e9, **_KEYED),
    "coverage_all": Vocabulary(frequency_threshold=2.0, coverage_frequency_threshold=2.0, **_KEYED),
}
