"""What made the figures in the docs: `python -m studies.NAME`. Not part of the wheel.

`python -m` puts the repository first on the path, and its `pgenrm_agent/` lacks graphs/ and training/,
which only the installed package has under itself: so the repository goes to the end of the path.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[1])
sys.path[:] = [*(entry for entry in sys.path if entry not in ("", ROOT)), ROOT]
