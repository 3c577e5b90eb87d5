"""Screenshots of reports in headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

_QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_QUIET += ["--disable-component-update", "--disable-sync", "--hide-scrollbars"]


def screenshots(pages: Sequence[Path], width: int, height: int = 2000) -> list[Image.Image]:
    """Returns a screenshot of each local page.

    The browser starts once: all pages are frames of one page, one below the other.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    with tempfile.TemporaryDirectory() as folder:
        frame = f'style="display: block; border: 0" scrolling="no" width="{width}" height="{height}"'
        frames = "".join(f'<iframe src="{page.absolute().as_uri()}" {frame}></iframe>' for page in pages)
        picture, index = Path(folder, "page.png"), Path(folder, "index.html")
        index.write_text(f'<!doctype html><body style="margin: 0">{frames}</body>', encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", *_QUIET, f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={width},{height * len(pages)}", f"--screenshot={picture}", index.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(picture) as image:
            assert image.size == (width, height * len(pages))
            boxes = [(0, height * i, width, height * (i + 1)) for i in range(len(pages))]
            return [image.convert("RGB").crop(box) for box in boxes]


def ink(image: Image.Image) -> float:
    """Returns the share of pixels that do not have the most frequent color."""
    colors = image.getcolors(maxcolors=image.width * image.height)
    return 1 - max(count for count, _ in colors) / (image.width * image.height)
