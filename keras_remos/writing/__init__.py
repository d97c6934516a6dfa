"""Writes files and folders whole or not at all: the one place that does.

What is to become a file grows in a hidden folder beside it, which only its writer may open, and takes the file's place
once it is complete and on the disk. The folder's name follows from the file's, and a lock lies in it: a second writer
of the same file is refused, and what a writer that was killed left behind goes when the next one comes. A folder is
written in the same way. No system puts one in another's place in a single step: the old one waits in the hidden folder
meanwhile, and goes back from there if the new one never came.
"""

from keras_remos.writing.checks import check_folder, check_writable
from keras_remos.writing.hidden import HIDDEN
from keras_remos.writing.in_place import full_disk, replacing, replacing_folder, reserved, reserved_folder

__all__ = [
    "HIDDEN",
    "check_folder",
    "check_writable",
    "full_disk",
    "replacing",
    "replacing_folder",
    "reserved",
    "reserved_folder",
]
