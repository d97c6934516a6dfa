"""Start a student from only the part of a pretrained teacher that its task needs (ReMoS, ICSE 2022)."""

from keras_remos.backend import select_backend

select_backend()

from keras_remos.coverage.criteria import Criterion, NeuronCoverage, StrongCoverage, TopKCoverage  # noqa: E402 (Keras reads its backend when it is imported)
from keras_remos.coverage.profile import CoverageProfile, profile  # noqa: E402
from keras_remos.data import MatchedDataset, PixelSpace, open_dataset, open_for_model  # noqa: E402
from keras_remos.defects import (  # noqa: E402
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
from keras_remos.errors import (  # noqa: E402
    DataError,
    DivergedError,
    FileError,
    MismatchError,
    RemosError,
    StudentError,
    TeacherError,
)
from keras_remos.evaluation.attackers import Attacker  # noqa: E402
from keras_remos.evaluation.audit import AuditReport, Controls, audit  # noqa: E402
from keras_remos.evaluation.inheritance import InheritanceReport, measure  # noqa: E402
from keras_remos.evaluation.tradeoff import Tradeoff, tradeoff  # noqa: E402
from keras_remos.methods import METHODS, Hardening, Method, recipe_of, train, tune_keep_ratio, tune_recipe  # noqa: E402
from keras_remos.models.description import ModelDescription, describe_model  # noqa: E402
from keras_remos.models.features import FeatureExtractor, find_features  # noqa: E402
from keras_remos.models.input_gradients import value_and_grad, value_and_grad_at  # noqa: E402
from keras_remos.models.loading import load_teacher  # noqa: E402
from keras_remos.models.taps import capture  # noqa: E402
from keras_remos.report import write_report  # noqa: E402
from keras_remos.slicing.presets import PRESETS, Preset  # noqa: E402
from keras_remos.slicing.relevant_slice import RelevantSlice  # noqa: E402
from keras_remos.slicing.slicer import RelevantSlicer  # noqa: E402
from keras_remos.training.recipe import Recipe  # noqa: E402
from keras_remos.training.student_file import save_student  # noqa: E402
from keras_remos.training.trained import Trained  # noqa: E402
from keras_remos.version import __version__  # noqa: E402, F401

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
    "FileError",
    "GreedySwap",
    "Hardening",
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
    "Prepared",
    "Preset",
    "Recipe",
    "RelevantSlice",
    "RelevantSlicer",
    "RemosError",
    "StrongCoverage",
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
    "find_features",
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
