"""Vocabulary files are equal, byte by byte, to those of TFT's Beam implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.transform.recordings import Recording
from tests.transform.vocabulary.recorded_vocabularies import GROUPS
from tests.transform.vocabulary.single_vocabulary import MEMORY, VocabularyResult, local_vocabulary
from tidemill.transform.analysis.count_store import CountStore

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("group", GROUPS)
def test_vocabularies_are_beams(group: str, tmp_path: Path):
    recording, settings = Recording("vocabularies"), GROUPS[group].local
    beam, local = {}, {}
    with CountStore(tmp_path, MEMORY, 1, per_file=bool(settings.get("through_disk"))) as store:
        for name, (want, batches) in GROUPS[group].wanted.items():
            sizes = json.loads(recording.read(f"{group}/{name}/sizes.json"))
            beam[name] = VocabularyResult(recording.read(f"{group}/{name}/file"), *sizes)
            local[name] = local_vocabulary(want, batches, tmp_path / name, store=store, **settings)
    assert local == beam
