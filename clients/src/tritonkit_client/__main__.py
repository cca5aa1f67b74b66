"""``python -m tritonkit_client``."""

from ._cli.main import main

raise SystemExit(main())
