"""python -m tests.errors FILE: writes the page."""

import sys
from pathlib import Path

from tests.errors.page import page

Path(sys.argv[1]).write_text(page(), "utf-8")
