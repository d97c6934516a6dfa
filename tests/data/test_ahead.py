"""Reading ahead: the order is that of the asking, errors stay where they belong, and no thread outlives its use."""

import multiprocessing
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from keras_remos.data import ahead
from keras_remos.data.ahead import ReadAhead, usual_workers

pytestmark = pytest.mark.once


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "reads ahead" in thread.name]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    end = time.monotonic() + 2
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not threads()


def square(number: int) -> int:
    # The later the quicker: what is asked for first is done last.
    time.sleep(0.002 / (1 + number % 5))
    return number * number


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_what_is_read_comes_in_the_order_of_the_asking(workers: int) -> None:
    reader = ReadAhead(square, workers)
    for numbers in ([3, 1, 4, 15, 9, 2, 6], [], [5, 5, 5], list(range(40))):
        reader.expect([9, 2, 77])
        assert list(reader.get(numbers)) == [number * number for number in numbers]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_nothing_is_read_twice_and_what_is_expected_is_read_meanwhile(workers: int) -> None:
    calls: list[int] = []

    def read(number: int) -> int:
        calls.append(number)
        return number

    reader = ReadAhead(read, workers)
    for start in range(0, 60, 6):
        reader.expect(range(start + 6, min(start + 12, 60)))
        assert list(reader.get(range(start, start + 6))) == list(range(start, start + 6))
        end = time.monotonic() + 2
        while workers > 1 and len(calls) < min(start + 12, 60) and time.monotonic() < end:
            time.sleep(0.001)
        assert sorted(calls) == list(range(min(start + 6 if workers == 1 else start + 12, 60)))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_an_error_is_raised_where_what_caused_it_was_asked_for(workers: int) -> None:
    def read(number: int) -> int:
        if number == 7:
            raise ValueError("seven")
        return number

    reader = ReadAhead(read, workers)
    reader.expect(range(4, 10))
    assert list(reader.get(range(4))) == [0, 1, 2, 3]
    found = []
    with pytest.raises(ValueError, match="seven"):
        for value in reader.get(range(4, 10)):
            found.append(value)
    assert found == [4, 5, 6]
    assert list(reader.get([8, 9])) == [8, 9]


def test_an_interrupt_leaves_no_thread_and_the_reader_usable() -> None:
    """However much there would be to do: each takes the one thing that it reads to its end."""
    asking = threading.current_thread()

    def read(number: int) -> int:
        if number >= 20 and threading.current_thread() is asking:
            raise KeyboardInterrupt
        time.sleep(0.01)
        return number

    reader = ReadAhead(read, 3)
    with pytest.raises(KeyboardInterrupt):
        list(reader.get(range(1000)))
    begun = time.monotonic()
    while threads():
        time.sleep(0.005)
    assert time.monotonic() - begun < 1
    assert list(reader.get([1, 2, 3])) == [1, 2, 3]


def test_what_nobody_comes_for_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt elsewhere, as in a step of training, tells the threads nothing."""
    monkeypatch.setattr(ahead, "_PATIENCE", 0.05)
    calls: list[int] = []

    def read(number: int) -> int:
        calls.append(number)
        time.sleep(0.01)
        return number

    reader = ReadAhead(read, 2)
    reader.expect(range(1, 1000))
    assert list(reader.get([0])) == [0]
    while threads():
        time.sleep(0.01)
    assert 1 <= len(calls) < 100
    assert list(reader.get([1, 2])) == [1, 2]


def test_two_may_ask_at_once() -> None:
    reader = ReadAhead(square, 3)
    found: dict[int, list[int]] = {}

    def ask(start: int) -> None:
        found[start] = [value for turn in range(5) for value in reader.get(range(start + turn, start + turn + 9))]

    askers = [threading.Thread(target=ask, args=(start,)) for start in (0, 4, 100)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(20)
    for start, values in found.items():
        assert values == [number**2 for turn in range(5) for number in range(start + turn, start + turn + 9)]
    assert len(found) == 3


def test_without_threads_whoever_asks_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    reader = ReadAhead(square, 4)
    monkeypatch.setattr(threading.Thread, "start", start)
    reader.expect([4, 5])
    assert list(reader.get([1, 2, 3])) == [1, 4, 9]


def _squares(reader: ReadAhead, answers: Any) -> None:
    answers.put(list(reader.get([1, 2, 3])))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are made anew there, from what is pickled")
# Whoever asks Keras for processes has them made so.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # where JAX is
def test_a_forked_process_reads_as_well() -> None:
    reader = ReadAhead(square, 2)
    reader.expect(range(100))
    list(reader.get([1]))  # so threads are there
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_squares, args=(reader, answers))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert answers.get() == [1, 4, 9]


def test_it_can_be_pickled_and_has_as_many_threads_as_there_are_cores() -> None:
    assert list(pickle.loads(pickle.dumps(ReadAhead(square, 2))).get([2, 3])) == [4, 9]
    assert 1 <= usual_workers() <= 8
