"""How often each neuron of a model is active: criteria, counting, and the profile that comes out."""

from keras_remos.coverage.criteria import (
    CRITERIA,
    Criterion,
    NeuronCoverage,
    StrongCoverage,
    TopKCoverage,
    as_criterion,
)

__all__ = ["CRITERIA", "Criterion", "NeuronCoverage", "StrongCoverage", "TopKCoverage", "as_criterion"]
