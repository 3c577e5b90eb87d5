"""Screenshots of reports in headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from PIL import Image

_QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_QUIET += ["--disable-component-update", "--disable-sync", "--hide-scrollbars"]


def screenshot(page: Path, width: int, height: int = 2000) -> Image.Image:
    """Returns a screenshot of a local page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "page.png")
        command = [chromium, "--headless", "--no-sandbox", *_QUIET, f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={width},{height}", f"--screenshot={picture}", page.absolute().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(picture) as image:
            return image.convert("RGB").copy()


def ink(image: Image.Image) -> float:
    """Returns the share of pixels that do not have the most frequent colour."""
    colours = image.getcolors(maxcolors=image.width * image.height)
    return 1 - max(count for count, _ in colours) / (image.width * image.height)
