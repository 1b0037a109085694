"""A Python session that runs the blocks of a page as they come: started by run.py, as a program.

Each line on standard input is a JSON object with the code and where it stands; each line on standard
output tells what it printed, and the traceback if it failed.
"""

import contextlib
import io
import json
import linecache
import sys
import traceback

names: dict[str, object] = {"__name__": "__main__"}
answers = sys.stdout
for line in sys.stdin:
    asked = json.loads(line)
    code, place = asked["code"], asked["place"]
    linecache.cache[place] = len(code), None, code.splitlines(keepends=True), place
    printed, error = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, place, "exec"), names)
        except BaseException:
            error = traceback.format_exc()
    print(json.dumps({"printed": printed.getvalue(), "error": error}), file=answers, flush=True)
