"""`ReadAhead`: several threads read one thing after the other, some of it before it is asked for."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# After so many seconds in which nobody asked for anything the threads end: whoever asked may be gone.
_PATIENCE = 1.0
# An interrupt has to wait for as long where a lock cannot be interrupted (Windows).
_PAUSE = 0.2


class ReadAhead:
    """Reads what it is asked for in the order in which it is asked, whatever the number of threads.

    Threads are there only while there is something to read, and end with the program. What goes wrong while one thing
    is read goes wrong when that is asked for.

    Args:
        read: Reads one thing, by its number. Threads call it side by side.
        workers: How many threads read at a time, the one that asks being one of them. With 1 there are no others, and
            nothing is read before it is asked for.
    """

    # Not those that Keras starts for `PyDataset.workers`: they outlive an interrupt, and read before an epoch begins.

    def __init__(self, read: Callable[[int], Any], workers: int) -> None:
        self._read = read
        self._workers = workers
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._expected: Sequence[int] = ()
        self._wanted: set[int] = set()
        # To be read, the most urgent first; what a thread is reading; and what came of it: a value, or an error.
        self._waiting: deque[int] = deque()
        self._being_read: set[int] = set()
        self._done: dict[int, tuple[Any, Exception | None]] = {}
        self._threads = 0
        self._asked = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadAhead, (self._read, self._workers)

    def expect(self, numbers: Sequence[int]) -> None:
        """Says what will be asked for after the next `get`. That begins to read it, once all that it needs is read."""
        self._expected = numbers

    def get(self, numbers: Sequence[int]) -> Iterator[Any]:
        """Yields what was read, in this order.

        Raises:
            Exception: Whatever `read` raised, in the place of what it was to read.
        """
        if self._workers == 1:
            yield from map(self._read, numbers)
            return
        if os.getpid() != self._process:
            self._begin()  # a fork, where none of the threads is
        self._plan(numbers)
        try:
            for number in numbers:
                yield self._wait_for(number)
        except BaseException:
            self._forget()
            raise

    def _plan(self, numbers: Sequence[int]) -> None:
        order = dict.fromkeys([*numbers, *self._expected])
        self._expected = ()
        with self._changed:
            self._wanted = set(order)
            self._done = {number: found for number, found in self._done.items() if number in order}
            self._waiting = deque(
                number for number in order if number not in self._done and number not in self._being_read
            )
            # Here too: all that is asked for may be there already.
            self._start_threads()

    def _forget(self) -> None:
        with self._changed:
            self._waiting.clear()
            self._done.clear()
            self._wanted = set()

    def _wait_for(self, number: int) -> Any:
        while True:
            with self._changed:
                if number in self._done:
                    value, error = self._done.pop(number)
                    break
                self._start_threads()
                if self._waiting:
                    mine = self._waiting.popleft()
                elif number not in self._being_read:  # somebody else asked for something else meanwhile
                    mine = number
                else:
                    self._changed.wait(_PAUSE)
                    continue
            value, error = self._outcome(mine)
            if mine == number:
                break
            self._put(mine, value, error)
        if error is not None:
            raise error
        return value

    def _outcome(self, number: int) -> tuple[Any, Exception | None]:
        try:
            return self._read(number), None
        except Exception as error:
            return None, error

    def _put(self, number: int, value: Any, error: Exception | None) -> None:
        with self._changed:
            self._being_read.discard(number)
            if number in self._wanted:
                self._done[number] = value, error
            self._changed.notify_all()

    def _start_threads(self) -> None:
        self._asked = time.monotonic()
        with contextlib.suppress(RuntimeError):  # the system gives no more, or the program ends
            while self._threads < min(self._workers - 1, len(self._waiting)):
                # Counted before it is there, as it counts itself out: an interrupt may come between.
                self._threads += 1
                try:
                    threading.Thread(target=self._work, name="keras-remos reads ahead").start()
                except RuntimeError:
                    self._threads -= 1
                    raise

    def _work(self) -> None:
        while True:
            with self._changed:
                is_left = time.monotonic() - self._asked > _PATIENCE or not threading.main_thread().is_alive()
                if is_left or not self._waiting:
                    self._threads -= 1
                    return
                number = self._waiting.popleft()
                self._being_read.add(number)
            self._put(number, *self._outcome(number))


def usual_workers() -> int:
    """As many threads as this process has cores, and no more than 8: above that they wait for Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)
