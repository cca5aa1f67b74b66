"""``python -m tritonkit``, for where the command is not on the PATH."""

from tritonkit.cli import main

raise SystemExit(main())
