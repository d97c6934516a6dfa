"""`RelevantSlicer`: from a teacher and a data set to the weights that a student starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import keras
import numpy as np

from keras_remos.coverage.criteria import Criterion, as_criterion
from keras_remos.coverage.profile import CoverageProfile
from keras_remos.coverage.profiler import Profiler
from keras_remos.errors import MismatchError, RemosError
from keras_remos.models.filters import Filters, as_filter
from keras_remos.models.fingerprint import check_fingerprint
from keras_remos.models.finite import is_finite
from keras_remos.models.inputs import runs_on_tokens
from keras_remos.models.kernels import Kernel, SliceableLayer
from keras_remos.models.loading import check_model
from keras_remos.models.placement import NeuronSite
from keras_remos.models.sliceable import find_sliceable, kernels_by_path
from keras_remos.models.tokenizers import special_tokens
from keras_remos.saving import versions
from keras_remos.slicing import student
from keras_remos.slicing.presets import find_preset
from keras_remos.slicing.ranking import CoveredKernel, run_all
from keras_remos.slicing.relevant_slice import RelevantSlice
from keras_remos.slicing.scores import Scope, Ties, check_keep_ratio, score
from keras_remos.slicing.summary import Magnitudes


class RelevantSlicer:
    """Finds the part of a teacher that a task needs, and starts a student from it.

    Args:
        model: The teacher: any built Keras model. It is never modified.
        preset: `"recommended"`, what our measurements say is best; `"paper"`, Eq. 3 to 11 read literally;
            `"artifact"`, what the authors' released code does.
        keep_ratio: The share of weights that is kept, in (0, 1] (the paper's theta). Overrides the preset, as do the
            following.
        criterion: When a neuron is covered.
        on: Where neurons are read: `"activation"` or `"output"`.
        scope: Rank weights inside each `"layer"` or over the whole `"model"`.
        ties: `"average"` or `"order"`.
        layer_limit: With scope `"model"`: no kernel loses a larger share of its weights than so many times
            `1 - keep_ratio`; at least 1. `None` sets no limit, here as everywhere; `"preset"` takes the preset's.
        embeddings: Whether rows of embedding tables whose tokens never occur are reset.
        count_padding: Whether padding tokens count.
        filters: Which layers are sliced: a regular expression or several, searched for in the layer's path, or a
            callable of path and layer. The others are left whole.
        head: The path of the layer that makes the class scores: never sliced, and what a fresh head takes the place
            of. It is found where it is not given.

    Raises:
        RemosError: If an option has no such value.

    Example:
    ```python
    student = RelevantSlicer(teacher).apply(train_ds, num_classes=20)
    student.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    student.fit(train_ds)
    ```

    Reference:
        Zhang et al., ReMoS: Reducing Defect Inheritance in Transfer Learning via Relevant Model Slicing, ICSE 2022.

    Note:
        `"recommended"` departs from the paper in limiting what one layer may lose, so that none is stripped, and in
        slicing embedding tables. Models of tokens have another criterion, and ranks inside each layer (`FOR_LANGUAGE`).
        It changes only with new measurements.
        `"artifact"` differs from the released code in four points: it reads every sample (the code drops the last
        incomplete batch), never applies dropout, keeps exact ranks (the code rounds them above 2^24 weights), and
        slices every kind of layer that can be sliced, not convolutions or encoder layers only.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        preset: str = "recommended",
        keep_ratio: float | None = None,
        criterion: str | Mapping[str, Any] | Criterion | None = None,
        on: NeuronSite | None = None,
        scope: Scope | None = None,
        ties: Ties | None = None,
        layer_limit: float | Literal["preset"] | None = "preset",
        embeddings: bool | None = None,
        count_padding: bool | None = None,
        filters: Filters | None = None,
        head: str | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "keep_ratio": keep_ratio,
            "criterion": None if criterion is None else as_criterion(criterion),
            "on": on,
            "scope": scope,
            "ties": ties,
            "embeddings": embeddings,
            "count_padding": count_padding,
        }
        check_model(model)
        self.model = model
        self.preset = preset
        chosen = find_preset(preset, language=runs_on_tokens(model))
        self.settings = replace(chosen, **{name: value for name, value in given.items() if value is not None})
        if layer_limit != "preset":
            self.settings = replace(self.settings, layer_limit=None if layer_limit == math.inf else layer_limit)
        self.filters = as_filter(filters, model)
        self.head = head
        # It keeps what it has compiled, for the options that it was made with.
        self._profiler: tuple[dict[str, Any], Profiler] | None = None

    def profile(
        self,
        data: Any,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        verbose: bool | str = "auto",
    ) -> CoverageProfile:
        """Counts what the data activates in the teacher. See `keras_remos.profile`.

        What is traced and compiled for the first data set serves for others with samples and batches of the same shape.
        """
        _check_weights(self.model)
        options: dict[str, Any] = {
            "criterion": self.settings.criterion,
            "on": self.settings.on,
            "count_padding": self.settings.count_padding,
            "filters": self.filters,
            "head": self.head,
        }
        if self._profiler is None or self._profiler[0] != options or self._profiler[1].model is not self.model:
            self._profiler = options, Profiler(self.model, **options)
        return self._profiler[1].profile(data, batch_size=batch_size, steps=steps, verbose=verbose)

    def slice(self, profile: CoverageProfile) -> RelevantSlice:
        """Chooses the weights to keep (ReMoS Eq. 7 to 11).

        Args:
            profile: Made by `profile`, with the same teacher.

        Raises:
            MismatchError: If the profile is of another teacher, or was made with other options than this slicer's.
        """
        return self.sweep(profile, keep_ratios=[self.settings.keep_ratio])[self.settings.keep_ratio]

    def sweep(self, profile: CoverageProfile, *, keep_ratios: Iterable[float]) -> dict[float, RelevantSlice]:
        """Slices of several sizes from one ranking. A larger one holds every smaller one.

        Args:
            profile: Made by `profile`, with the same teacher.
            keep_ratios: Each in (0, 1].

        Returns:
            The slices by ratio.
        """
        ratios = list(keep_ratios)
        for ratio in ratios:
            check_keep_ratio(ratio)
        self._check_profile(profile)
        kernels = _kernels(self.model, profile)
        weights = {path: keras.ops.convert_to_numpy(kernel.variable.value) for path, (_, kernel) in kernels.items()}
        covered = {
            path: CoveredKernel(
                weights=weights[path],
                view=kernel.view,
                input_axes=kernel.input_axes,
                output_axes=kernel.output_axes,
                inputs=profile.layers[path].inputs,
                outputs=profile.layers[path].outputs,
                input_positions=profile.layers[path].input_positions,
                output_positions=profile.layers[path].output_positions,
            )
            for path, (found, kernel) in kernels.items()
            if found.table is None
        }
        scores = score(covered, ties=self.settings.ties, scope=self.settings.scope) if covered else None
        tables = self._tables(kernels, profile)
        skipped = profile.skipped
        if not self.settings.embeddings:
            skipped += tuple((found.path, "embeddings are off") for found, _ in kernels.values() if found.table)
        magnitudes = dict(zip(weights, run_all(lambda found: Magnitudes(*found), weights.items()), strict=True))
        slices = {}
        for ratio in ratios:
            chosen = {**(scores.select(ratio, layer_limit=self.settings.layer_limit) if scores else {}), **tables}
            masks = {path: chosen[path] for path in kernels if path in chosen}
            slices[ratio] = RelevantSlice(
                masks=masks,
                skipped=skipped,
                options=self._options(ratio),
                summaries=tuple(run_all(lambda found: magnitudes[found[0]].summary(found[1]), masks.items())),
                tables=tuple(tables),
                heads=profile.heads,
                teacher=profile.teacher,
                data=profile.data,
                versions=versions(),
            )
        return slices

    def apply(
        self,
        data: Any,
        *,
        num_classes: int | None = None,
        reset: student.Reset = "zeros",
        freeze: bool = False,
        in_place: bool = False,
        seed: int = 0,
        batch_size: int | None = None,
        steps: int | None = None,
        verbose: bool | str = "auto",
    ) -> keras.Model:
        """Profiles the data, slices the teacher and makes the student.

        Args:
            data: What the student will be trained on: whatever `model.fit` takes.
            num_classes: Gives the student a fresh softmax head for so many classes. `None` keeps the teacher's head.
            reset: What excluded weights become: `"zeros"` or `"initializer"`.
            freeze: Keeps excluded weights as they were reset while the student is trained in this process.
            in_place: Reset the weights of the teacher itself, for models that cannot be copied.
            seed: For the fresh head and `reset="initializer"`.
            batch_size: Samples a batch, for arrays; 32 by default.
            steps: Stop profiling after so many batches.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

        Returns:
            An uncompiled Keras model.
        """
        counted = self.profile(data, batch_size=batch_size, steps=steps, verbose=verbose)
        return self.slice(counted).apply(
            self.model, num_classes=num_classes, reset=reset, freeze=freeze, in_place=in_place, seed=seed
        )

    def __repr__(self) -> str:
        settings = self.settings
        return (
            f"<RelevantSlicer of {self.model.name!r}: preset {self.preset}, keeps {settings.keep_ratio:g}, ranks over "
            f"the {settings.scope}>"
        )

    def _check_profile(self, profile: CoverageProfile) -> None:
        wanted = {
            "criterion": self.settings.criterion.get_config(),
            "on": self.settings.on,
            "count_padding": self.settings.count_padding,
        }
        if profile.options != wanted:
            raise MismatchError(
                f"The profile was made with other options than this slicer's: {dict(profile.options)}, expected "
                f"{wanted}. Profile again, or choose the preset that the profile was made with."
            )
        check_fingerprint(profile.teacher, self.model, "profile")

    def _options(self, keep_ratio: float) -> dict[str, Any]:
        return {
            "preset": self.preset,
            **vars(self.settings),
            "criterion": self.settings.criterion.get_config(),
            "keep_ratio": keep_ratio,
        }

    def _tables(
        self, kernels: Mapping[str, tuple[SliceableLayer, Kernel]], profile: CoverageProfile
    ) -> dict[str, np.ndarray]:
        if not self.settings.embeddings:
            return {}
        kept_rows = special_tokens(self.model)
        masks = {}
        for path, (found, kernel) in kernels.items():
            if found.table is None:
                continue
            seen = profile.layers[path].inputs > 0
            seen[[row for row in kept_rows.get(seen.size, ()) if row < seen.size]] = True
            if getattr(found.layer, "mask_zero", False):
                seen[0] = True
            masks[path] = np.broadcast_to(seen[:, None], kernel.view)
        return masks


def _kernels(model: keras.Model, profile: CoverageProfile) -> dict[str, tuple[SliceableLayer, Kernel]]:
    """The kernels that a profile covers, in its order."""
    found = kernels_by_path(model)
    for path, coverage in profile.layers.items():
        if path not in found:
            raise MismatchError(f"The profile counts what model {model.name!r} does not have: {path!r}. Profile again.")
        layer, kernel = found[path]
        sides = [(coverage.inputs, kernel.input_axes)]
        sides += [] if layer.table is not None else [(coverage.outputs, kernel.output_axes)]
        if any(len(counts) != math.prod(kernel.view[axis] for axis in axes) for counts, axes in sides):
            raise MismatchError(f"The profile has other neurons than model {model.name!r} at {path!r}. Profile again.")
    return {path: found[path] for path in profile.layers}


def _check_weights(model: keras.Model) -> None:
    """Before any data is read: a broken teacher must not cost an hour."""
    for layer in find_sliceable(model)[0] if model.built else ():
        for kernel in layer.weights:
            if not is_finite(kernel.variable):
                raise RemosError(
                    f"The weights of layer {layer.path!r} ({kernel.name}) hold NaN or infinity: the teacher is "
                    "damaged. Download it again, or choose another."
                )
