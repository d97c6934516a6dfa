"""How a slice is chosen, from coverage to share: three presets, and where one differs for models of tokens."""

from dataclasses import dataclass, replace

from keras_remos.coverage.criteria import LARGE, POSITIVE, Criterion, NeuronCoverage
from keras_remos.errors import RemosError
from keras_remos.models.placement import NeuronSite
from keras_remos.slicing.scores import Scope, Ties, check_keep_ratio, check_layer_limit


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
        layer_limit: With scope `"model"`, no kernel loses a larger share of its weights than so many times
            `1 - keep_ratio`. `None` sets no limit.
        embeddings: Whether the rows of tokens that no sample contains are reset.
    """

    criterion: Criterion
    on: NeuronSite
    count_padding: bool
    scope: Scope
    ties: Ties
    keep_ratio: float
    layer_limit: float | None
    embeddings: bool

    def __post_init__(self) -> None:
        check_keep_ratio(self.keep_ratio)
        check_layer_limit(self.layer_limit)
        for option, choices in (
            ("on", ("activation", "output")),
            ("scope", ("layer", "model")),
            ("ties", ("average", "order")),
        ):
            if getattr(self, option) not in choices:
                raise RemosError(f"`{option}` must be one of {choices}, received {getattr(self, option)!r}.")


_SCALED_MEAN = NeuronCoverage(threshold=0.5, scale="minmax", positions="mean")

PRESETS: dict[str, Preset] = {
    "recommended": Preset(POSITIVE, "activation", False, "model", "average", 0.9, 2.0, True),
    "paper": Preset(POSITIVE, "activation", False, "model", "average", 0.9, None, False),
    "artifact": Preset(_SCALED_MEAN, "output", True, "model", "order", 0.9, None, False),
}
"""The ways in which a slice is chosen: `"recommended"`, what our measurements say is best; `"paper"`, Eq. 3 to 11 read
literally; `"artifact"`, what the authors' released code does. See `FOR_LANGUAGE` for models of tokens."""

FOR_LANGUAGE: dict[str, Preset] = {
    "recommended": replace(PRESETS["recommended"], criterion=LARGE, scope="layer", layer_limit=None, keep_ratio=0.95),
}
"""Where a preset differs for models of tokens: see `LARGE`. They need more of the teacher, too."""


def find_preset(name: str, *, language: bool) -> Preset:
    """A preset by its name.

    Args:
        name: A key of `PRESETS`.
        language: Whether the model's main computation runs on tokens (see `runs_on_tokens`).

    Raises:
        RemosError: If there is no such preset.
    """
    if name not in PRESETS:
        raise RemosError(f"Unknown preset {name!r}: expected one of {sorted(PRESETS)}.")
    return FOR_LANGUAGE.get(name, PRESETS[name]) if language else PRESETS[name]
