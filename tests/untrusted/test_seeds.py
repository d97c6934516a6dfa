"""A seed that no file may hold is refused before anything is drawn by it: what was made could never be read again."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from planted import SPACE, images, teacher

import keras_remos as kr
from keras_remos.data.parts import set_aside
from keras_remos.evaluation import measure, tradeoff
from keras_remos.untrusted import check_seed

pytestmark = pytest.mark.once
DATA = images(30, seed=5)


@pytest.mark.parametrize("seed", [-1, 2**128 + 1, pytest.param(10**5000, id="long"), 0.5, "1", None, math.nan])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(kr.RemosError, match="`seed` must be a whole number from 0 to"):
        check_seed(seed)


def test_what_is_one() -> None:
    for seed in (0, 2**128, np.int64(3)):
        check_seed(seed)


@pytest.mark.parametrize(
    "made",
    [
        lambda seed: kr.train("finetune", teacher(), DATA, seed=seed),
        lambda seed: kr.RelevantSlicer(teacher(), keep_ratio=0.5).apply(DATA[0], num_classes=3, seed=seed),
        lambda seed: kr.PenultimateAttack().prepare(teacher(), space=SPACE, seed=seed),
        lambda seed: kr.PenultimateAttack().inputs(kr.Prepared(teacher(), SPACE), *DATA, seed=seed),
        lambda seed: kr.PatchBackdoor().prepare(teacher(), DATA, space=SPACE, seed=seed),
        lambda seed: kr.audit(teacher(), {}, DATA, train=DATA, space=SPACE, seed=seed),
        # Attackers take the next one.
        lambda seed: kr.audit(teacher(), {}, DATA, train=DATA, space=SPACE, seed=abs(seed) - 1),
        lambda seed: measure({"a": (teacher(), SPACE)}, *DATA, {}, seed=seed),
        lambda seed: tradeoff(teacher(), DATA, space=SPACE, seed=seed),
        lambda seed: set_aside(DATA, 0.5, seed=seed),
    ],
)
@pytest.mark.filterwarnings("ignore:Criterion")
def test_no_door_is_open_to_others(made: Callable[[int], Any]) -> None:
    with pytest.raises(kr.RemosError, match="`seed` must be"):
        made(2**128 + 1)


def test_a_budget_that_is_no_number_is_refused() -> None:
    with pytest.raises(kr.RemosError, match="`budget`"):
        kr.train("finetune", teacher(), DATA, budget=math.nan)
