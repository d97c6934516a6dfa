"""Options that several commands share. Those that belong together reach a command as one object."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click
from keras_remos_cli.inputs import DataChoice, Opening, StudentChoice, SynonymChoice, ValidationChoice
from keras_remos_cli.numbers import MOST_SEED, NUMBER, NumberBetween
from keras_remos_cli.parameters import EXISTING, STUDENT, SYNONYMS, TEACHER
from keras_remos_cli.running import Command
from keras_remos_cli.verdicts import Limits

if TYPE_CHECKING:
    from keras_remos import Recipe

Decorator = Callable[[Command], Command]

CACHES = ("auto", "memory", "disk", "none")
DECODINGS = ("reduced", "full", "opencv")
SCALINGS = ("none", "0-1", "-1-1", "imagenet", "caffe")
PRESETS = ("recommended", "paper", "artifact")
DEFECTS = (
    *("penultimate", "displacement", "coverage-guided", "fgsm", "pgd", "surrogate"),
    *("patch-backdoor", "latent-backdoor"),
    *("word-importance", "greedy-swap", "text-poisoning", "weight-poisoning"),
)


def _all(*decorators: Decorator) -> Decorator:
    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _as_one(kind: type, name: str, *decorators: Decorator) -> Decorator:
    """Gives the command one argument in place of the options that make up the dataclass `kind`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**kwargs: Any) -> Any:
            return command(**{name: kind(**{field.name: kwargs.pop(field.name) for field in fields(kind)})}, **kwargs)

        return _all(*decorators)(run)

    return decorate


def options_of(name: str, known: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user gave out of the options of many kinds, as arguments for one of them.

    Args:
        name: What the user calls that kind.
        known: Its options.
        given: By name; `None` for what was not given.

    Raises:
        UsageError: If an option was given that this kind does not have.
    """
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in sorted(chosen.keys() - set(known)):
        raise click.UsageError(f"--{option.replace('_', '-')} is not an option of {name}.")
    return chosen


def image_size_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Height and width, out of `224` or `224x160`."""
    if value is None:
        return None
    try:
        height, _, width = value.lower().partition("x")
        size = int(height), int(width or height)
    except ValueError:
        size = (0, 0)
    if min(size) < 1:
        raise click.BadParameter(f"expected a size like 224 or 224x160 (height x width), received {value!r}.")
    return size


def share_or_auto(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    """A share above 0, at most 1, or `auto`."""
    return value if value in (None, "auto") else NumberBetween(0, 1, min_open=True)(value, param, ctx)


def rate_or_auto(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    """A learning rate, or `auto`."""
    return value if value in (None, "auto") else NUMBER(value, param, ctx)


def seed_of(ctx: click.Context, param: click.Parameter, value: int) -> int:
    """A seed that our files may hold."""
    if value > MOST_SEED:
        raise click.BadParameter("expected a whole number from 0 to 2**128 - 1, received more.")
    return value


teacher_argument = click.argument("teacher", type=TEACHER)

opening_options = _as_one(
    Opening,
    "opening",
    click.option(
        "--allow-unsafe-deserialization",
        is_flag=True,
        help="Open a model that carries code. The file can then do anything that you can.",
    ),
    click.option(
        "--sequence-length",
        type=click.IntRange(min=1),
        default=128,
        show_default=True,
        help="Tokens a text is cut to.",
    ),
)


def _data_options(*, required: bool) -> Decorator:
    return _as_one(
        DataChoice,
        "data",
        click.option(
            "--data",
            "data_path",
            type=EXISTING,
            required=required,
            help="A folder with one sub-folder of images a class, an .npz, or a .csv, .tsv or .jsonl table of texts or "
            "image paths with labels.",
        ),
        click.option(
            "--split",
            type=click.Choice(["train", "test"]),
            help="That sub-folder of --data, or those arrays of an .npz (x_test, y_test).",
        ),
        click.option(
            "--preprocess",
            "scaling",
            type=click.Choice(SCALINGS),
            help="How images are scaled for the teacher. Default: found out, and said.",
        ),
        click.option(
            "--image-size", callback=image_size_of, metavar="H[xW]", help="For teachers that take images of any size."
        ),
        click.option("--text-column", help="Default: text, sentence, review or content."),
        click.option("--pair-column", help="The second text of a pair."),
        click.option("--label-column", help="Default: label, labels, class, target or y."),
        click.option("--path-column", help="Image files in a table. Default: path, file, image or filename."),
        click.option(
            "--pixel-range",
            nargs=2,
            type=NUMBER,
            metavar="LOW HIGH",
            help="Smallest and largest pixel value. Default: 0 255; 0 1 for arrays that do not leave it.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            help="Samples at a time. Default: 32; students are trained on 128, of texts 32.",
        ),
        click.option(
            "--class-names",
            "class_names_path",
            type=EXISTING,
            metavar="FILE",
            help="The classes in the order in which the model numbers them, one name a line. Default: sorted.",
        ),
        click.option("--strict", is_flag=True, help="Refuse damaged images instead of leaving them out."),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Threads that read images; results do not depend on it. Default: one a core, at most 8.",
        ),
        click.option(
            "--cache",
            type=click.Choice(CACHES),
            help="Where decoded images are kept. Default: in memory, where data that are read again take up to 256 MB.",
        ),
        click.option(
            "--decoding",
            type=click.Choice(DECODINGS),
            help="Of large JPEGs: at a part of their size (the default), the same by OpenCV, or in full (slow).",
        ),
    )


data_options = _data_options(required=True)

student_options = _as_one(
    StudentChoice,
    "student",
    click.argument("student_path", metavar="STUDENT", type=STUDENT),
    click.option(
        "--preprocess",
        "scaling",
        type=click.Choice(SCALINGS),
        help="How images are scaled, where STUDENT does not say.",
    ),
    click.option(
        "--image-size", callback=image_size_of, metavar="H[xW]", help="Of images, where STUDENT does not say."
    ),
    click.option(
        "--pixel-range",
        nargs=2,
        type=NUMBER,
        metavar="LOW HIGH",
        help="Smallest and largest pixel value, where STUDENT does not say.",
    ),
    click.option(
        "--class-names",
        "class_names_path",
        type=EXISTING,
        metavar="FILE",
        help="The classes in the order in which STUDENT numbers them, one name a line, where it does not say.",
    ),
    click.option(
        "--allow-unsafe-deserialization",
        is_flag=True,
        help="Open a model that carries code. The file can then do anything that you can.",
    ),
)

synonym_options = _as_one(
    SynonymChoice,
    "synonyms",
    click.option(
        "--synonyms",
        "synonyms_path",
        type=SYNONYMS,
        metavar="FILE|wordnet",
        help="Word swaps: a file of pairs of words, or of word vectors. Default: WordNet, through NLTK.",
    ),
    click.option(
        "--antonyms",
        "antonyms_paths",
        multiple=True,
        type=EXISTING,
        help="Word swaps: pairs that never stand for each other; may be repeated.",
    ),
)


def validation_options(what: str) -> Decorator:
    """Data that nothing is trained on; `what` says what they are for."""
    return _as_one(
        ValidationChoice,
        "validation",
        click.option("--validation-data", type=EXISTING, help=what),
        click.option("--validation-split", type=click.Choice(["train", "test"]), help="A part of --validation-data."),
    )


inputs_option = click.option(
    "--inputs",
    "attack_paths",
    multiple=True,
    type=EXISTING,
    help="What `keras-remos attack` wrote, to measure DIR on; may be repeated.",
)

source_options = _all(teacher_argument, opening_options, data_options)
# Where something else may stand in for the data.
source_or_profile_options = _all(teacher_argument, opening_options, _data_options(required=False))

head_option = click.option(
    "--head", metavar="PATH", help="The layer that makes TEACHER's class scores, where it is not found."
)


def target_option(what: str, default: str) -> Decorator:
    """A class, which `class_number` finds."""
    return click.option("--target", metavar="CLASS", help=f"{what}, by its name or its number. Default: {default}.")


seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    callback=seed_of,
    default=0,
    show_default=True,
    help="Everything random follows from it.",
)

RECIPE = (
    *("epochs", "learning_rate", "optimizer", "momentum", "weight_decay"),
    *("warmup", "schedule", "augment", "label_smoothing"),
)


def recipe_options(command: Command) -> Command:
    """How a student is trained. The command gets those that were given, by name, as `recipe`."""

    @functools.wraps(command)
    def run(**kwargs: Any) -> Any:
        given = {name: value for name in RECIPE if (value := kwargs.pop(name)) is not None}
        return command(recipe=given, **kwargs)

    return _all(
        click.option("--epochs", type=click.IntRange(min=1), help="Default: 30; 3 for texts."),
        click.option(
            "--learning-rate",
            callback=rate_or_auto,
            metavar="RATE|auto",
            help="Its peak. Default: chosen on validation data where students are trained; else 0.005, texts 0.00005.",
        ),
        click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help="Default: sgd; adamw for texts."),
        click.option("--momentum", type=NUMBER, help="For sgd alone. Default: 0.9."),
        click.option("--weight-decay", type=NUMBER, help="Default: 0.0001, from scratch 0.0005; 0 for texts."),
        click.option("--warmup", type=NUMBER, help="Share of the steps. Default: 0.05."),
        click.option(
            "--schedule", type=click.Choice(["cosine", "linear", "constant"]), help="Default: cosine; linear for texts."
        ),
        click.option("--augment", type=click.Choice(["flip-crop", "none"]), help="Default: flip-crop, for images."),
        click.option("--label-smoothing", type=NUMBER, help="Default: 0."),
    )(run)


def recipe_given(data: DataChoice, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What the user said of how students are trained."""
    return {**recipe, **({} if data.batch_size is None else {"batch_size": data.batch_size})}


def adjusted(recipe: "Recipe", given: Mapping[str, Any]) -> "Recipe":
    """A recipe with what the user said of it.

    Raises:
        click.UsageError: If it makes no use of that.
    """
    made = replace(recipe, **given)
    if "momentum" in given and made.optimizer == "adamw":
        raise click.UsageError("--momentum is for sgd: leave it out with adamw, or add --optimizer sgd.")
    return made


slicing_options = _all(
    head_option,
    click.option("--preset", type=click.Choice(PRESETS), default="recommended", show_default=True),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="REGEX",
        help="Slice only layers whose path matches; may be repeated.",
    ),
    click.option("--steps", type=click.IntRange(min=1), help="Stop profiling after so many batches."),
)

limit_options = _as_one(
    Limits,
    "limits",
    click.option(
        "--strict-verdict",
        is_flag=True,
        help="Exit with code 3 where a student keeps no limit, has learned nothing, or nothing can be said of it.",
    ),
    click.option(
        "--max-excess",
        type=NUMBER,
        metavar="SHARE",
        help="The most that a student may inherit of what the control does, above the floor; without one above 0.",
    ),
    click.option(
        "--min-accuracy",
        type=NumberBetween(0),
        metavar="SHARE",
        help="The least that a student must have of the control's accuracy.",
    ),
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

output_options = _all(click.option("--force", is_flag=True, help="Replace existing files."), json_option)
