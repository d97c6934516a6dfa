"""The lists of choices in the program, which may not import the library, against the library."""

import click
import pytest
from keras_remos_cli.main import COMMANDS, main

from keras_remos.coverage import CRITERIA
from keras_remos.data.images import DECODINGS
from keras_remos.data.kept import CACHES
from keras_remos.data.scaling import SCALINGS
from keras_remos.defects import DEFECTS
from keras_remos.defects.adversarial.coverage_guided import STRATEGIES
from keras_remos.defects.triggers.image import PLACES
from keras_remos.defects.triggers.text import POSITIONS
from keras_remos.evaluation.attackers import ADAPTIVE
from keras_remos.methods import METHODS
from keras_remos.slicing.presets import PRESETS

EXPECTED = {
    ("attack", "defect"): DEFECTS,
    ("audit", "defects"): [*DEFECTS, ADAPTIVE],
    ("attack", "criterion"): CRITERIA,
    ("attack", "strategy"): STRATEGIES,
    ("poison", "defect"): [name for name, kind in DEFECTS.items() if kind.plants],
    ("poison", "place"): PLACES,
    ("poison", "position"): POSITIONS,
    ("transfer", "method"): METHODS,
    ("transfer", "preset"): PRESETS,
    ("slice", "preset"): PRESETS,
    ("slice", "scaling"): SCALINGS,
    ("slice", "cache"): CACHES,
    ("slice", "decoding"): DECODINGS,
}


def options_of(command: str) -> dict[str, click.Parameter]:
    found = main.get_command(click.Context(main), command)
    assert found is not None
    return {option.name: option for option in found.params if option.name}


@pytest.mark.parametrize(("command", "option"), EXPECTED)
def test_choices_are_those_of_the_library(command: str, option: str) -> None:
    choice = options_of(command)[option].type
    assert isinstance(choice, click.Choice)
    assert set(choice.choices) == set(EXPECTED[command, option])


def test_no_option_of_a_method_or_attack_is_misspelt() -> None:
    """An option that goes on to a method or an attack by its name is one of theirs."""
    of_methods = {name for kind in METHODS.values() for name in kind.option_names()}
    assert {"preset", "keep_ratio", "feature_weight", "form", "prune_ratio", "keep_head"} <= of_methods
    of_attacks = {name for kind in DEFECTS.values() for name in kind.option_names()}
    given = {"epsilon", "steps", "step_size", "target", "neuron", "criterion", "strategy", "candidates"}
    assert given | {"min_similarity", "max_share", "swap_in", "test_count"} <= of_attacks
    assert set(options_of("attack")) >= given


def test_every_command_is_listed() -> None:
    assert set(COMMANDS) == set(main.list_commands(click.Context(main)))
