"""Reports in headless Chromium: screenshots, and results of JavaScript that runs in the pages."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

_QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_QUIET += ["--disable-component-update", "--disable-sync", "--hide-scrollbars"]


def screenshots(pages: Sequence[Path], width: int, height: int = 2000) -> list[Image.Image]:
    """Returns a screenshot of each local page.

    The browser starts once: all pages are frames of one page, one below the other.
    """
    with tempfile.TemporaryDirectory() as folder:
        frame = f'style="display: block; border: 0" scrolling="no" width="{width}" height="{height}"'
        frames = "".join(f'<iframe src="{page.absolute().as_uri()}" {frame}></iframe>' for page in pages)
        picture, index = Path(folder, "page.png"), Path(folder, "index.html")
        index.write_text(f'<!doctype html><body style="margin: 0">{frames}</body>', encoding="utf-8")
        _chromium(folder, f"--window-size={width},{height * len(pages)}", f"--screenshot={picture}", index.as_uri())
        with Image.open(picture) as image:
            assert image.size == (width, height * len(pages))
            boxes = [(0, height * i, width, height * (i + 1)) for i in range(len(pages))]
            return [image.convert("RGB").crop(box) for box in boxes]


def ink(image: Image.Image) -> float:
    """Returns the share of pixels that do not have the most frequent color."""
    colors = image.getcolors(maxcolors=image.width * image.height)
    return 1 - max(count for count, _ in colors) / (image.width * image.height)


def run_in_pages(pages: Sequence[str], script: str, width: int = 1200) -> list[Any]:
    """Runs JavaScript in each page and returns the results.

    Args:
        pages: The HTML of each page. It is loaded into a frame.
        script: The body of a function of `document` and `window`, which are those of the page. Its result is JSON.
        width: Width of the frames in pixels. Defaults to 1200.
    """
    with tempfile.TemporaryDirectory() as folder:
        frames = [f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for page in pages]
        index = Path(folder, "index.html")
        index.write_text(
            f"""<!doctype html><meta charset="utf-8"><body>{"".join(frames)}<script>onload = () => {{
            const run = (document, window) => {{ {script} }};
            let results;
            try {{ results = Array.from(frames, (frame) => run(frame.document, frame)); }}
            catch (error) {{ results = error.stack; }}
            document.body.innerHTML = "<pre id=results></pre>";
            document.getElementById("results").textContent = JSON.stringify(results);
            }};</script></body>""",
            encoding="utf-8",
        )
        dom = _chromium(folder, "--dump-dom", index.as_uri())
    found = re.search(r'<pre id="results">(.*?)</pre>', dom, re.S)
    assert found is not None, "the page did not load"
    results = json.loads(html.unescape(found.group(1)))
    assert isinstance(results, list), results
    return results


def _chromium(folder: str, *arguments: str) -> str:
    """Runs the browser and returns what it prints."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    command = [chromium, "--headless", "--no-sandbox", *_QUIET, f"--user-data-dir={folder}/profile", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout.decode()
