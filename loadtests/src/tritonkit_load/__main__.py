"""``python -m tritonkit_load`` is the command ``tritonkit-load``."""

import sys

from tritonkit_load.cli import main

sys.exit(main())
