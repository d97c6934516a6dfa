"""What is shown where: bars on a terminal, lines in a log file that asked for them, one line in a notebook."""

import io
import sys
import time

import pytest
import rich.live
import terminals
from rich.console import Console

from keras_remos.progress import say, showing, track, track_epochs, track_named
from keras_remos.progress.displays import LONGEST_SILENCE, Bars
from keras_remos.progress.levels import Epochs, Level

pytestmark = pytest.mark.once


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which goes on when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Bars]:
    """The displays of bars, drawn by no thread."""
    made: list[Bars] = []
    usual = Bars.__init__

    def init(bars: Bars, console: Console) -> None:
        usual(bars, console)
        made.append(bars)

    monkeypatch.setattr(Bars, "__init__", init)
    monkeypatch.setattr(rich.live.Live, "refresh", lambda live: None)
    return made


def rows(bars: Bars) -> list[str]:
    """What stands in each row, without the bars."""
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(bars._drawn())
    return [" ".join(line.translate(dict.fromkeys(map(ord, "━╸╺"))).split()) for line in capture.get().splitlines()]


def go_through(verbose: bool | str = "auto") -> list[int]:
    with track([1, 2], total=2, description="Counting", verbose=verbose) as tracked:
        return list(tracked)


def test_a_log_file_stays_empty_unless_it_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminals.log_file(monkeypatch)
    # For Rich a file is a terminal then; CI sets it.
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert go_through() == go_through(verbose=False) == [1, 2]
    with showing(False):
        assert go_through() == [1, 2]
        say("Choosing takes long.")
    assert stream.getvalue() == ""
    say("Choosing takes long.")
    assert stream.getvalue() == "Choosing takes long.\n"


def test_loops_inside_each_other_are_rows_of_one_display(
    monkeypatch: pytest.MonkeyPatch, drawn: list[Bars], clock: list[float]
) -> None:
    terminals.terminal(monkeypatch)
    seen = []
    with track_named({"pgd": 1, "fgsm": 2}, description="Attack") as attacks:
        for _ in attacks:
            with track_epochs("Training (copy)", first=0, last=3, steps=10) as watched:
                assert watched is not None
                clock[0] += 2
                watched.step(0, 1)
                clock[0] += 1
                watched.step(0, 2)
                watched.see({"loss": 0.25, "accuracy": 0.5})
                seen.append(rows(drawn[0]))
    assert seen[0] == ["Attack 1 of 2: pgd", "Training (copy): epoch 1 of 3 2/10 0:28 left loss 0.25, accuracy 0.5"]
    assert seen[1][0] == "Attack 2 of 2: fgsm"
    assert len(drawn) == 1
    assert drawn[0].levels == []


def test_nothing_is_left_of_a_loop_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminals.terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError), track([0], total=1, description="Dividing") as tracked:
        for item in tracked:
            1 / item
    assert sys.stderr is stream
    hidden, shown = (stream.getvalue().rfind(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert 0 <= hidden < shown
    with track([1], total=1, description="Counting") as tracked:
        list(tracked)
    assert "Dividing" not in stream.getvalue()[shown:]


def test_results_go_where_they_belong_while_bars_are_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminals.terminal(monkeypatch)
    with track([1], total=1, description="Counting") as tracked:
        for _ in tracked:
            print("a result")
    assert capsys.readouterr().out == "a result\n"


def test_a_log_file_gets_a_line_an_epoch(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    stream = terminals.log_file(monkeypatch)
    with (
        showing(True),
        track_named({"a": 0, "b": 0}, description="Trial") as trials,
    ):
        for _ in trials:
            with track_epochs("Training (remos)", first=0, last=2, steps=5) as watched:
                assert watched is not None
                for epoch in range(2):
                    for step in range(5):
                        watched.step(epoch, step)
                        clock[0] += 4
                    watched.end(epoch, {"loss": 1 / (epoch + 1)})
    assert stream.getvalue().splitlines() == [
        "Trial 1 of 2: a",
        "Trial 1 of 2: a. Training (remos): epoch 1 of 2, loss 1, 0:20 left",
        "Trial 1 of 2: a. Training (remos): epoch 2 of 2, loss 0.5",
        "Trial 2 of 2: b. Training (remos): epoch 1 of 2, loss 1, 0:20 left",
        "Trial 2 of 2: b. Training (remos): epoch 2 of 2, loss 0.5",
    ]


def test_a_log_file_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    stream = terminals.log_file(monkeypatch)
    with track(range(300), total=300, description="Profiling", verbose=True) as tracked:
        for _ in tracked:
            clock[0] += 1
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Profiling, 60 of 300, 4:00 left"
    assert len(lines) == 300 // LONGEST_SILENCE


def test_short_epochs_do_not_flood_a_log_file(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    stream = terminals.log_file(monkeypatch)
    with track_epochs("Training (control)", first=0, last=1000, steps=1, verbose=True) as watched:
        assert watched is not None
        for epoch in range(1000):
            clock[0] += 0.01
            watched.end(epoch, {})
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 12
    assert lines[-1] == "Training (control): epoch 1000 of 1000"


def test_a_notebook_has_one_line_that_is_written_anew(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    written = terminals.notebook(monkeypatch)
    with track(range(1000), total=1000, description="Profiling") as tracked:
        for _ in tracked:
            clock[0] += 0.01
    assert len(written) <= 23
    assert written[0] == "Profiling"
    assert "Profiling, 52 of 1000, 0:09 left" in written
    assert written[-1] == "Profiling: done in 0:10"


def test_a_loop_that_fails_leaves_nothing_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminals.notebook(monkeypatch)
    with pytest.raises(ZeroDivisionError), track([0], total=1, description="Dividing") as tracked:
        for item in tracked:
            1 / item
    assert written[-1] == ""


def test_the_first_step_counts_for_nothing_once_there_are_others(clock: list[float]) -> None:
    level = Level("Attack", 11)
    assert level.left() is None
    clock[0] += 50
    level.reach(1)
    assert level.left() == 500
    clock[0] += 1
    level.reach(2)
    assert level.left() == 9
    clock[0] += 3
    assert level.left() == 6
    clock[0] += 6
    assert level.left() is None  # it takes longer than it did


def test_names_move_no_cursor() -> None:
    level = Level("Reading \x1b[2J", 2)
    level.begin("cat\nverified clean")
    epochs = Epochs("Training", 0, 1, 1)
    epochs.see({"dir\x07": 0.5})
    assert level.line() == r"Reading \x1b[2J 1 of 2: cat\x0averified clean"
    assert epochs.figures == r"dir\x07 0.5"


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, _Gone()], ids=["none", "gone"])
def test_nobody_who_reads_ends_no_work(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    for verbose in (True, "auto"):
        say("Something.", verbose=verbose)
        with track([1, 2], total=2, description="Work", verbose=verbose) as tracked:
            assert list(tracked) == [1, 2]
    assert not capsys.readouterr().out
