"""Writes and is killed at each of the calls to the system on the way: `killed_at.py PACKAGE PLACE file|folder`.

The package's folder is named, and not imported as a whole: Keras takes seconds.
"""

import os
import shutil
import signal
import sys
import types
from pathlib import Path
from typing import Any

package = types.ModuleType("keras_remos")
package.__path__ = [sys.argv[1]]
sys.modules["keras_remos"] = package

from keras_remos.writing import replacing, replacing_folder  # noqa: E402 (once the package is there)

OF_FILES = ("open", "os.", "fcntl.", "shutil.")


def write(file: Path) -> None:
    with replacing(file, overwrite=True) as temporary, temporary.open("w") as opened:
        opened.write("new")
        opened.flush()
        opened.write("er")


def write_folder(folder: Path) -> None:
    with replacing_folder(folder, is_ours=lambda found: True, overwrite=True) as made:
        (made / "in").mkdir()
        (made / "in" / "text").write_text("newer")
        (made / "text").write_text("newer")


def read_folder(folder: Path) -> str:
    texts = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return {("old", 1): "old", ("newer", 2): "newer"}.get((texts.get("text", ""), len(texts)), f"{texts}")


def dies_at(step: int) -> Any:
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event.startswith(OF_FILES) and event != "os.kill":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def main(place: Path, kind: str) -> None:
    """Kills one child after another, each a step later; tells how many steps there are, and what was wrong."""
    wrong: list[str] = []
    step, over = 0, False
    made, read = (write, Path.read_text) if kind == "file" else (write_folder, read_folder)
    made(place)  # imports what there is to be imported
    while not over:
        if kind == "file":
            place.write_text("old")
        else:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            (place / "text").write_text("old")
        child = os.fork()
        if child == 0:
            sys.addaudithook(dies_at(step))
            made(place)
            os._exit(0)
        over = os.waitpid(child, 0)[1] == 0
        # The next run, of whatever file there, leaves nothing of the dead one; and the same file can be written. A
        # folder may be there only from then on.
        states = [read(place)] if kind == "file" else []
        if step % 2:
            write(place.with_name("other"))
            states.append(read(place))
        else:
            made(place)
            assert read(place) == "newer"
        wrong += [f"step {step}: {found!r} is there" for found in states if found not in ("old", "newer")]
        if over and "old" in states:
            wrong.append(f"step {step}: the old one is there")
        left = sorted(path.name for path in place.parent.iterdir() if path.name not in (place.name, "other"))
        if left:
            wrong.append(f"step {step}: {left} are left over")
        step += 1
    print(step, *wrong, sep="\n")


main(Path(sys.argv[2]), sys.argv[3])
