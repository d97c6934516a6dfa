"""A folder as Hugging Face has it: a tiny BERT, with its weights in safetensors that an index names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import text_toys

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 12,
    "hidden_dropout_prob": 0.0,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
}
SHARD = "model-00001-of-00001.safetensors"


def write(folder: Path, **changed: Any) -> Path:
    """The folder, whose configuration may say something else than its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _weights()
    (folder / "config.json").write_text(json.dumps(CONFIG | changed))
    (folder / "vocab.txt").write_text("\n".join(text_toys.word_pieces()))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / SHARD).write_bytes(safetensors(tensors))
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, SHARD)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """The bytes of a file of them."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values())


def _weights() -> dict[str, np.ndarray]:
    """Random ones, under the names that BERT's have there."""
    size, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], size),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], size),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], size),
    }
    layer = "encoder.layer.0."
    dense = {f"{layer}attention.self.{name}": (size, size) for name in ("query", "key", "value")}
    dense |= {f"{layer}attention.output.dense": (size, size), f"{layer}intermediate.dense": (inner, size)}
    dense |= {f"{layer}output.dense": (size, inner), "pooler.dense": (size, size)}
    for name, shape in dense.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in ("embeddings.LayerNorm", f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"):
        shapes |= {f"{name}.gamma": (size,), f"{name}.beta": (size,)}
    rng = np.random.default_rng(0)
    return {name: rng.normal(scale=0.1, size=shape).astype(np.float32) for name, shape in shapes.items()}
