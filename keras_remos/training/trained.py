"""`Trained`: a student, and how its training went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from keras_remos.notebooks import html_table
from keras_remos.untrusted import in_lines


@dataclass(frozen=True, repr=False)
class Trained:
    """What a method gives back.

    Args:
        student: A plain Keras model: it can be saved, and loaded where keras-remos is not installed. It is compiled, so
            that `evaluate` can be called, with Keras' accuracy and cross-entropy: of class ids, or of one-hot rows if
            the training labels were such. Its optimizer is plain SGD, which has no state to be saved: to train it
            further, compile it with the one that you want.
        history: What `fit` reported, epoch by epoch, over all stages. What begins with `val_` ends with the last epoch,
            and begins later where validation data were given to a run that was under way.
        method: The method's name.
        options: Everything that decided the result, as plain values for JSON; and `constant`, which is true where it
            ended in a student that names one class only.
    """

    student: keras.Model
    history: dict[str, list[float]]
    method: str
    options: dict[str, Any]

    @property
    def epochs(self) -> int:
        """How many epochs it was trained for."""
        return len(self.history.get("loss", ()))

    @property
    def last(self) -> dict[str, float]:
        """The figures of the last epoch, by name."""
        return {name: values[-1] for name, values in self.history.items()}

    def describe(self) -> dict[str, Any]:
        """How it was made and how that went, as plain values for JSON."""
        return {**self.options, "method": self.method, "history": self.history, "last": self.last}

    def summary(self) -> str:
        """The figures of the last epoch as a table, below a line that says how it was made."""
        recipe = self.options["recipe"]
        lines = [
            f"{self.method}, {self.epochs} epochs, learning rate {recipe['learning_rate']:g}, "
            f"{self.options['num_classes']} classes, seed {self.options['seed']}"
        ]
        lines.append(self.settings)
        return in_lines([*lines, *(f"{name:<20}{value:>10.4f}" for name, value in self.last.items())])

    @property
    def settings(self) -> str:
        """What was chosen, and by whom, in a line."""
        tuned = self.options.get("tuning", {})
        rate = f"{self.options['recipe']['learning_rate']:g}"
        said = [f"learning rate {rate}, {'chosen on validation data' if 'recipe' in tuned else 'as given'}"]
        kept = self.options.get("slice", {}).get("keep_ratio")
        if kept is not None:
            said.append(f"{kept:g} kept, {'chosen on validation data' if 'keep_ratio' in tuned else 'as given'}")
        said.append("hardened" if "hardening" in self.options else "not hardened")
        return "; ".join(said) + "."

    def __repr__(self) -> str:
        figures = ", ".join(f"{name}={value:.4f}" for name, value in self.last.items())
        return f"<Trained {self.method}: {self.epochs} epochs{', ' if figures else ''}{figures}>"

    def _repr_html_(self) -> str:
        rows = [(name, f"{value:.4f}") for name, value in self.last.items()]
        return html_table(f"{self.method}, {self.epochs} epochs", ("figure", "last epoch"), rows)
