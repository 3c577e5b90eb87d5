"""Records Beam's outputs for the tests of the local engine, in `recorded/VERSION/`.

    python -m tests.transform.record                # all groups, about 20 minutes
    python -m tests.transform.record cases          # one group

Run it after a change of the recorded cases or of TensorFlow Transform's version, and commit the files.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.transform.analysis import analyzers
from tests.transform.conformance import recorded_runs
from tests.transform.recordings import write_recording
from tests.transform.tft import beam_artifacts
from tests.transform.vocabulary import recorded_vocabularies

GROUPS: dict[str, Callable[[Path], dict[str, bytes]]] = {
    **recorded_runs.GROUPS,
    "analyzers": analyzers.record,
    "artifacts": beam_artifacts.record,
    "vocabularies": recorded_vocabularies.record,
}


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], help="defaults to all")
    for group in parser.parse_args().groups or GROUPS:
        with tempfile.TemporaryDirectory() as folder:
            files = GROUPS[group](Path(folder))
        write_recording(group, files)
        print(f"{group}: {len(files)} files", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
