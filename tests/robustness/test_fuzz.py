"""A few seconds of what `nox -s fuzz` does for an hour."""

from pathlib import Path

import pytest

from robustness import corpus, fuzz

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore")]


def test_damaged_files_end_in_one_line(tmp_path: Path) -> None:
    figures = fuzz.fuzz_files(corpus.make(tmp_path), tmp_path, range(12))
    assert not figures.faults
    assert figures.refused > figures.tried / 2
    assert figures.longest < 20


def test_arguments_that_nobody_would_type_end_in_one_line(tmp_path: Path) -> None:
    corpus.make(tmp_path)
    figures = fuzz.fuzz_arguments(tmp_path, range(40))
    assert not figures.faults
    assert 0 < figures.refused < figures.tried
