"""Exit with one line and status 130 on Ctrl-C during the imports of a script.

Import this module first in a script, before the slow imports:

    import utils.interrupt  # noqa: F401

    # isort: split

``exit_on_input_error`` handles Ctrl-C after the imports. Nothing changes if the main program is not a script of this
repository, or if Ctrl-C is ignored (as in the background of a shell script).
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from utils.errors import INTERRUPTED

ROOT = Path(__file__).resolve().parents[1]


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


def _is_our_script() -> bool:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return file is not None and ROOT in Path(file).resolve().parents and ".venv" not in Path(file).parts


if signal.getsignal(signal.SIGINT) == signal.default_int_handler and _is_our_script():
    signal.signal(signal.SIGINT, _end)
