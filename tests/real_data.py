"""Where real data sets lie, if they do; they are no part of the project, and tests skip without them."""

import os
from pathlib import Path

REAL_DATA = Path(os.environ.get("TASKHEAT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
