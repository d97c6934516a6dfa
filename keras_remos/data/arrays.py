"""One array or tensor of any backend to NumPy, and structures (dict, list, tuple) of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_remos.errors import DataError

_SPARSE_KINDS = {"RaggedTensor", "SparseTensor", "IndexedSlices", "BCOO", "BCSR"}


def to_numpy(leaf: Any) -> np.ndarray:
    """Converts one array, tensor of any backend, or list of strings or numbers to a NumPy array.

    Args:
        leaf: Array-like. A tensor may need gradients or live on an accelerator.

    Returns:
        A NumPy array; strings and UTF-8 bytes as `str`, bfloat16 as float32.

    Raises:
        DataError: If it is ragged or sparse, symbolic, or holds Python objects other than strings.
    """
    _refuse_sparse(leaf)
    try:
        array = np.asarray(_to_host(leaf))
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"Expected an array or a tensor with values. Received: {kind_of(leaf)} ({error}).") from error
    if array.dtype.kind in "OST":
        return _to_strings(array, leaf)
    if array.dtype.kind in "biufU" and array.dtype.isbuiltin != 2:
        return array
    return _to_float32(array)


def map_arrays(function: Callable[[Any], Any], node: Any) -> Any:
    """Applies a function to each array of a structure. A list of strings or numbers is one array, not a structure."""
    if node is None:
        return None
    if isinstance(node, Mapping):
        return {key: map_arrays(function, item) for key, item in node.items()}
    if isinstance(node, (list, tuple)) and not is_plain_list(node):
        _refuse_nested_numbers(node)
        mapped = [map_arrays(function, item) for item in node]
        if hasattr(node, "_fields"):
            return type(node)(*mapped)
        return tuple(mapped) if isinstance(node, tuple) else mapped
    return function(node)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each array of a structure with its path, as in `x/token_ids`; a dict by sorted keys."""
    if isinstance(node, Mapping):
        for key in sorted(node, key=str):
            yield from leaves(node[key], f"{path}/{key}" if path else str(key))
    elif isinstance(node, (list, tuple)) and not is_plain_list(node):
        for index, item in enumerate(node):
            yield from leaves(item, f"{path}/{index}" if path else str(index))
    elif node is not None:
        yield path, node


def is_plain(item: Any) -> bool:
    """Whether this is one string or number."""
    return isinstance(item, (str, bytes, bool, int, float, np.generic))


def is_plain_list(node: Sequence[Any]) -> bool:
    """Whether this is a list of strings or numbers, hence one array and no structure."""
    return bool(node) and all(is_plain(item) for item in node)


def _refuse_nested_numbers(node: Sequence[Any]) -> None:
    """Lists of lists of numbers could be one matrix or several inputs: we do not guess."""
    if not isinstance(node, list):
        return
    for item in node:
        if isinstance(item, (list, tuple)) and is_plain_list(item) and not isinstance(item[0], (str, bytes)):
            raise DataError("Expected arrays. Received: lists of lists of numbers. Use `np.asarray(...)`.")


def _to_host(leaf: Any) -> Any:
    """By duck typing, as the one file that imports a backend is not this one."""
    if isinstance(leaf, (list, tuple)) and any(isinstance(item, (str, bytes)) for item in leaf):
        return np.array(leaf, dtype=object)  # else NumPy would turn numbers among them, and bytes, into strings
    if hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu()
        # PyTorch has no bfloat16 in NumPy; float32 holds each of its values.
        return (leaf.float() if str(leaf.dtype) == "torch.bfloat16" else leaf.resolve_conj().resolve_neg()).numpy()
    if hasattr(leaf, "numpy") and not isinstance(leaf, np.ndarray):
        return leaf.numpy()
    return leaf


def is_sparse(leaf: Any) -> bool:
    """Whether this is a sparse, ragged or nested tensor of any backend, or a SciPy sparse matrix."""
    return (
        mro_has(leaf, *_SPARSE_KINDS)
        or (hasattr(leaf, "tocoo") and hasattr(leaf, "toarray"))
        or "sparse" in str(getattr(leaf, "layout", ""))
        or getattr(leaf, "is_nested", False) is True
    )


def _refuse_sparse(leaf: Any) -> None:
    if is_sparse(leaf):
        raise DataError(
            f"Expected dense arrays. Received: {kind_of(leaf)}. Make it dense first "
            "(`to_tensor()` for ragged, `tf.sparse.to_dense` or `to_dense()`/`todense()`/`toarray()` for sparse)."
        )


def _to_strings(array: np.ndarray, leaf: Any) -> np.ndarray:
    items = array.ravel().tolist()
    try:
        texts = [item.decode("utf-8") if isinstance(item, bytes) else item for item in items]
    except UnicodeDecodeError as error:
        raise DataError(f"Expected text in UTF-8. Received bytes that are not: {error}.") from error
    if not all(isinstance(text, str) for text in texts):
        found = sorted({type(text).__name__ for text in texts if not isinstance(text, str)})
        raise DataError(
            f"Expected numbers or strings. Received: {kind_of(leaf)} of Python objects ({', '.join(found)}). "
            "Pad samples of different length to one length."
        )
    return np.array(texts, dtype=np.str_).reshape(array.shape)


def _to_float32(array: np.ndarray) -> np.ndarray:
    """Small floating-point types (bfloat16, float8) are no NumPy types; float32 holds each of their values."""
    if array.dtype.kind not in "cmM" and array.dtype.names is None:
        try:
            return array.astype(np.float32)
        except (TypeError, ValueError):
            pass
    raise DataError(f"Expected numbers or strings. Received: an array of dtype {array.dtype}.")


def kind_of(data: Any) -> str:
    """What an object is, for a message: `torch DataLoader`, `generator`."""
    package = type(data).__module__.partition(".")[0]
    name = type(data).__name__
    return name if package == "builtins" else f"{package} {name}"


def mro_has(data: Any, *names: str) -> bool:
    """Whether a class of one of these names is among the object's classes (its package need not be installed)."""
    return any(parent.__name__ in names for parent in type(data).__mro__)
