"""What a student inherits from its teacher: adversarial inputs and backdoors, each an attack with one signature."""

from keras_remos.defects.adversarial.coverage_guided import CoverageGuidedAttack
from keras_remos.defects.adversarial.displacement import DisplacementAttack
from keras_remos.defects.adversarial.penultimate import PenultimateAttack
from keras_remos.defects.adversarial.surrogate import SurrogateAttack
from keras_remos.defects.adversarial.transfer import TransferFGSM, TransferPGD
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.backdoors.latent import LatentBackdoor
from keras_remos.defects.backdoors.patch import PatchBackdoor
from keras_remos.defects.base import Defect
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.resuming import partial_beside
from keras_remos.defects.text_backdoors.poisoning import TextPoisoning
from keras_remos.defects.text_backdoors.weight_poisoning import WeightPoisoning
from keras_remos.defects.triggers.image import Trigger
from keras_remos.defects.triggers.text import TextTrigger
from keras_remos.defects.word_swaps.greedy import GreedySwap
from keras_remos.defects.word_swaps.importance import WordImportance
from keras_remos.defects.word_swaps.synonyms import SynonymSource, open_synonyms

DEFECTS: dict[str, type[Defect]] = {
    kind.name: kind
    for kind in (
        PenultimateAttack,
        DisplacementAttack,
        CoverageGuidedAttack,
        TransferFGSM,
        TransferPGD,
        SurrogateAttack,
        PatchBackdoor,
        LatentBackdoor,
        TextPoisoning,
        WeightPoisoning,
        WordImportance,
        GreedySwap,
    )
}
"""Every attack by its name."""

__all__ = [
    "DEFECTS",
    "AttackSet",
    "CoverageGuidedAttack",
    "Defect",
    "DisplacementAttack",
    "GreedySwap",
    "LatentBackdoor",
    "PatchBackdoor",
    "PenultimateAttack",
    "Prepared",
    "SurrogateAttack",
    "SynonymSource",
    "TextPoisoning",
    "TextTrigger",
    "TransferFGSM",
    "TransferPGD",
    "Trigger",
    "WeightPoisoning",
    "WordImportance",
    "open_synonyms",
    "partial_beside",
]
