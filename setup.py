"""Lists the packages; everything else about the distribution is in setup.cfg.

`components/` and `pipelines/` are installed below `tidemill`, which `find:` in setup.cfg cannot express.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["tidemill", "tidemill.*"]),
        *(f"tidemill.{name}" for name in find_packages(include=["components", "components.*"])),
        *(f"tidemill.{name}" for name in find_packages(include=["pipelines", "pipelines.*"])),
    ]
)
