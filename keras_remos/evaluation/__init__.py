"""How good a student is, and how much of its teacher's defects it inherited."""

from keras_remos.evaluation.attackers import Attacker
from keras_remos.evaluation.audit import AuditReport, Controls, audit
from keras_remos.evaluation.inheritance import InheritanceReport, Inherited, measure
from keras_remos.evaluation.metrics import Estimate, Rate, accuracy, flip_rate, paired_bootstrap, target_rate
from keras_remos.evaluation.predictions import predict_classes

__all__ = [
    "Attacker",
    "AuditReport",
    "Controls",
    "Estimate",
    "InheritanceReport",
    "Inherited",
    "Rate",
    "accuracy",
    "audit",
    "flip_rate",
    "measure",
    "paired_bootstrap",
    "predict_classes",
    "target_rate",
]
