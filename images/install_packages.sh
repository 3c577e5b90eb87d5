#!/bin/sh
# Build stage `packages`: installs requirements.lock into the virtual environment /opt/venv and puts what the final
# image gets of it below /image. Files that only builds need are left out.
set -eu
cd "$(dirname "$0")"

python3 -m pip install --quiet --root-user-action=ignore uv==0.13.8
python3 -m venv --without-pip /opt/venv
uv pip sync --quiet --no-cache --python /opt/venv/bin/python requirements.lock

# TensorFlow's C++ headers are for compilers, which the image does not have.
rm -rf /opt/venv/lib/python3.11/site-packages/tensorflow/include

# Compiled bytecode halves the import of TensorFlow, which most steps pay. By hash, because all times are set below.
# Tests, which are a fifth, are left out. compileall fails on some packages' templates, which are no Python: hence the
# check of one result instead.
PYTHONHASHSEED=0 /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  -x '/tests?/|_test\.py$' /opt/venv/lib || true
test -f /opt/venv/lib/python3.11/site-packages/tensorflow/__pycache__/__init__.cpython-311.pyc

# LightGBM needs OpenMP's library, which slim images lack.
openmp() { find /usr/lib -name libgomp.so.1 | head -n 1; }
if [ -z "$(openmp)" ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends libgomp1
fi
mkdir -p /image/opt /image/usr/lib
cp -L "$(openmp)" /image/usr/lib/libgomp.so.1
mv /opt/venv /image/opt/venv
ln -s /image/opt/venv /opt/venv  # for the next stage

# Two builds from the same lock give the same bytes.
find /image -exec touch --no-dereference --date=1980-01-01T00:00:00Z {} +
