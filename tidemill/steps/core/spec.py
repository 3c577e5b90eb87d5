"""The spec of a step, where it is kept, and the code part of its cache key: modules, templates and library versions."""

from __future__ import annotations

import importlib.metadata
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from tidemill import fingerprint, storage
from tidemill.distributions import installed_version
from tidemill.errors import Code, TidemillError
from tidemill.section import Section
from tidemill.steps.core import import_graph

FOLDER = "specs"
_WRITERS = 16


class StepSpec(Section):
    """A step's settings, kept as JSON below the root.

    A spec holds everything that decides the step's result besides its input artifacts. Its URI travels to the step as
    a parameter and names its content, so that the pipeline engine can use the URI and the input artifacts as the step's
    cache key. A subclass sets `step`'s type to a literal with the step's name as default.
    """

    step: Any
    """The step's name."""
    code: str
    """Fingerprint of the modules and templates that the step can reach."""
    libraries: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults
    """Versions of the libraries that decide the step's result, by distribution."""

    @classmethod
    def read(cls, spec: str) -> Self:
        """Reads a spec.

        Args:
            spec: URI of a spec, or its JSON text.

        Raises:
            TidemillError: `incomplete-artifact` if there is no such spec, or if its file was changed.
        """
        return cls.model_validate_json(json.dumps(spec_document(spec)))


def spec_document(spec: str) -> dict[str, Any]:
    """Returns a spec as it was written: URI or JSON text, as `StepSpec.read` takes it."""
    if spec.startswith("{"):
        return json.loads(spec)
    try:
        document = storage.read_json(spec)
    except (FileNotFoundError, ValueError):
        document = None
    if document is None or _file_name(document) != storage.name_of(spec):
        got = "no spec" if document is None else "a spec that was changed after it was planned"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, spec, got, "start a new run, which plans its steps again")
    return document


class SpecWriter:
    """A writer of specs below a root.

    Args:
        root: URI of the root. The specs are `ROOT/specs/<step>/<fingerprint>.json`.
    """

    def __init__(self, root: str):
        self._root = root
        self._documents: dict[str, dict[str, Any]] = {}

    def uri(self, spec: StepSpec) -> str:
        """Returns the URI of a spec, which is written by `write`."""
        document = spec.model_dump(mode="json", by_alias=True)
        uri = storage.join(self._root, FOLDER, spec.step, _file_name(document))
        self._documents[uri] = document
        return uri

    def write(self) -> None:
        """Writes all specs whose URIs were asked for."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(storage.write_json, self._documents, self._documents.values()))


def _file_name(document: dict[str, Any]) -> str:
    return f"{fingerprint.of_json(document)}.json"


@dataclass(frozen=True)
class StepCode:
    """The code that decides a step's result."""

    step: str
    """The step's name, which is its component's too."""
    libraries: tuple[str, ...] = ()
    """Distributions whose versions decide the result of every such step."""

    @property
    def entry(self) -> str:
        """The full name of the component's module. The step's code is what this module can reach."""
        return f"tidemill.components.{self.step}.component"

    def files(self) -> dict[str, str]:
        """Returns the fingerprints of the modules and templates that the step can reach, by path."""
        return import_graph.installed().files(self.entry)

    def fingerprint(self) -> str:
        """Returns the fingerprint of these files."""
        return fingerprint.of_json(self.files())

    def versions(self, *extra: str) -> dict[str, str]:
        """Returns the versions of the step's libraries.

        Args:
            extra: Further distributions, which decide the result only with some settings.

        Returns:
            Versions by distribution, sorted. Distributions that are not installed are left out.
        """
        versions = {name: _version(name) for name in sorted({*self.libraries, *extra})}
        return {name: version for name, version in versions.items() if version is not None}


def _version(distribution: str) -> str | None:
    """Returns the version of an installed distribution, or None."""
    try:
        return installed_version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
