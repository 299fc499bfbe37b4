"""`python -m cluster_lock`: the command `cluster-lock`."""

import sys

from .cli import main

sys.exit(main())
