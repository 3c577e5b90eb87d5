#!/bin/sh
# Build stage `code`: installs Tidemill below /image-code, apart from the packages, so that a change of the code changes
# a small layer only.
set -eu
cd "$(dirname "$0")"

site=/image-code/opt/venv/lib/python3.11/site-packages
uv pip install --quiet --no-cache --no-deps --no-build-isolation --python /opt/venv/bin/python \
  --prefix /image-code/opt/venv ./tidemill
# Two files with paths and times of this build, and their lines in the list of files.
rm -f "$site"/tidemill-*.dist-info/direct_url.json "$site"/tidemill-*.dist-info/uv_cache.json
sed -i '/direct_url\.json\|uv_cache\.json/d' "$site"/tidemill-*.dist-info/RECORD
PYTHONHASHSEED=0 /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash \
  -s /image-code "$site/tidemill"

# Steps start in this folder. It is empty: Python imports what lies in the working directory first.
mkdir -p /image-code/opt/tidemill
find /image-code -exec touch --no-dereference --date=1980-01-01T00:00:00Z {} +
