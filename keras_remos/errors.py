"""The errors that keras-remos raises on purpose: each says what was expected, what came and what to do.

Arguments stand in backquotes in messages, with or without a value: `overwrite=True`. The program puts the option of the
running command in their place. Messages name no option of the program themselves.
"""


class RemosError(ValueError):
    """Base class of every error that keras-remos raises on purpose."""


class TeacherError(RemosError):
    """The teacher cannot be opened, is not safe to open, or has nothing that can be sliced."""


class DataError(RemosError):
    """The data set is empty, damaged, or does not fit the model."""


class MismatchError(RemosError):
    """A profile, a slice and a model do not belong together."""


class FileError(RemosError):
    """A profile, slice or output file is damaged, of another kind, or must not be overwritten."""


class DivergedError(RemosError):
    """Training ended in NaN or infinity: mostly the learning rate is too high."""


class StudentError(RemosError):
    """The student cannot be built from this teacher in the way that was asked for."""
