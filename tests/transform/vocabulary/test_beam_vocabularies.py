"""Vocabulary files are equal, byte by byte, to those of TFT's Beam implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.transform.recordings import Recording
from tests.transform.vocabulary.recorded_vocabularies import GROUPS
from tests.transform.vocabulary.single_vocabulary import VocabularyResult, local_vocabulary

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group].wanted])
def test_vocabulary_is_beams(group: str, name: str, tmp_path: Path):
    recording = Recording("vocabularies")
    sizes = json.loads(recording.read(f"{group}/{name}/sizes.json"))
    want, batches = GROUPS[group].wanted[name]
    local = local_vocabulary(want, batches, tmp_path, **GROUPS[group].local)
    assert local == VocabularyResult(recording.read(f"{group}/{name}/file"), *sizes)
