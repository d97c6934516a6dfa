"""What `describe_model` says of models that it has no data for."""

from typing import Any

import keras
import pytest
import toys
from keras import layers as kl
from keras import ops

from keras_remos import RemosError, describe_model


def positioned(longest: int) -> keras.Model:
    """As KerasHub's text models: positions are cut out of a table, which is as long as the longest sequence."""

    class Positions(kl.Layer):
        def build(self, x_shape: Any) -> None:
            self.table = self.add_weight(shape=(longest, x_shape[-1]), name="table")

        def call(self, x: Any) -> Any:
            return x + ops.reshape(self.table[: x.shape[1]], (1, x.shape[1], x.shape[2]))

        def compute_output_shape(self, x_shape: Any) -> Any:
            return x_shape

    x = keras.Input((None, 4))
    h = kl.Dense(5, activation="relu", name="dense")(Positions(name="positions")(x))
    return toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h))))


@pytest.mark.parametrize("longest", [1, 2, 3, 16])
def test_models_of_short_sequences_are_described(longest: int) -> None:
    assert [path for path, *_ in describe_model(positioned(longest)).kernels] == ["dense/kernel"]


def test_one_line_says_that_no_size_fits() -> None:
    x = keras.Input((None, 2))
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.Dense(5)(kl.Reshape((22,))(x)))))
    with pytest.raises(RemosError, match="cannot be described without an example.*profile it on data") as raised:
        describe_model(model)
    assert "\n" not in str(raised.value) and "\x1b" not in str(raised.value)
