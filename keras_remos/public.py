"""The public names, from where they are defined: `keras_remos` hands them out."""

from keras_remos.coverage.criteria import Criterion, NeuronCoverage, StrongCoverage, TopKCoverage
from keras_remos.coverage.profile import CoverageProfile
from keras_remos.coverage.profiler import profile
from keras_remos.data import MatchedDataset, PixelSpace, open_dataset, open_for_model
from keras_remos.defects import (
    DEFECTS,
    AttackSet,
    CoverageGuidedAttack,
    Defect,
    DisplacementAttack,
    GreedySwap,
    LatentBackdoor,
    PatchBackdoor,
    PenultimateAttack,
    Prepared,
    SurrogateAttack,
    TextPoisoning,
    TextTrigger,
    TransferFGSM,
    TransferPGD,
    Trigger,
    WeightPoisoning,
    WordImportance,
    open_synonyms,
)
from keras_remos.errors import (
    DataError,
    DivergedError,
    FileError,
    MismatchError,
    RemosError,
    StudentError,
    TeacherError,
)
from keras_remos.evaluation.attackers import Attacker
from keras_remos.evaluation.audit import audit
from keras_remos.evaluation.audit_report import AuditReport
from keras_remos.evaluation.controls import Controls
from keras_remos.evaluation.inheritance import InheritanceReport
from keras_remos.evaluation.measuring import measure
from keras_remos.evaluation.monitor import InheritanceMonitor
from keras_remos.evaluation.tradeoff import Tradeoff, tradeoff
from keras_remos.inspection import FileDescription, inspect_file
from keras_remos.methods import METHODS, Hardening, Method, recipe_of, train, tune_keep_ratio, tune_recipe
from keras_remos.models.description import ModelDescription, describe_model
from keras_remos.models.features import FeatureExtractor, find_features
from keras_remos.models.input_gradients import value_and_grad, value_and_grad_at
from keras_remos.models.loading import load_teacher
from keras_remos.models.taps import capture
from keras_remos.report import write_report
from keras_remos.slicing.presets import PRESETS, Preset
from keras_remos.slicing.relevant_slice import RelevantSlice
from keras_remos.slicing.slicer import RelevantSlicer
from keras_remos.students import Predictions, Student, export_student, load_student
from keras_remos.training.recipe import Recipe
from keras_remos.training.student_file import save_student
from keras_remos.training.trained import Trained

__all__ = [
    "DEFECTS",
    "METHODS",
    "PRESETS",
    "AttackSet",
    "Attacker",
    "AuditReport",
    "Controls",
    "CoverageGuidedAttack",
    "CoverageProfile",
    "Criterion",
    "DataError",
    "Defect",
    "DisplacementAttack",
    "DivergedError",
    "FeatureExtractor",
    "FileDescription",
    "FileError",
    "GreedySwap",
    "Hardening",
    "InheritanceMonitor",
    "InheritanceReport",
    "LatentBackdoor",
    "MatchedDataset",
    "Method",
    "MismatchError",
    "ModelDescription",
    "NeuronCoverage",
    "PatchBackdoor",
    "PenultimateAttack",
    "PixelSpace",
    "Predictions",
    "Prepared",
    "Preset",
    "Recipe",
    "RelevantSlice",
    "RelevantSlicer",
    "RemosError",
    "StrongCoverage",
    "Student",
    "StudentError",
    "SurrogateAttack",
    "TeacherError",
    "TextPoisoning",
    "TextTrigger",
    "TopKCoverage",
    "Tradeoff",
    "Trained",
    "TransferFGSM",
    "TransferPGD",
    "Trigger",
    "WeightPoisoning",
    "WordImportance",
    "audit",
    "capture",
    "describe_model",
    "export_student",
    "find_features",
    "inspect_file",
    "load_student",
    "load_teacher",
    "measure",
    "open_dataset",
    "open_for_model",
    "open_synonyms",
    "profile",
    "recipe_of",
    "save_student",
    "tradeoff",
    "train",
    "tune_keep_ratio",
    "tune_recipe",
    "value_and_grad",
    "value_and_grad_at",
    "write_report",
]
