"""What strangers' files hold: opened within bounds, checked before it is used, and shown without its tricks."""

from keras_remos.untrusted.archives import (
    HEADER,
    RECORD,
    Space,
    format_of,
    read_archive,
    read_own_arrays,
    read_record,
)
from keras_remos.untrusted.containers import PathLike, check_regular, complete, digest_of, raised_as
from keras_remos.untrusted.printable import encodable, in_lines, is_unicode, printable
from keras_remos.untrusted.schema import Between, Count, Figure, Marks, Seed, Share, check

__all__ = [
    "HEADER",
    "RECORD",
    "Between",
    "Count",
    "Figure",
    "Marks",
    "PathLike",
    "Seed",
    "Share",
    "Space",
    "check",
    "check_regular",
    "complete",
    "digest_of",
    "encodable",
    "format_of",
    "in_lines",
    "is_unicode",
    "printable",
    "raised_as",
    "read_archive",
    "read_own_arrays",
    "read_record",
]
