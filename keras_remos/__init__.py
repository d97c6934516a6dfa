"""Start a student from only the part of a pretrained teacher that its task needs (ReMoS, ICSE 2022)."""

from keras_remos.backend import select_backend

select_backend()

from keras_remos.activations import capture  # noqa: E402 (Keras reads its backend when it is imported)
from keras_remos.coverage import Criterion, NeuronCoverage, StrongCoverage, TopKCoverage  # noqa: E402
from keras_remos.data import MatchedDataset, PixelSpace, open_dataset, open_for_model  # noqa: E402
from keras_remos.defects import AttackSet, Prepared, Trigger  # noqa: E402
from keras_remos.errors import (  # noqa: E402
    DataError,
    FileError,
    MismatchError,
    RemosError,
    StudentError,
    TeacherError,
)
from keras_remos.evaluation import AuditReport, InheritanceReport, audit, measure  # noqa: E402
from keras_remos.features import FeatureExtractor, find_features  # noqa: E402
from keras_remos.gradients import value_and_grad, value_and_grad_at  # noqa: E402
from keras_remos.inspection import ModelDescription, describe_model  # noqa: E402
from keras_remos.methods import Recipe, Trained, train  # noqa: E402
from keras_remos.presets import PRESETS, Preset  # noqa: E402
from keras_remos.profiling import CoverageProfile, KernelCoverage, profile  # noqa: E402
from keras_remos.slices import LayerSummary, RelevantSlice  # noqa: E402
from keras_remos.slicing import RelevantSlicer  # noqa: E402
from keras_remos.teachers import load_teacher  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "AttackSet",
    "AuditReport",
    "CoverageProfile",
    "Criterion",
    "DataError",
    "FeatureExtractor",
    "FileError",
    "InheritanceReport",
    "KernelCoverage",
    "LayerSummary",
    "MatchedDataset",
    "MismatchError",
    "ModelDescription",
    "NeuronCoverage",
    "PixelSpace",
    "Prepared",
    "Preset",
    "Recipe",
    "RelevantSlice",
    "RelevantSlicer",
    "RemosError",
    "StrongCoverage",
    "StudentError",
    "TeacherError",
    "TopKCoverage",
    "Trained",
    "Trigger",
    "audit",
    "capture",
    "describe_model",
    "find_features",
    "load_teacher",
    "measure",
    "open_dataset",
    "open_for_model",
    "profile",
    "train",
    "value_and_grad",
    "value_and_grad_at",
]
