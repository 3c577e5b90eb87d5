"""The KFP components, one folder each: `component.py`, its compiled `component.yaml` and a README.

A component reads its parameters and paths, calls one function of the library and logs what the UI shows.
"""

import os

CPU_IMAGE = os.environ.get("TIDEMILL_CPU_IMAGE", "tidemill-python-cpu:0.1.0")
GPU_IMAGE = os.environ.get("TIDEMILL_GPU_IMAGE", "tidemill-python-gpu:0.1.0")
