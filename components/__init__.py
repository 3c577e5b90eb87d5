"""The KFP components, one folder each: `component.py`, its compiled `component.yaml` and a README.

A component reads its parameters and paths, calls one function of the library and logs what the UI shows.
"""

from tidemill.version import CPU_IMAGE, GPU_IMAGE

__all__ = ["CPU_IMAGE", "GPU_IMAGE"]
