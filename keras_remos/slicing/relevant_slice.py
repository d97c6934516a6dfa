"""`RelevantSlice`: which weights of a teacher a task needs; to look at, save, combine and apply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypedDict

import keras
import numpy as np

from keras_remos.errors import MismatchError
from keras_remos.models.description import list_skipped
from keras_remos.models.fingerprint import WeightsFingerprint, check_fingerprint
from keras_remos.models.origin import remember, where_from
from keras_remos.models.sliceable import kernels_by_path
from keras_remos.notebooks import html_table
from keras_remos.saving import Archived, OriginHeader, origin_of, read_origin
from keras_remos.slicing import student
from keras_remos.slicing.summary import LayerSummary
from keras_remos.untrusted import Between, Count, Share, in_lines


class _LaterSummary(TypedDict, total=False):
    """What older files do not hold."""

    excluded_by_magnitude: list[Share]


class _Summary(_LaterSummary):
    path: str
    kept: Count
    total: Annotated[int, Between(1, 2**62)]
    mean_kept: float
    mean_excluded: float


class _Header(OriginHeader):
    masks: list[tuple[str, list[Count]]]
    summaries: list[_Summary]
    tables: list[str]
    options: dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class RelevantSlice(Archived):
    """Which weights of a teacher a task needs (ReMoS section 4.4, Eq. 11).

    Args:
        masks: For each kernel (`"conv1/kernel"`) a boolean array of its shape: `True` where the weight is kept.
        skipped: `(path, reason)` for every layer with weights that is left whole.
        options: The preset and every option that chose it.
        summaries: What is kept of each kernel.
        tables: Those of the kernels that are embedding tables: a row is a token, kept or reset as a whole.
        heads: Paths of the layers that make the teacher's outputs.
        teacher: The fingerprint of the teacher's weights.
        data: Digests of the data sets that were profiled.
        versions: Of the libraries that made it.
    """

    kind: ClassVar[str] = "slice"
    header: ClassVar[type[Any]] = _Header

    masks: Mapping[str, np.ndarray]
    skipped: tuple[tuple[str, str], ...]
    options: Mapping[str, Any]
    summaries: tuple[LayerSummary, ...]
    tables: tuple[str, ...]
    heads: tuple[str, ...]
    teacher: WeightsFingerprint
    data: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def total(self) -> int:
        """How many weights the slice decides on."""
        return sum(mask.size for mask in self.masks.values())

    @property
    def kept(self) -> int:
        """How many of them are kept."""
        return sum(int(np.count_nonzero(mask)) for mask in self.masks.values())

    def dropped_tokens(self) -> dict[str, np.ndarray]:
        """The tokens whose rows are reset, since no sample contains them.

        Returns:
            For each embedding table their ids in ascending order.
        """
        return {path: np.flatnonzero(~self.masks[path][:, 0]) for path in self.tables}

    def describe(self) -> dict[str, Any]:
        """What is kept and why, as plain values for JSON."""
        return {
            "kept": self.kept,
            "total": self.total,
            "options": dict(self.options),
            "layers": [summary.describe() for summary in self.summaries],
            "dropped_tokens": {path: len(tokens) for path, tokens in self.dropped_tokens().items()},
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "versions": dict(self.versions),
        }

    def kept_by_layer(self) -> list[dict[str, Any]]:
        """What is kept of each kernel, as a student's record tells it: plain values for JSON."""
        shown = ("path", "kept", "total", "excluded_by_magnitude")
        return [{name: described[name] for name in shown} for described in map(LayerSummary.describe, self.summaries)]

    def summary(self) -> str:
        """A table of what is kept of each kernel, and of the layers that are left whole."""
        width = max([len(s.path) for s in self.summaries] + [len("kernel")])
        lines = [f"{'kernel':<{width}}  {'kept':>12}  {'of':>12}  {'share':>7}  {'mean |w| kept':>13}  {'excluded':>9}"]
        for s in self.summaries:
            lines.append(
                f"{s.path:<{width}}  {s.kept:>12,}  {s.total:>12,}  {s.kept / s.total:>7.2%}  "
                f"{s.mean_kept:>13.5f}  {s.mean_excluded:>9.5f}"
            )
        lines.append(f"{'all':<{width}}  {self.kept:>12,}  {self.total:>12,}  {self.kept / self.total:>7.2%}")
        lines += [
            f"{path}: {len(tokens):,} of {len(self.masks[path]):,} tokens are in no sample; their rows are reset"
            for path, tokens in self.dropped_tokens().items()
        ]
        return in_lines([*lines, *list_skipped(self.skipped)])

    def __repr__(self) -> str:
        return f"<RelevantSlice of {len(self.masks)} kernels: {self.kept:,} of {self.total:,} weights kept>"

    def _repr_html_(self) -> str:
        rows = [(s.path, f"{s.kept:,}", f"{s.total:,}", f"{s.kept / s.total:.2%}") for s in self.summaries]
        return html_table(repr(self)[1:-1], ("kernel", "kept", "of", "share"), rows)

    def apply(
        self,
        teacher: keras.Model,
        *,
        num_classes: int | None = None,
        reset: student.Reset = "zeros",
        freeze: bool = False,
        in_place: bool = False,
        seed: int = 0,
    ) -> keras.Model:
        """Makes a student that starts from the slice. See `keras_remos.slicing.student.build`.

        Args:
            teacher: The model that was profiled. It is not modified, unless `in_place` says so.
            num_classes: Gives the student a fresh softmax head for so many classes. `None` keeps the teacher's head.
            reset: What excluded weights become: `"zeros"` (the paper) or `"initializer"` (fresh random values).
            freeze: Keeps excluded weights as they were reset while the student is trained in this process.
            in_place: Reset the weights of the teacher itself, for models that cannot be copied.
            seed: For the fresh head and `reset="initializer"`.

        Returns:
            An uncompiled Keras model.

        Raises:
            MismatchError: If the slice was made for other weights; names the first layer that differs.
            StudentError: If the teacher cannot be copied, or its head cannot be replaced.
        """
        self.check_teacher(teacher)
        built = student.build(
            teacher,
            self.masks,
            heads=self.heads,
            num_classes=num_classes,
            reset=reset,
            freeze=freeze,
            in_place=in_place,
            seed=seed,
        )
        return remember(built, replace(where_from(built), slice=dict(self.options)))

    def check_teacher(self, model: keras.Model) -> None:
        """Makes sure that the slice was made of this teacher.

        Raises:
            MismatchError: If the weights differ; names the first layer that does.
        """
        check_fingerprint(self.teacher, model, "slice")
        shapes = {path: tuple(kernel.variable.shape) for path, (_, kernel) in kernels_by_path(model).items()}
        for path, mask in self.masks.items():
            if shapes.get(path, mask.shape) != mask.shape:
                raise MismatchError(
                    f"This slice has a mask of shape {mask.shape} for {path!r} of model {model.name!r}, whose weights "
                    f"have shape {shapes[path]}. Slice again."
                )

    def to_archive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        header = {
            "masks": [[name, mask.shape] for name, mask in self.masks.items()],
            "summaries": [summary.describe() for summary in self.summaries],
            "tables": self.tables,
            **origin_of(self),
        }
        # One bit a weight.
        return header, {str(index): np.packbits(mask) for index, mask in enumerate(self.masks.values())}

    @classmethod
    def from_archive(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> RelevantSlice:
        masks = {}
        for index, (name, shape) in enumerate(header["masks"]):
            size, packed = math.prod(shape), arrays[str(index)]
            if packed.dtype != np.uint8 or packed.shape != (-(-size // 8),):
                raise ValueError(f"the mask of {name} is cut short")
            masks[name] = np.unpackbits(packed, count=size).astype(bool).reshape(shape)
        summaries = tuple(map(LayerSummary.read, header["summaries"]))
        found = [(path, int(np.count_nonzero(mask)), mask.size) for path, mask in masks.items()]
        if found != [(said.path, said.kept, said.total) for said in summaries] or len(found) < len(header["masks"]):
            raise ValueError("its summary says otherwise than its masks")
        if any(path not in masks or masks[path].ndim != 2 for path in header["tables"]):
            raise ValueError("an embedding table in it is none")
        return cls(masks=masks, summaries=summaries, tables=tuple(header["tables"]), **read_origin(header))

    def diff(self, other: RelevantSlice) -> dict[str, tuple[int, int]]:
        """Where two slices of one teacher differ.

        Returns:
            For each kernel `(kept here only, kept there only)`.

        Raises:
            MismatchError: If the slices are of different teachers.
        """
        self._check_same_teacher(other)
        return {
            path: (int(np.count_nonzero(mask & ~other.masks[path])), int(np.count_nonzero(other.masks[path] & ~mask)))
            for path, mask in self.masks.items()
        }

    def __or__(self, other: RelevantSlice) -> RelevantSlice:
        """What either slice keeps: a student for both tasks."""
        return self._combined(other, np.logical_or, "union")

    def __and__(self, other: RelevantSlice) -> RelevantSlice:
        """What both slices keep."""
        return self._combined(other, np.logical_and, "intersection")

    def _combined(self, other: RelevantSlice, how: Callable[..., np.ndarray], name: str) -> RelevantSlice:
        self._check_same_teacher(other)
        masks = {path: how(mask, other.masks[path]) for path, mask in self.masks.items()}
        return replace(
            self,
            masks=masks,
            options={name: [self.options, other.options]},
            # Preparation of magnitudes cannot be recombined without the teacher.
            summaries=tuple(
                LayerSummary(path, int(np.count_nonzero(mask)), mask.size, float("nan"), float("nan"))
                for path, mask in masks.items()
            ),
            data=tuple(sorted({*self.data, *other.data})),
        )

    def _check_same_teacher(self, other: RelevantSlice) -> None:
        if self.teacher != other.teacher or set(self.masks) != set(other.masks):
            raise MismatchError(
                "The two slices are of different teachers, or of different layers of one. Compare or combine slices "
                "that were made from one teacher with the same `filters`."
            )
