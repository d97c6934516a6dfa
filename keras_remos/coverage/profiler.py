"""`profile(model, data)`: counts how often each neuron of a model is active while it reads a data set."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_remos.coverage.counting import CoverageModel
from keras_remos.coverage.criteria import Criterion, as_criterion, recommended_criterion
from keras_remos.coverage.profile import CoverageProfile, KernelCoverage
from keras_remos.data import Batches, Fingerprint, batches
from keras_remos.errors import DataError, RemosError
from keras_remos.models.filters import Filters, as_filter
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.inputs import check_inputs, preprocessed
from keras_remos.models.layers import unchanged_states, walk
from keras_remos.models.loading import check_model
from keras_remos.models.placement import NeuronSite
from keras_remos.models.reading_plan import plan_readings
from keras_remos.progress import track
from keras_remos.saving import versions


def profile(
    model: keras.Model,
    data: Any,
    *,
    criterion: str | Mapping[str, Any] | Criterion | None = None,
    on: NeuronSite = "activation",
    count_padding: bool = False,
    filters: Filters | None = None,
    head: str | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: bool | str = "auto",
) -> CoverageProfile:
    """Counts how often each neuron of a model is covered while it reads a data set (ReMoS section 4.2, Eq. 5 and 6).

    Args:
        model: Any built Keras model. It is not modified; dropout is off and batch normalization uses its statistics.
        data: Whatever `model.fit` takes, with or without labels: arrays, dicts of arrays, `tf.data`, `PyDataset`,
            PyTorch `DataLoader`, grain, a generator of batches. A KerasHub task may be given what its preprocessor
            takes.
        criterion: When a neuron is covered: a criterion of `keras_remos.coverage`, its name or its configuration.
            `None` takes what `RelevantSlicer(model)` takes: `LARGE` for models of tokens, `POSITIVE` for others.
        on: Where neurons are read: `"activation"` after batch normalization and activation, `"output"` as the layer
            returns them.
        count_padding: Whether padding tokens count, as in the released code.
        filters: Which layers are read: a regular expression or several, searched for in the layer's path, or a
            callable of path and layer. The others are left whole.
        head: The path of the layer that makes the class scores, which is never sliced. It is found where it is not
            given.
        batch_size: Samples a batch, for arrays; 32 by default. It never changes a count.
        steps: Stop after so many batches.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Returns:
        The profile. Its size depends on the model alone, not on the data.

    Raises:
        TeacherError: If the model is not built or has nothing to slice.
        DataError: If the data yields nothing, or does not fit the model.
        RemosError: If a layer's activations are NaN or infinite, or no layer has the path of the head.

    Warns:
        UserWarning: If the criterion covers next to nothing or everything.
    """
    counting = Profiler(model, criterion=criterion, on=on, count_padding=count_padding, filters=filters, head=head)
    return counting.profile(data, batch_size=batch_size, steps=steps, verbose=verbose)


class Profiler:
    """Profiles one model data set after data set. See `profile`, which explains the options.

    What was traced and compiled for one data set is there for the next, as long as that has the same shapes and the
    model the same layers, activations, types and variables, of which the same are trainable. Values of weights may
    change: nothing of them is kept.

    Args:
        model: See `profile`, here as in what follows.
        criterion: When a neuron is covered.
        on: Where neurons are read.
        count_padding: Whether padding counts.
        filters: Which layers are read.
        head: The path of the head.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        criterion: str | Mapping[str, Any] | Criterion | None = None,
        on: NeuronSite = "activation",
        count_padding: bool = False,
        filters: Filters | None = None,
        head: str | None = None,
    ) -> None:
        check_model(model)
        self.model = model
        self._rule = recommended_criterion(model) if criterion is None else as_criterion(criterion)
        self._on = on
        self._count_padding = count_padding
        self._filter = as_filter(filters, model)
        self._head = head
        # What was compiled last, and for what: shapes and the like, and parts of the model.
        self._compiled: tuple[Any, list[Any], CoverageModel] | None = None

    def profile(
        self, data: Any, *, batch_size: int | None = None, steps: int | None = None, verbose: bool | str = "auto"
    ) -> CoverageProfile:
        """See `keras_remos.profile`."""
        source = data if isinstance(data, Batches) else batches(data, batch_size=batch_size, steps=steps)
        counter: _Counter | None = None
        marks = Fingerprint()
        with (
            unchanged_states(self.model),
            track(source, total=source.num_batches, description="Profiling", verbose=verbose) as tracked,
        ):
            for x, _, _ in tracked:
                marks.update(x)
                inputs = preprocessed(self.model, x)
                if counter is None:
                    check_inputs(self.model, inputs)
                    counter = _Counter(self._watched(inputs), len(_first(inputs)))
                counter.add(inputs)
        if counter is None:
            raise DataError("The data set yielded no batch: nothing was profiled.")
        plan = counter.watched.plan
        return CoverageProfile(
            layers=counter.counts(),
            num_samples=counter.num_samples,
            options={"criterion": self._rule.get_config(), "on": self._on, "count_padding": self._count_padding},
            teacher=fingerprint(self.model, without=plan.heads),
            data=(marks.hexdigest(),),
            skipped=tuple(plan.skipped),
            heads=tuple(plan.heads),
            versions=versions(),
        )

    def _watched(self, example: Any) -> CoverageModel:
        """The model that counts in batches like this one."""
        shapes = keras.tree.map_structure(lambda x: f"{x.dtype}{x.shape}", example)
        layers = [layer for _, layer in walk(self.model)]
        variables = self.model.variables
        parts = [part for layer in layers for part in (layer, getattr(layer, "activation", None))] + variables
        # Keras tells JAX variables by their places in two lists, of the trainable ones and of the others.
        made_for = shapes, [layer.compute_dtype for layer in layers], [variable.trainable for variable in variables]
        if self._compiled is not None:
            known_made_for, known, watched = self._compiled
            if made_for == known_made_for and len(parts) == len(known) and all(map(operator.is_, parts, known)):
                return watched
        plan = plan_readings(self.model, example, on=self._on, selected=self._filter, head=self._head)
        watched = CoverageModel(self.model, plan, self._rule, self._count_padding)
        self._compiled = made_for, parts, watched
        return watched


class _Counter:
    """Adds up the counts of batch after batch.

    Args:
        watched: Counts in one batch.
        batch_size: Samples in a whole one.
    """

    def __init__(self, watched: CoverageModel, batch_size: int) -> None:
        self.watched = watched
        self.totals = np.zeros(watched.length, np.int64)
        self.batch_size = batch_size
        self.num_samples = 0

    def add(self, inputs: Any) -> None:
        samples = len(_first(inputs))
        if samples == 0:
            return
        # A last, smaller batch is filled up, so that no backend compiles a second program for it.
        missing = max(self.batch_size - samples, 0)
        valid = np.arange(samples + missing, dtype=np.int32) < samples
        if missing:
            filler = np.zeros(missing, np.int64)
            inputs = keras.tree.map_structure(lambda x: np.concatenate([x, np.asarray(x)[filler]]), inputs)
        try:
            counts = self.watched.predict_on_batch({"x": inputs, "valid": valid.astype(np.int32)})
        except RemosError:
            raise
        except (ValueError, TypeError) as error:
            raise DataError(f"The data does not fit model {self.watched.teacher.name!r}: {error}") from error
        self.totals += counts
        self.num_samples += samples
        self._check_finite()

    def _check_finite(self) -> None:
        *_, broken = self.watched.split(self.totals)
        for reading, samples in zip(self.watched.plan.readings, broken, strict=True):
            if samples:
                raise RemosError(
                    f"Layer {reading.layer!r} sees NaN or infinite activations (among the first {self.num_samples} "
                    "samples). Check the data's scaling, the weights, and half-precision overflow."
                )

    def counts(self) -> dict[str, KernelCoverage]:
        """The coverage of each kernel, by its path, in the order in which they first run.

        Warns:
            UserWarning: If the criterion covers next to nothing or everything.
        """
        self.watched.warn_if_blind(self.totals)
        counts, positions, _ = self.watched.split(self.totals)

        def total(readings: list[int]) -> tuple[np.ndarray, int]:
            if not readings:
                return np.zeros(0, np.int64), 0
            return np.sum([counts[index] for index in readings], axis=0), int(positions[readings].sum())

        layers = {}
        for path, (read, written) in self.watched.plan.kernels.items():
            (inputs, input_positions), (outputs, output_positions) = total(read), total(written)
            layers[path] = KernelCoverage(inputs, outputs, input_positions, output_positions)
        return layers


def _first(structure: Any) -> Any:
    return keras.tree.flatten(structure)[0]
