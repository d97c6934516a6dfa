"""`InheritanceMonitor`: DIR beside loss and accuracy, while a student is trained."""

from __future__ import annotations

from typing import Any

import keras

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.attack_set import AttackSet
from keras_remos.errors import RemosError
from keras_remos.evaluation.measuring import dir_of
from keras_remos.evaluation.predictions import Panel


class InheritanceMonitor(keras.callbacks.Callback):
    """A Keras callback that adds DIR to the logs of every epoch.

    Progress bars, `CSVLogger`, `TensorBoard` and the history then show it beside accuracy, in anybody's `fit`. Put it
    before callbacks that are to see it. What it says of the training is no part of it: no weight changes.

    Args:
        attack: Malicious inputs that were made with the student's teacher.
        space: How the student's inputs come from pixels; by default as the teacher's.
        name: What it is called in the logs.
        every: It asks after every so many epochs, and after the first and the last; in between the logs repeat the last
            figure, so that each epoch has one. NaN where the student returns NaN.
        batch_size: Samples at a time.

    Raises:
        RemosError: If `every` is no whole number from 1 up.
        MismatchError: If pixels mean something else to the student than in the attack set.

    Example:
    ```python
    attack = kr.AttackSet.load("teacher.penultimate.npz")
    student.fit(train_ds, epochs=10, callbacks=[kr.InheritanceMonitor(attack), keras.callbacks.CSVLogger("log.csv")])
    ```
    """

    def __init__(
        self,
        attack: AttackSet,
        space: PixelSpace | None = None,
        *,
        name: str = "dir",
        every: int = 1,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise RemosError(f"`every` must be a whole number of at least 1, received {every!r}.")
        self._attack = attack
        self._space = space or attack.space
        self._space.check_same_pixels(attack.space)
        self._name = name
        self._every = every
        self._batch_size = batch_size
        self._panel: Panel | None = None
        self._last = float("nan")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the student that is trained."""
        # Methods of ours train the student inside a model of their own.
        self._panel = Panel({"student": (getattr(self.model, "student", self.model), self._space)})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts DIR into the logs."""
        is_last = epoch + 1 == (self.params or {}).get("epochs")
        if epoch == 0 or (epoch + 1) % self._every == 0 or is_last:
            self._last = self._rate()
        if logs is not None:
            logs[self._name] = self._last

    def _rate(self) -> float:
        try:
            return dir_of(self._attack, self._ask).value
        except RemosError:
            # It has diverged: whoever trains it sees that by its loss.
            return float("nan")

    def _ask(self, x: Any) -> Any:
        assert self._panel is not None, "training has begun"
        return self._panel.predict(x, batch_size=self._batch_size, verbose=False)["student"]
