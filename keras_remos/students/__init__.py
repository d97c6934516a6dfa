"""Students in use: opened with what their files say, asked about new samples, and exported for other programs."""

from keras_remos.students.exporting import FORMATS, Exported, export_student
from keras_remos.students.predictions import Predictions
from keras_remos.students.student import Student, load_student

__all__ = ["FORMATS", "Exported", "Predictions", "Student", "export_student", "load_student"]
