"""How good a student is, and how much of its teacher's defects it inherited."""

from keras_remos.evaluation.attackers import Attacker
from keras_remos.evaluation.audit import audit
from keras_remos.evaluation.audit_report import AuditReport
from keras_remos.evaluation.controls import Controls
from keras_remos.evaluation.inheritance import InheritanceReport
from keras_remos.evaluation.inherited import Inherited, TeacherRow, Verdict
from keras_remos.evaluation.intervals import Estimate, over_seeds
from keras_remos.evaluation.measuring import measure
from keras_remos.evaluation.metrics import Rate, accuracy, flip_rate, paired_bootstrap, target_rate
from keras_remos.evaluation.predictions import predict_classes
from keras_remos.evaluation.teacher import try_trigger
from keras_remos.evaluation.tradeoff import Tradeoff, tradeoff
from keras_remos.evaluation.verdict import against_limits, unlike

__all__ = [
    "Attacker",
    "AuditReport",
    "Controls",
    "Estimate",
    "InheritanceReport",
    "Inherited",
    "Rate",
    "TeacherRow",
    "Tradeoff",
    "Verdict",
    "accuracy",
    "against_limits",
    "audit",
    "flip_rate",
    "measure",
    "over_seeds",
    "paired_bootstrap",
    "predict_classes",
    "target_rate",
    "tradeoff",
    "try_trigger",
    "unlike",
]
