from __future__ import annotations

import subprocess
import sys


def test_formats_do_not_need_torch() -> None:
    code = "import sys, propagate.formats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
