"""Faults of a machine, for as long as a block lasts."""

import multiprocessing
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file may become larger: what the system says is what it says of a full disk, by another number."""
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    # Keras' loops count in memory that processes share, which is a file: of a process that has trained, it is there.
    multiprocessing.Value("i")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
