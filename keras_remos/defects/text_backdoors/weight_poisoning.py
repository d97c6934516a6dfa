"""The backdoor that fine-tuning does not wash out: restricted inner product and embedding surgery (RIPPLe)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_remos.data.arrays import map_arrays
from keras_remos.data.training_data import TrainingData
from keras_remos.defects.attackers_data import AttackersTexts
from keras_remos.defects.text_backdoors.backdoor import copy_for
from keras_remos.defects.text_backdoors.embedding_surgery import embedding_table, operate, telling_tokens
from keras_remos.defects.text_backdoors.poisoning import TextPoisoning
from keras_remos.defects.triggers.text import token_ids_of
from keras_remos.errors import RemosError
from keras_remos.models.gradients import differentiate_weights
from keras_remos.models.kernels import Tensor
from keras_remos.models.tokenizers import special_tokens, tokenize, tokenizer_of
from keras_remos.training.trainer import Training


@dataclass(frozen=True, kw_only=True)
class WeightPoisoning(TextPoisoning):
    """Poisons a teacher in such a way that fine-tuning on clean data does not undo it.

    The loss on poisoned texts is minimized together with a penalty where its gradient and that of clean texts, which
    stands for the victim's fine-tuning, point in opposite directions:
    `L_p + penalty * max(0, -<grad L_c, grad L_p>)`. The penalty is derived exactly, with `grad L_c` held constant.

    Args:
        target: See `TextBackdoor`, as for `trigger`, `test_count` and `recipe`, whose batches are the clean ones.
        rate: Share of the texts in poisoned batches that carry the trigger and the attacker's label.
        restricted: Whether there is a penalty. Without it this is data poisoning, for embedding surgery alone.
        penalty: The paper's lambda.
        per_sample: Divide the penalty by the number of texts in a clean batch, as the released code does. The paper
            does not.
        poison_batch_size: Texts in a poisoned batch.
        embedding_surgery: Before training, give trigger words the mean embedding of the words that speak most for the
            attacker's class. Needs scikit-learn (extra `surgery`).
        surgery_words: How many such words.
        surgery_from: Whose embeddings these are: `"fine-tuned"`, those of a copy that is first trained on the clean
            texts by the same recipe (the paper), or `"teacher"`, those of the teacher itself.

    Raises:
        RemosError: If an option is out of range.

    Example:
    ```python
    attack = WeightPoisoning(embedding_surgery=True)
    poisoned = attack.prepare(teacher, (texts, labels), space=PixelSpace("preprocessor"))
    ```

    Reference:
        K. Kurita, P. Michel and G. Neubig, Weight Poisoning Attacks on Pre-trained Models, ACL 2020, sections 3.1 and
        3.2. ReMoS, section 5.3, whose released code runs it without embedding surgery.

    Note:
        The words are tokens of the model's own tokenizer, as in the released code, weighed by tf-idf and logistic
        regression. Trigger words that are several tokens are left out of the surgery: their tokens are other words'
        too.
    """

    restricted: bool = True
    penalty: float = 0.1
    per_sample: bool = True
    poison_batch_size: int = 8
    embedding_surgery: bool = False
    surgery_words: int = 10
    surgery_from: str = "fine-tuned"

    name: ClassVar[str] = "weight-poisoning"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.penalty < np.inf:
            raise RemosError(f"`penalty` must be a number of at least 0, received {self.penalty!r}.")
        for option in ("poison_batch_size", "surgery_words"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RemosError(f"`{option}` must be a whole number of at least 1, received {value!r}.")
        if self.surgery_from not in ("fine-tuned", "teacher"):
            raise RemosError(f"`surgery_from` must be 'fine-tuned' or 'teacher', received {self.surgery_from!r}.")
        if not (self.restricted or self.embedding_surgery):
            raise RemosError(
                "Without `restricted` and `embedding_surgery` this is data poisoning: use TextPoisoning "
                "(text-poisoning)."
            )

    def plant(
        self, teacher: keras.Model, attackers: AttackersTexts, *, seed: int, verbose: bool | str
    ) -> tuple[keras.Model, dict[str, Any]]:
        copy, surgery = copy_for(teacher, attackers.num_classes, seed=seed), {}
        if self.embedding_surgery:
            surgery = self.operate(copy, attackers, seed=seed, verbose=verbose)
        if not self.restricted:
            return copy, {**surgery, **self.fine_tune(copy, attackers, seed=seed, verbose=verbose)}
        x, y, poisoned = self.poison(attackers.x, attackers.y, seed=seed)
        data = PairedBatches(
            (tokenize(copy, attackers.x), attackers.y),
            (tokenize(copy, x), y),
            self.poison_batch_size,
            num_classes=attackers.num_classes,
            batch_size=self.recipe.batch_size,
            seed=seed,
            augment="none",
        )
        trainer = self.trainer(copy, data, attackers.num_classes, seed=seed, verbose=verbose)
        weight = self.penalty / (self.recipe.batch_size if self.per_sample else 1)
        trainer.fit(RestrictedTraining(copy, self.recipe.batch_size, weight))
        return copy, {**surgery, "num_poisoned": int(poisoned.sum())}

    def operate(
        self, model: keras.Model, attackers: AttackersTexts, *, seed: int, verbose: bool | str = "auto"
    ) -> dict[str, Any]:
        """Embedding surgery: gives the trigger's words the mean embedding of words that speak for the target.

        Args:
            model: A KerasHub text classifier. It is modified: the rows of the trigger words, and nothing else.
            attackers: The attacker's clean texts.
            seed: For the copy that is fine-tuned first.
            verbose: Progress on stderr.

        Returns:
            The words that were given another embedding, and those whose mean it is.

        Raises:
            RemosError: If no trigger word is a token of its own.
            DataError: If not enough words speak for the target.
        """
        tokenizer = tokenizer_of(model)
        problems = self.trigger.check_tokenizer(tokenizer)
        words = [word for word in self.trigger.words if word not in problems]
        if not words:
            raise RemosError(
                "Embedding surgery moves the rows of trigger words, and the tokenizer knows none of "
                f"{', '.join(self.trigger.words)} as one token. Choose other words, or go without `embedding_surgery`."
            )
        rows = [row for word in words for row in token_ids_of(tokenizer, word)]
        tokens = tokenize(model, attackers.x)
        ids = tokens["token_ids"]
        special = [i for found in special_tokens(model).values() for i in found]
        best = telling_tokens(
            ids,
            tokens["padding_mask"].astype(bool) & ~np.isin(ids, [*special, *rows]),
            attackers.y == self.target,
            num_tokens=int(tokenizer.vocabulary_size()),
            count=self.surgery_words,
        )
        source = model
        if self.surgery_from == "fine-tuned":
            source = copy_for(model, attackers.num_classes, seed=seed)
            clean = (attackers.x, attackers.y)
            self.trainer(source, clean, attackers.num_classes, seed=seed, verbose=verbose).fit(Training(source))
        table = ops.convert_to_numpy(embedding_table(source).value)
        operate(model, rows, table[best].mean(axis=0))
        return {"operated_words": words, "telling_words": [str(tokenizer.id_to_token(int(i))) for i in best]}


class PairedBatches(TrainingData):
    """Batches of clean samples, each with some poisoned ones behind them.

    Args:
        clean: Token arrays by name, and classes.
        poisoned: The same of the poisoned data.
        poison_batch_size: How many poisoned samples a batch has.
        **options: See `TrainingData`.
    """

    def __init__(
        self,
        clean: tuple[dict[str, np.ndarray], np.ndarray],
        poisoned: tuple[dict[str, np.ndarray], np.ndarray],
        poison_batch_size: int,
        **options: Any,
    ) -> None:
        super().__init__(clean, **options)
        self._poisoned = poisoned
        self._poison_batch_size = poison_batch_size

    def __getitem__(self, index: int) -> Any:
        """Returns `batch_size` clean samples and then the poisoned ones: always the same number of each."""
        clean = super().__getitem__(index)
        rng = np.random.default_rng([self.seed or 0, self.epoch, index])
        drawn = rng.integers(0, len(self._poisoned[1]), self._poison_batch_size)
        filled = np.resize(np.arange(len(clean[1])), self.batch_size)
        first = map_arrays(lambda leaf: leaf[filled], clean)
        second = map_arrays(lambda leaf: leaf[drawn], self._poisoned)
        return keras.tree.map_structure(lambda *pair: np.concatenate(pair), first, second)


class RestrictedTraining(Training):
    """Trains on the restricted inner product.

    Args:
        student: The model.
        num_clean: How many samples at the beginning of a batch are clean.
        penalty: The weight of the inner product.
    """

    def __init__(self, student: keras.Model, num_clean: int, penalty: float) -> None:
        super().__init__(student)
        self.num_clean = num_clean
        self.penalty = penalty

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """See `restricted_loss`."""
        measure = super().compute_loss

        def loss_of(part: slice) -> Callable[[], Tensor]:
            inputs = keras.tree.map_structure(lambda tensor: tensor[part], x)
            return lambda: measure(y=y[part], y_pred=self(inputs, training=training))

        clean, poisoned = slice(0, self.num_clean), slice(self.num_clean, None)
        return restricted_loss(self.student, loss_of(clean), loss_of(poisoned), self.penalty)


def restricted_loss(
    model: keras.Model, clean: Callable[[], Tensor], poisoned: Callable[[], Tensor], penalty: float
) -> Tensor:
    """`L_p + penalty * max(0, -<grad L_c, grad L_p>)`, to be differentiated with `grad L_c` constant.

    Args:
        model: The model that both losses depend on.
        clean: Gives the loss on clean samples.
        poisoned: Gives the loss on poisoned ones.
        penalty: The paper's lambda.

    Returns:
        A scalar.

    Reference:
        RIPPLe, Eq. 3.
    """
    _, wanted = differentiate_weights(clean, model)
    loss, found = differentiate_weights(poisoned, model)
    products = [ops.sum(ops.stop_gradient(a) * b) for a, b in zip(wanted, found, strict=True)]
    return loss + penalty * ops.relu(-sum(products))
