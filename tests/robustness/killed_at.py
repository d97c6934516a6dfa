"""Writes a file, and is killed at each of the calls to the system on the way: `killed_at.py PACKAGE FILE`.

The package's folder is named, and not imported as a whole: Keras takes seconds.
"""

import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

package = types.ModuleType("keras_remos")
package.__path__ = [sys.argv[1]]
sys.modules["keras_remos"] = package

from keras_remos.writing import replacing  # noqa: E402 (once the package is there)

OF_FILES = ("open", "os.", "fcntl.", "shutil.")


def write(file: Path) -> None:
    with replacing(file, overwrite=True) as temporary, temporary.open("w") as opened:
        opened.write("new")
        opened.flush()
        opened.write("er")


def dies_at(step: int) -> Any:
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event.startswith(OF_FILES) and event != "os.kill":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def main(file: Path) -> None:
    """Kills one child after another, each a step later; tells how many steps there are, and what was wrong."""
    wrong: list[str] = []
    step, over = 0, False
    write(file)  # imports what there is to be imported
    while not over:
        file.write_text("old")
        child = os.fork()
        if child == 0:
            sys.addaudithook(dies_at(step))
            write(file)
            os._exit(0)
        over = os.waitpid(child, 0)[1] == 0
        found = file.read_text()
        if found not in ("old", "newer") or (over and found != "newer"):
            wrong.append(f"step {step}: {found!r} is in the file")
        # The next run, of whatever file there, leaves nothing of the dead one; and the same file can be written.
        write(file.with_name("other") if step % 2 else file)
        left = sorted(path.name for path in file.parent.iterdir() if path.name not in (file.name, "other"))
        if left:
            wrong.append(f"step {step}: {left} are left over")
        step += 1
    print(step, *wrong, sep="\n")


main(Path(sys.argv[2]))
