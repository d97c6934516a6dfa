"""What strangers' files hold: opened within bounds, checked before it is used, and shown without its tricks."""

from keras_remos.untrusted.archives import (
    HEADER,
    RECORD,
    Space,
    format_of,
    holds_rows,
    open_rows,
    read_archive,
    read_archive_in_parts,
    read_header,
    read_own_arrays,
    read_record,
    rows_head,
)
from keras_remos.untrusted.containers import PathLike, check_regular, complete, digest_of, raised_as
from keras_remos.untrusted.printable import encodable, in_lines, is_unicode, printable
from keras_remos.untrusted.rows import Rows, pieces, room_for
from keras_remos.untrusted.schema import Between, Count, Figure, Marks, Seed, Share, check, check_seed

__all__ = [
    "HEADER",
    "RECORD",
    "Between",
    "Count",
    "Figure",
    "Marks",
    "PathLike",
    "Rows",
    "Seed",
    "Share",
    "Space",
    "check",
    "check_regular",
    "check_seed",
    "complete",
    "digest_of",
    "encodable",
    "format_of",
    "holds_rows",
    "in_lines",
    "is_unicode",
    "open_rows",
    "pieces",
    "printable",
    "raised_as",
    "read_archive",
    "read_archive_in_parts",
    "read_header",
    "read_own_arrays",
    "read_record",
    "room_for",
    "rows_head",
]
