"""Entry of the keeper process: `PYTHON -I -S keeper_main.py FD ISOLATION GROUPS`.

Makes the modules beside it importable under their own names without running any package's `__init__`, which
would load what the keeper does not need.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

for _name, _path in (("toft", os.path.dirname(_HERE)), ("toft.host", _HERE)):
    _package = type(sys)(_name)
    _package.__path__ = [_path]
    sys.modules[_name] = _package

from toft.host import keeper_program  # noqa: E402 - importable only from here on

if __name__ == "__main__":
    keeper_program.run(int(sys.argv[1]), sys.argv[2], with_control_groups=sys.argv[3] == "groups")
