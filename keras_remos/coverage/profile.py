"""`profile(model, data)`: how often each neuron is active while a model reads a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypedDict

import numpy as np

from keras_remos.errors import MismatchError
from keras_remos.models.fingerprint import WeightsFingerprint
from keras_remos.notebooks import html_table
from keras_remos.saving import Archived, OriginHeader, origin_of, read_origin
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
