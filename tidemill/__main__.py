"""The command line as `python -m tidemill`."""

import sys

from tidemill.cli.main import main

sys.exit(main())
