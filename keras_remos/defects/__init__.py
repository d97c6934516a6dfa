"""What a student inherits from its teacher: adversarial inputs and backdoors, each an attack with one signature."""

from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.base import Defect, Prepared
from keras_remos.defects.coverage_guided import CoverageGuidedAttack
from keras_remos.defects.greedy_swap import GreedySwap
from keras_remos.defects.latent_backdoor import LatentBackdoor
from keras_remos.defects.patch_backdoor import PatchBackdoor
from keras_remos.defects.penultimate import PenultimateAttack
from keras_remos.defects.text_poisoning import TextPoisoning
from keras_remos.defects.text_trigger import TextTrigger
from keras_remos.defects.transfer import TransferFGSM, TransferPGD
from keras_remos.defects.trigger import Trigger
from keras_remos.defects.weight_poisoning import WeightPoisoning
from keras_remos.defects.word_importance import WordImportance

DEFECTS: dict[str, type[Defect]] = {
    kind.name: kind
    for kind in (
        PenultimateAttack,
        CoverageGuidedAttack,
        TransferFGSM,
        TransferPGD,
        PatchBackdoor,
        LatentBackdoor,
        TextPoisoning,
        WeightPoisoning,
        WordImportance,
        GreedySwap,
    )
}

__all__ = [
    "DEFECTS",
    "AttackSet",
    "CoverageGuidedAttack",
    "Defect",
    "GreedySwap",
    "LatentBackdoor",
    "PatchBackdoor",
    "PenultimateAttack",
    "Prepared",
    "TextPoisoning",
    "TextTrigger",
    "TransferFGSM",
    "TransferPGD",
    "Trigger",
    "WeightPoisoning",
    "WordImportance",
]
