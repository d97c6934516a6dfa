"""`profile(model, data)`: how often each neuron is active while a model reads a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypedDict

import keras
import numpy as np

from keras_remos.coverage.counting import CoverageModel
from keras_remos.coverage.criteria import Criterion, as_criterion, recommended_criterion
from keras_remos.data import Batches, Fingerprint, batches
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.models.filters import Filters, LayerFilter, as_filter
from keras_remos.models.fingerprint import WeightsFingerprint, fingerprint
from keras_remos.models.inputs import check_inputs, preprocessed
from keras_remos.models.layers import unchanged_states
from keras_remos.models.loading import check_model
from keras_remos.models.placement import NeuronSite
from keras_remos.models.reading_plan import plan_readings
from keras_remos.notebooks import html_table
from keras_remos.progress import track
from keras_remos.saving import Archived, OriginHeader, origin_of, read_origin, versions
from keras_remos.untrusted import Between, in_lines

_MOST_POSITIONS = 2**62


@dataclass(frozen=True, eq=False)
class KernelCoverage:
    """How often the neurons on both sides of a kernel are covered (ReMoS Eq. 6).

    Args:
        inputs: For each input neuron how often it was covered, int64. For an embedding: in how many samples each
            token occurs.
        outputs: For each output neuron, int64. Empty for an embedding.
        input_positions: Out of how many times: samples, or positions where the criterion counts them.
        output_positions: The same for the outputs.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    input_positions: int
    output_positions: int

    def __add__(self, other: KernelCoverage) -> KernelCoverage:
        return KernelCoverage(
            self.inputs + other.inputs,
            self.outputs + other.outputs,
            self.input_positions + other.input_positions,
            self.output_positions + other.output_positions,
        )


class _CriterionHeader(TypedDict):
    name: str


class _OptionsHeader(TypedDict):
    criterion: _CriterionHeader
    on: str
    count_padding: bool


class _Header(OriginHeader):
    paths: Annotated[list[str], Between(1, 2**31)]
    num_samples: Annotated[int, Between(1, 2**62)]
    options: _OptionsHeader


@dataclass(frozen=True, eq=False, repr=False)
class CoverageProfile(Archived):
    """What a data set activates in a teacher.

    Profiles of the same teacher under the same options can be added; the sum is exactly the profile of all the data,
    in whatever order it comes.

    Args:
        layers: The coverage of each kernel, by its path (`"conv1/kernel"`), in the order in which they first run.
        num_samples: How many samples were read.
        options: The criterion, where neurons are read, and whether padding counts.
        teacher: The fingerprint of the teacher's weights.
        data: Digests of the data sets that were read, sorted.
        skipped: `(path, reason)` for every layer with weights that is left whole.
        heads: Paths of the layers that make the model's outputs.
        versions: Of the libraries that made it.
    """

    kind: ClassVar[str] = "profile"
    header: ClassVar[type[Any]] = _Header

    layers: Mapping[str, KernelCoverage]
    num_samples: int
    options: Mapping[str, Any]
    teacher: WeightsFingerprint
    data: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    heads: tuple[str, ...]
    versions: Mapping[str, str]

    def __add__(self, other: CoverageProfile) -> CoverageProfile:
        """The profile of both data sets together.

        Raises:
            MismatchError: If the two are of different teachers or were made with different options.
        """
        if self.teacher != other.teacher:
            raise MismatchError("The profiles are of different teachers, so they cannot be added. Profile one teacher.")
        if self.options != other.options or list(self.layers) != list(other.layers):
            raise MismatchError(
                f"The profiles were made with different options, so they cannot be added: {dict(self.options)} "
                f"and {dict(other.options)}. Profile both data sets with the same options."
            )
        return replace(
            self,
            layers={path: coverage + other.layers[path] for path, coverage in self.layers.items()},
            num_samples=self.num_samples + other.num_samples,
            data=tuple(sorted(self.data + other.data)),
        )

    def describe(self) -> dict[str, Any]:
        """What was profiled and how, as plain values for JSON."""
        return {
            "num_samples": self.num_samples,
            "options": dict(self.options),
            "layers": [
                {"path": path, "input_coverage": inputs, "output_coverage": outputs}
                for path, inputs, outputs in self._frequencies()
            ],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "versions": dict(self.versions),
        }

    def summary(self) -> str:
        """A table: for each kernel the mean share of samples (or positions) that cover an input or output neuron."""
        width = max(len(path) for path in self.layers)
        lines = [f"{'kernel':<{width}}  {'inputs covered':>14}  {'outputs covered':>15}"]
        for path, inputs, outputs in self._frequencies():
            shown = f"{outputs:>15.2%}" if outputs is not None else f"{'-':>15}"
            lines.append(f"{path:<{width}}  {inputs:>14.2%}  {shown}")
        lines.append(f"{self.num_samples:,} samples from {len(self.data)} data set(s)")
        return in_lines(lines)

    def __repr__(self) -> str:
        rule = self.options["criterion"]["name"]
        return f"<CoverageProfile of {len(self.layers)} kernels: {self.num_samples:,} samples, {rule}>"

    def _repr_html_(self) -> str:
        rows = [
            (path, f"{inputs:.2%}", "-" if outputs is None else f"{outputs:.2%}")
            for path, inputs, outputs in self._frequencies()
        ]
        return html_table(repr(self)[1:-1], ("kernel", "inputs covered", "outputs covered"), rows)

    def _frequencies(self) -> Iterator[tuple[str, float, float | None]]:
        for path, coverage in self.layers.items():
            inputs = float(coverage.inputs.mean() / max(coverage.input_positions, 1))
            outputs = coverage.outputs.mean() / max(coverage.output_positions, 1) if coverage.outputs.size else None
            yield path, inputs, None if outputs is None else float(outputs)

    def to_archive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        header = {"paths": list(self.layers), "num_samples": self.num_samples, **origin_of(self)}
        arrays = {}
        for index, coverage in enumerate(self.layers.values()):
            arrays[f"{index}.inputs"] = coverage.inputs
            arrays[f"{index}.outputs"] = coverage.outputs
            arrays[f"{index}.positions"] = np.array([coverage.input_positions, coverage.output_positions], np.int64)
        return header, arrays

    @classmethod
    def from_archive(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> CoverageProfile:
        layers = {}
        for index, name in enumerate(header["paths"]):
            counts = [arrays[f"{index}.{side}"] for side in ("inputs", "outputs")]
            positions = arrays[f"{index}.positions"]
            for found, most in zip((*counts, positions), (*positions, _MOST_POSITIONS), strict=True):
                if found.dtype.kind not in "iu" or found.ndim != 1 or found.min(initial=0) < 0:
                    raise ValueError(f"{name}: expected counts, received an array of {found.dtype} {found.shape}")
                if found.max(initial=0) > most:
                    raise ValueError(f"{name}: a neuron is covered more often than it was read")
            inputs, outputs = (np.asarray(each, np.int64) for each in counts)
            layers[name] = KernelCoverage(inputs, outputs, *positions.tolist())
        if len(layers) < len(header["paths"]):
            raise ValueError("a kernel is named twice")
        return cls(layers=layers, num_samples=header["num_samples"], **read_origin(header))


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
    check_model(model)
    chosen = as_filter(filters, model)
    rule = recommended_criterion(model) if criterion is None else as_criterion(criterion)
    source = data if isinstance(data, Batches) else batches(data, batch_size=batch_size, steps=steps)
    counter: _Counter | None = None
    marks = Fingerprint()
    with (
        unchanged_states(model),
        track(source, total=source.num_batches, description="Profiling", verbose=verbose) as tracked,
    ):
        for x, _, _ in tracked:
            marks.update(x)
            inputs = preprocessed(model, x)
            if counter is None:
                check_inputs(model, inputs)
                counter = _Counter(model, inputs, rule, on, count_padding, chosen, head)
            counter.add(inputs)
    if counter is None:
        raise DataError("The data set yielded no batch: nothing was profiled.")
    return counter.profile(marks.hexdigest())


class _Counter:
    """Adds up the counts of batch after batch."""

    def __init__(
        self,
        model: keras.Model,
        example: Any,
        rule: Criterion,
        on: NeuronSite,
        count_padding: bool,
        filters: LayerFilter | None,
        head: str | None,
    ) -> None:
        self.model = model
        self.options = {"criterion": rule.get_config(), "on": on, "count_padding": count_padding}
        self.plan = plan_readings(model, example, on=on, selected=filters, head=head)
        self.coverage_model = CoverageModel(model, self.plan, rule, count_padding)
        self.totals = np.zeros(self.coverage_model.length, np.int64)
        self.batch_size = len(_first(example))
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
            counts = self.coverage_model.predict_on_batch({"x": inputs, "valid": valid.astype(np.int32)})
        except RemosError:
            raise
        except (ValueError, TypeError) as error:
            raise DataError(f"The data does not fit model {self.model.name!r}: {error}") from error
        self.totals += counts
        self.num_samples += samples
        self._check_finite()

    def _check_finite(self) -> None:
        *_, broken = self.coverage_model.split(self.totals)
        for reading, samples in zip(self.plan.readings, broken, strict=True):
            if samples:
                raise RemosError(
                    f"Layer {reading.layer!r} sees NaN or infinite activations (among the first {self.num_samples} "
                    "samples). Check the data's scaling, the weights, and half-precision overflow."
                )

    def profile(self, data: str) -> CoverageProfile:
        self.coverage_model.warn_if_blind(self.totals)
        counts, positions, _ = self.coverage_model.split(self.totals)

        def total(readings: list[int]) -> tuple[np.ndarray, int]:
            if not readings:
                return np.zeros(0, np.int64), 0
            return np.sum([counts[index] for index in readings], axis=0), int(positions[readings].sum())

        layers = {}
        for path, (read, written) in self.plan.kernels.items():
            (inputs, input_positions), (outputs, output_positions) = total(read), total(written)
            layers[path] = KernelCoverage(inputs, outputs, input_positions, output_positions)
        return CoverageProfile(
            layers=layers,
            num_samples=self.num_samples,
            options=self.options,
            teacher=fingerprint(self.model, without=self.plan.heads),
            data=(data,),
            skipped=tuple(self.plan.skipped),
            heads=tuple(self.plan.heads),
            versions=versions(),
        )


def _first(structure: Any) -> Any:
    return keras.tree.flatten(structure)[0]
