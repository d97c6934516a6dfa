"""How often each neuron of a model is active: criteria, counting, and the profile that comes out."""

from keras_remos.coverage.activations import Activations
from keras_remos.coverage.criteria import (
    CRITERIA,
    LARGE,
    POSITIVE,
    Criterion,
    NeuronCoverage,
    StrongCoverage,
    TopKCoverage,
    as_criterion,
    recommended_criterion,
)

__all__ = [
    "CRITERIA",
    "LARGE",
    "POSITIVE",
    "Activations",
    "Criterion",
    "NeuronCoverage",
    "StrongCoverage",
    "TopKCoverage",
    "as_criterion",
    "recommended_criterion",
]
