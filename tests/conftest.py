"""One backend per process: `KERAS_BACKEND` chooses it. PyTorch is imported before TensorFlow, or the process dies."""

import contextlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# PyTorch's threads spin while they wait, and starve each other where something else wants the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Most of the time goes into compiling toys; the parity and command line tests run with XLA's optimizations on.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Without oneDNN, which TensorFlow leaves off on some processors, it knows no channels_first on a CPU.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
with contextlib.suppress(ImportError):
    import torch

    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
    # TF32 would round activations on a GPU to ten bits, and counts to near misses.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

import pytest

import keras_remos  # noqa: F401 (takes the backend that is installed, before a test imports Keras)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test leaves to chance is the same in every run, whichever tests ran before: toys have few neurons."""
    import keras

    keras.utils.set_random_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs KerasHub, which brings TensorFlow's text library: `-m text` runs it on any backend."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item.module, "text_toys"):
            item.add_marker("text")
