"""Files are written whole or not at all, by one writer at a time, and nothing but files is replaced."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import keras_remos
from keras_remos import FileError, writing
from keras_remos.writing import check_folder, check_writable, replacing, replacing_folder, reserved, reserved_folder

pytestmark = pytest.mark.once

posix = pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and permissions")


def write(path: Path, text: str = "new", *, overwrite: bool = False) -> None:
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(text)


def write_folder(path: Path, text: str = "new", *, overwrite: bool = False, fails: bool = False) -> None:
    with replacing_folder(path, is_ours=lambda found: (found / "mark").is_file(), overwrite=overwrite) as made:
        (made / "mark").write_text(text)
        if fails:
            raise KeyboardInterrupt


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_file_appears_whole_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write(file, "old")
    with pytest.raises(FileError, match="exists already"):
        write(file)
    with pytest.raises(KeyboardInterrupt):
        with replacing(file, overwrite=True) as temporary:
            temporary.write_text("half")
            # As Keras does where memory is short.
            (temporary.parent / "tmp123").write_text("beside it")
            raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert not hidden(tmp_path)
    write(file, overwrite=True)
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@posix
def test_what_is_no_file_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, circle, folder = tmp_path / "pipe", tmp_path / "circle", tmp_path / "folder"
    os.mkfifo(pipe)
    circle.symlink_to(circle)
    folder.mkdir()
    (tmp_path / "to-device").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        server.bind("socket")
        for path, reason in {
            pipe: "a pipe",
            tmp_path / "socket": "a socket",
            Path(os.devnull): "a device",
            tmp_path / "to-device": "a device",
            circle: "a circle",
            folder: "a folder",
            tmp_path / "none" / "file": "does not exist",
            pipe / "file": "does not exist",
            tmp_path / ("n" * 256): "too long",
        }.items():
            for overwrite in (False, True):
                with pytest.raises(FileError, match=reason):
                    check_writable(path, overwrite=overwrite)
                with pytest.raises(FileError, match=reason):
                    write(path, overwrite=overwrite)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert not hidden(tmp_path)


@posix
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    file, link, nowhere = tmp_path / "runs" / "3", tmp_path / "latest", tmp_path / "nowhere"
    file.write_text("old")
    link.symlink_to("runs/3")
    with pytest.raises(FileError, match="latest exists already"):
        write(link)
    write(link, overwrite=True)
    assert link.is_symlink() and file.read_text() == "new"
    nowhere.symlink_to("runs/4")
    write(nowhere)
    assert nowhere.is_symlink() and (tmp_path / "runs" / "4").read_text() == "new"
    with reserved(link, overwrite=True), pytest.raises(FileError, match="written twice"):
        with reserved(file, overwrite=True):
            pass
    assert not hidden(tmp_path / "runs")


@posix
@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o755])
def test_a_file_keeps_its_permissions_and_a_new_one_has_the_usual(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write(file, "old")
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        file.chmod(mode)
        write(file, overwrite=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == mode


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write(file, "old")
    os.chown(file, 12345, 12346)
    write(file, overwrite=True)
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)


@pytest.mark.parametrize("length", [246, 250, 255])
def test_names_may_be_as_long_as_the_disk_takes_them(tmp_path: Path, length: int) -> None:
    file = tmp_path / ("é" * (length // 4) + "n" * (length - 2 * (length // 4)))
    assert len(os.fsencode(file.name)) == length
    write(file)
    write(file, "newer", overwrite=True)
    assert file.read_text() == "newer"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_second_writer_is_refused_while_the_first_one_lives(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="needs locks")
    file = tmp_path / "file"
    write_it = write if kind == "file" else write_folder
    first_does = "reserved(sys.argv[1])" if kind == "file" else "replacing_folder(sys.argv[1], is_ours=bool)"
    code = (
        "import sys, types\n"
        # Keras takes seconds.
        "sys.modules['keras_remos'] = package = types.ModuleType('keras_remos')\n"
        f"package.__path__ = [{str(Path(keras_remos.__file__).parent)!r}]\n"
        "from keras_remos.writing import replacing_folder, reserved\n"
        f"with {first_does}:\n    print('mine', flush=True)\n    sys.stdin.read()\n    sys.exit(1)\n"
    )
    for killed in (False, True):
        with subprocess.Popen(
            [sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as first:
            assert first.stdout is not None and first.stdout.readline() == "mine\n"
            with pytest.raises(FileError, match="being written by another run"):
                write_it(file)
            # Nor is what it has there swept away.
            write(tmp_path / "other", overwrite=True)
            assert len(hidden(tmp_path)) == 1
            if killed:
                first.kill()
            first.communicate()
        assert len(hidden(tmp_path)) == killed
    # What the dead one left goes when the next writer comes, whatever it writes.
    write(tmp_path / "other", overwrite=True)
    assert not hidden(tmp_path)
    write_it(file)
    assert (file if kind == "file" else file / "mark").read_text() == "new"


@posix
def test_somebody_elses_folder_is_not_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl", reason="needs locks")
    with reserved(tmp_path / "file"):
        [name] = hidden(tmp_path)
    (tmp_path / name).mkdir(mode=0o777)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for _ in range(2):
        with reserved(tmp_path / "file", overwrite=True):
            assert len(hidden(tmp_path)) == 2
            write(tmp_path / "file", overwrite=True)
        assert not list((tmp_path / name).iterdir())
    # Nor is it removed.
    assert hidden(tmp_path) == [name]


def test_without_locks_files_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        def flock(self, *arguments: int) -> None:
            raise OSError("No locks available")

    for locks in (NoLocks(), None):
        monkeypatch.setattr(writing.hidden, "fcntl", locks)
        with reserved(tmp_path / "file", overwrite=True):
            write(tmp_path / "other", overwrite=True)
            write(tmp_path / "file", overwrite=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]


def test_a_folder_is_looked_at_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_folder(tmp_path / "a" / "b", "Checkpoints")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path in (tmp_path / "file", tmp_path / "file" / "in", tmp_path / ("n" * 256)):
        with pytest.raises(FileError, match="Checkpoints need a folder"):
            check_folder(path, "Checkpoints")


def test_a_folder_is_replaced_whole_and_only_if_it_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "deeper" / "out"
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, "half", fails=True)
    assert not folder.exists() and not hidden(folder.parent)
    write_folder(folder, "old")
    with pytest.raises(FileError, match="exists already. Choose another name, or let it be replaced"):
        write_folder(folder)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, "half", overwrite=True, fails=True)
    assert (folder / "mark").read_text() == "old"
    folder.chmod(0o750)
    write_folder(folder, overwrite=True)
    assert (folder / "mark").read_text() == "new" and not hidden(folder.parent)
    assert os.name != "posix" or stat.S_IMODE(folder.stat().st_mode) == 0o750
    (folder / "mark").rename(folder / "mine")
    with pytest.raises(FileError, match="no folder that could be replaced"):
        write_folder(folder, overwrite=True)
    assert (folder / "mine").read_text() == "new"


def test_a_reserved_folder_is_written_and_no_other_writer_begins(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with reserved_folder(folder, is_ours=bool):
        with pytest.raises(FileError, match="written twice"), reserved_folder(folder, is_ours=bool):
            pass
        write_folder(folder)
        assert len(hidden(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_came_into_a_folder_while_another_was_made_is_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_folder(folder, "old")
    with pytest.raises(FileError, match="no folder that could be replaced"):
        with replacing_folder(folder, is_ours=lambda found: len(list(found.iterdir())) == 1, overwrite=True):
            (folder / "thesis").write_text("a year")
    assert sorted(path.name for path in folder.iterdir()) == ["mark", "thesis"]
    assert not hidden(tmp_path)


@pytest.mark.parametrize("locks", [True, False])
def test_an_old_folder_goes_back_if_the_new_one_cannot_come(
    locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plain = tmp_path / "out", Path.rename

    def fails(old: Path, new: Path) -> Path:
        if new == folder and not (old / "old").exists():
            raise OSError("no")
        return plain(old, new)

    if not locks:
        monkeypatch.setattr(writing.hidden, "fcntl", None)
    write_folder(folder, "old")
    (folder / "old").touch()
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(FileError, match="out cannot be written .no."):
        write_folder(folder, overwrite=True)
    assert (folder / "mark").read_text() == "old"
    assert not hidden(tmp_path)


@posix
def test_nothing_but_what_was_to_be_replaced_comes_out_of_a_hidden_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="needs locks")
    with reserved(tmp_path / "file"):
        [name] = hidden(tmp_path)
    # As an archive of a stranger's may hold it.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("a year")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / name).mkdir()
    (tmp_path / "here" / name / "lock").touch()
    (tmp_path / "here" / name / "before").symlink_to(tmp_path / "mine")
    write(tmp_path / "here" / "other")
    assert (tmp_path / "mine" / "thesis").read_text() == "a year"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["other"]


def test_who_was_before_is_seen_once_the_lock_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, plain = tmp_path / "file", writing.in_place.take

    def waits(*arguments: Path) -> tuple[Path, int | None]:
        file.write_text("the other's")
        return plain(*arguments)

    monkeypatch.setattr(writing.in_place, "take", waits)
    with pytest.raises(FileError, match="exists already"), reserved(file):
        raise AssertionError("there is work to be done")
    assert not hidden(tmp_path)
