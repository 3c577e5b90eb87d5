"""Tokens with all that is awkward, and vocabularies to make of them."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.transform.vocabulary.single_vocabulary import Wanted

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
    """A key for coverage."""
    return token[:1]


_KEYED = {"coverage_top_k": 1, "key_fn": first_byte}
VOCABULARIES = {
    "plain": Wanted(),
    "top": Wanted(top_k=3),
    "threshold": Wanted(frequency_threshold=2.0),
    "both": Wanted(top_k=3, frequency_threshold=1.5),
    "none": Wanted(frequency_threshold=1e9),
    "none_top": Wanted(frequency_threshold=1e9, top_k=2),
    "shuffled": Wanted(fingerprint_shuffle=True),
    "shuffled_top": Wanted(fingerprint_shuffle=True, top_k=4),
    "reserved": Wanted(reserved=(b"r", b"a")),
    "reserved_top": Wanted(reserved=(b"b", b"r"), top_k=3),
    "reserved_none": Wanted(reserved=(b"r",), frequency_threshold=1e9),
    "reserved_none_top": Wanted(reserved=(b"r",), frequency_threshold=1e9, top_k=1),
    "reserved_empty": Wanted(reserved=(), frequency_threshold=1e9),
    "coverage": Wanted(top_k=2, **_KEYED),
    "coverage_threshold": Wanted(top_k=1, coverage_frequency_threshold=2.0, key_fn=first_byte),
    "coverage_none": Wanted(top_k=2, frequency_threshold=1e9, **_KEYED),
    "coverage_all": Wanted(frequency_threshold=2.0, coverage_frequency_threshold=2.0, **_KEYED),
}
