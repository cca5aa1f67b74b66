"""``python -m tritonkit_client``."""

from ._cli import main

raise SystemExit(main())
