"""The three presets: how a slice is chosen, from coverage to share."""

from dataclasses import dataclass, replace

from keras_remos.activations import NeuronSite
from keras_remos.coverage import Criterion, NeuronCoverage
from keras_remos.errors import RemosError
from keras_remos.scoring import Scope, Ties, check_keep_ratio


@dataclass(frozen=True)
class Preset:
    """How a slice is chosen, from coverage to share.

    Args:
        criterion: When a neuron is covered.
        on: Where neurons are read.
        count_padding: Whether padding tokens count.
        scope: `"layer"` ranks the weights of each kernel among themselves, `"model"` all together.
        ties: `"average"` gives equal values the average rank; `"order"` ranks them as the released code does.
        keep_ratio: The paper's theta: the share of weights kept.
        embeddings: Whether the rows of tokens that no sample contains are reset.
    """

    criterion: Criterion
    on: NeuronSite
    count_padding: bool
    scope: Scope
    ties: Ties
    keep_ratio: float
    embeddings: bool

    def __post_init__(self) -> None:
        check_keep_ratio(self.keep_ratio)
        for option, choices in (
            ("on", ("activation", "output")),
            ("scope", ("layer", "model")),
            ("ties", ("average", "order")),
        ):
            if getattr(self, option) not in choices:
                raise RemosError(f"{option} must be one of {choices}, received {getattr(self, option)!r}.")


PRESETS: dict[str, Preset] = {
    "recommended": Preset(NeuronCoverage(0.0, "none", "share"), "activation", False, "layer", "average", 0.95, True),
    "paper": Preset(NeuronCoverage(0.0, "none", "share"), "activation", False, "model", "average", 0.9, False),
    "artifact": Preset(NeuronCoverage(0.5, "minmax", "mean"), "output", True, "model", "order", 0.9, False),
}

FOR_LANGUAGE: dict[str, Preset] = {
    "recommended": replace(PRESETS["recommended"], criterion=NeuronCoverage(0.5, "minmax", "mean")),
}
"""Where a preset differs for models of tokens. Few of their layers end in a ReLU, so that being above 0 says little."""


def find_preset(name: str, *, language: bool) -> Preset:
    """A preset by its name.

    Args:
        name: A key of `PRESETS`.
        language: Whether the model takes tokens.

    Raises:
        RemosError: If there is no such preset.
    """
    if name not in PRESETS:
        raise RemosError(f"Unknown preset {name!r}: expected one of {sorted(PRESETS)}.")
    return FOR_LANGUAGE.get(name, PRESETS[name]) if language else PRESETS[name]
