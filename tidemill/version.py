"""The version of Tidemill, and the names of the images that it was released with."""

__version__ = "0.1.0"
CPU_IMAGE = f"tidemill-python-cpu:{__version__}"
GPU_IMAGE = f"tidemill-python-gpu:{__version__}"
"""`tidemill compile --images REGISTRY --tag TAG` replaces the names in compiled pipelines."""
