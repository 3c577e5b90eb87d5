"""Digests of images that this machine has pushed to a registry."""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import tarfile
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs

import pytest

from tidemill.cli.main import main
from tidemill.local.images import named_images

pytestmark = pytest.mark.container


class Registry(BaseHTTPRequestHandler):
    """The part of the OCI distribution API that `docker push` uses. It keeps only the sizes."""

    protocol_version = "HTTP/1.1"
    sizes: ClassVar[dict[str, int]] = {}
    """The sizes of uploads, and of blobs that are complete, by the last part of their paths."""

    def _answer(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content_Length": "0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        self._answer(200)

    def do_HEAD(self) -> None:
        digest = self.path.rpartition("/")[2]
        size = self.sizes.get(digest)
        if size is None:
            return self._answer(404)
        self._answer(200, Content_Length=str(size), Docker_Content_Digest=digest)

    def do_POST(self) -> None:
        self._answer(202, Location=f"{self.path}{uuid.uuid4()}")

    def do_PATCH(self) -> None:
        size = self.sizes[self.path] = len(self._body())
        self._answer(202, Location=self.path, Range=f"0-{size - 1}")

    def do_PUT(self) -> None:
        body, (path, _, query) = self._body(), self.path.partition("?")
        # A blob's digest is in the query, a manifest is the body.
        digest = parse_qs(query).get("digest", [f"sha256:{hashlib.sha256(body).hexdigest()}"])[0]
        self.sizes[digest] = self.sizes.pop(path, len(body))
        self._answer(201, Docker_Content_Digest=digest)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}/team"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pushed(engine) -> Iterator[str]:
    """Pushes a tiny CPU image with the tag 7, and returns the registry."""
    with serving() as registry:
        name = f"{registry}/tidemill-python-cpu:7"
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("empty"))
        subprocess.run(["docker", "import", "-", name], input=file.getvalue(), check=True, capture_output=True)
        try:
            subprocess.run(["docker", "push", "--quiet", name], check=True, capture_output=True)
            yield registry
        finally:
            subprocess.run(["docker", "image", "rm", "--force", name], check=True, capture_output=True)


def test_a_pushed_image_is_named_by_its_digest(pushed, tmp_path, capsys):
    images = named_images(pushed, "7")
    repository, _, digest = images.cpu.partition("@")
    assert repository == f"{pushed}/tidemill-python-cpu" and digest.startswith("sha256:")
    assert images.gpu == f"{pushed}/tidemill-python-gpu:7"  # was not pushed
    assert main(["compile", "ingest", "--images", pushed, "--tag", "7", "--output", str(tmp_path)]) == 0
    assert f"image: {images.cpu}" in capsys.readouterr().out
    assert f"image: {images.cpu}\n" in (tmp_path / "components" / "ingest.yaml").read_text()
