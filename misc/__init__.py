"""Command-line tools built from the other rooms."""

import sys

from utils.stopping import quiet_while_loading

# `python3 -m misc.<tool>` comes through here before anything of the tool is loaded, `python3
# misc/<tool>.py` by its own import of `misc`. Until `run_main` answers signals, a Ctrl-C ends the
# program without a traceback.
_by_name = sys.argv[:1] == ["-m"]
_as_file = str(getattr(sys.modules.get("__main__"), "__file__", "")).startswith(*__path__)
if _by_name or _as_file:
    quiet_while_loading()
