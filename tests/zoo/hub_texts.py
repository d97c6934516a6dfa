"""KerasHub's models of text, tiny: each backbone, and each task with a backbone of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub
from specimen import Specimen

LAYERS: dict[str, Any] = {"vocabulary_size": 12, "num_layers": 2, "intermediate_dim": 12}
ENCODER: dict[str, Any] = {**LAYERS, "num_heads": 2, "hidden_dim": 8}
BERT: dict[str, Any] = {**ENCODER, "max_sequence_length": 6}
# Decoders with fewer heads for keys than for queries.
GROUPED: dict[str, Any] = {**LAYERS, "num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 8}
EXPERTS: dict[str, Any] = {**GROUPED, "num_experts": 3, "top_k": 2}
QWEN_EXPERTS: dict[str, Any] = {
    **EXPERTS,
    "moe_intermediate_dim": 6,
    "norm_top_k_prob": True,
    "decoder_sparse_step": 1,
}
T5_GEMMA: dict[str, Any] = {
    "vocabulary_size": 12,
    "cross_attention_hidden_size": 8,
    "sliding_window": 4,
    **{
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "hidden_dim": 8,
            "intermediate_dim": 12,
            "num_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        }.items()
    },
}
# One layer of each kind of attention.
QWEN_MIXED: dict[str, Any] = {
    "vocabulary_size": 12,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "partial_rotary_factor": 0.25,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_conv_kernel_dim": 3,
}
SMOL: dict[str, Any] = {
    "vocabulary_size": 12,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False],
    "layer_types": ["attention", "attention"],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 16,
    "rope_theta": 1e4,
    "partial_rotary_factor": 1.0,
}
GEMMA_2: dict[str, Any] = {
    "attention_logit_soft_cap": 50,
    "final_logit_soft_cap": 30,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}
GEMMA_3: dict[str, Any] = {
    **GROUPED,
    "head_dim": 4,
    "image_size": 16,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}
GEMMA_3N: dict[str, Any] = {
    "text_vocab_size": 12,
    "text_hidden_size": 8,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": [12, 12],
    "hidden_activation": "gelu_approximate",
    "layer_types": ["full_attention", "sliding_attention"],
    "sliding_window": 4,
    "rope_theta": 1e4,
    "max_position_embeddings": 6,
    "vocab_size_per_layer_input": 12,
    "hidden_size_per_layer_input": 2,
    "altup_num_inputs": 2,
    "laurel_rank": 1,
}
RWKV: dict[str, Any] = {
    "vocabulary_size": 12,
    "hidden_size": 8,
    "num_layers": 2,
    "head_size": 4,
    "intermediate_dim": 12,
    "gate_lora": 4,
    "mv_lora": 4,
    "aaa_lora": 4,
    "decay_lora": 4,
}

# A second backbone of a class has a remark behind its name.
BACKBONES: dict[str, dict[str, Any]] = {
    "AlbertBackbone": {**BERT, "embedding_dim": 6},
    "BartBackbone": BERT,
    "BertBackbone": BERT,
    "BloomBackbone": ENCODER,
    "DebertaV3Backbone": BERT,
    "DistilBertBackbone": BERT,
    "EdRecBackbone": {
        "vocab_size": 12,
        "num_layers_enc": 2,
        "num_layers_dec": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 12,
    },
    "ElectraBackbone": {
        **{k: v for k, v in BERT.items() if k != "vocabulary_size"},
        "vocab_size": 12,
        "embedding_dim": 6,
    },
    "ESMBackbone": ENCODER,
    "FNetBackbone": {k: v for k, v in BERT.items() if k != "num_heads"},
    "FalconBackbone": {**LAYERS, "num_attention_heads": 2, "hidden_dim": 8},
    "GPT2Backbone": BERT,
    "GPTNeoXBackbone": {**BERT, "hidden_dim": 16},
    "Gemma3Backbone": GEMMA_3,
    "Gemma3nBackbone": GEMMA_3N,
    "Gemma4Backbone": GEMMA_3,
    "GemmaBackbone": {**GROUPED, "head_dim": 4},
    "GemmaBackbone (2)": {**GROUPED, "head_dim": 4, **GEMMA_2},
    "GptOssBackbone": {**EXPERTS, "sliding_window": 4},
    "Llama3Backbone": GROUPED,
    "LlamaBackbone": GROUPED,
    "LlamaBackbone (tied)": {**GROUPED, "tie_word_embeddings": True},
    "MistralBackbone": {**GROUPED, "sliding_window": 4},
    "MixtralBackbone": {**EXPERTS, "sliding_window": 4},
    "OPTBackbone": BERT,
    "Phi3Backbone": GROUPED,
    "Qwen3Backbone": {**GROUPED, "head_dim": 4},
    "Qwen3MoeBackbone": {**QWEN_EXPERTS, "head_dim": 4},
    "Qwen3_5Backbone": {**QWEN_MIXED, "intermediate_dim": 12},
    "Qwen3_5MoeBackbone": {
        **QWEN_MIXED,
        "moe_intermediate_dim": 6,
        "shared_expert_intermediate_size": 6,
        "num_experts": 3,
        "top_k": 2,
    },
    "QwenBackbone": GROUPED,
    "QwenMoeBackbone": {**QWEN_EXPERTS, "shared_expert_intermediate_dim": 8},
    "RWKV7Backbone": RWKV,
    "RobertaBackbone": BERT,
    "RoformerV2Backbone": {**ENCODER, "head_size": 4},
    "SmolLM3Backbone": SMOL,
    "T5Backbone": ENCODER,
    "T5Gemma2Backbone": T5_GEMMA,
    "T5GemmaBackbone": T5_GEMMA,
    "XLMRobertaBackbone": BERT,
    "XLNetBackbone": ENCODER,
}
CLASSIFIER: dict[str, Any] = {"num_classes": 3}
# The backbone of each task, and what else it takes.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "AlbertMaskedLM": ("AlbertBackbone", {}),
    "AlbertTextClassifier": ("AlbertBackbone", CLASSIFIER),
    "BartSeq2SeqLM": ("BartBackbone", {}),
    "BertMaskedLM": ("BertBackbone", {}),
    "BertTextClassifier": ("BertBackbone", CLASSIFIER),
    "BertTextEmbedder": ("BertBackbone", {}),
    "BloomCausalLM": ("BloomBackbone", {}),
    "DebertaV3MaskedLM": ("DebertaV3Backbone", {}),
    "DebertaV3TextClassifier": ("DebertaV3Backbone", CLASSIFIER),
    "DistilBertMaskedLM": ("DistilBertBackbone", {}),
    "DistilBertTextClassifier": ("DistilBertBackbone", CLASSIFIER),
    "ESMMaskedPLM": ("ESMBackbone", {}),
    "ESMProteinClassifier": ("ESMBackbone", CLASSIFIER),
    "EdRecSeq2SeqLM": ("EdRecBackbone", {}),
    "FNetMaskedLM": ("FNetBackbone", {}),
    "FNetTextClassifier": ("FNetBackbone", CLASSIFIER),
    "FalconCausalLM": ("FalconBackbone", {}),
    "GPT2CausalLM": ("GPT2Backbone", {}),
    "GPTNeoXCausalLM": ("GPTNeoXBackbone", {}),
    "Gemma3CausalLM": ("Gemma3Backbone", {"preprocessor": None}),
    "Gemma3TextEmbedder": ("Gemma3Backbone", {}),
    "Gemma3nCausalLM": ("Gemma3nBackbone", {"preprocessor": None}),
    "Gemma4AssistantCausalLM": (
        "Gemma4Backbone",
        {
            "backbone_hidden_size": 8,
            "num_centroids": 4,
            "centroid_intermediate_top_k": 2,
            "use_ordered_embeddings": True,
        },
    ),
    "Gemma4CausalLM": ("Gemma4Backbone", {"preprocessor": None}),
    "GemmaCausalLM": ("GemmaBackbone", {}),
    "GptOssCausalLM": ("GptOssBackbone", {}),
    "Llama3CausalLM": ("Llama3Backbone", {}),
    "LlamaCausalLM": ("LlamaBackbone", {}),
    "MistralCausalLM": ("MistralBackbone", {}),
    "MixtralCausalLM": ("MixtralBackbone", {}),
    "OPTCausalLM": ("OPTBackbone", {}),
    "Phi3CausalLM": ("Phi3Backbone", {}),
    "Qwen2CausalLM": ("QwenBackbone", {}),
    "Qwen3CausalLM": ("Qwen3Backbone", {}),
    "Qwen3MoeCausalLM": ("Qwen3MoeBackbone", {}),
    "Qwen3TextEmbedder": ("Qwen3Backbone", {}),
    "Qwen3_5CausalLM": ("Qwen3_5Backbone", {}),
    "Qwen3_5MoeCausalLM": ("Qwen3_5MoeBackbone", {}),
    "QwenMoeCausalLM": ("QwenMoeBackbone", {}),
    "RWKV7CausalLM": ("RWKV7Backbone", {}),
    "RobertaMaskedLM": ("RobertaBackbone", {}),
    "RobertaTextClassifier": ("RobertaBackbone", CLASSIFIER),
    "RoformerV2MaskedLM": ("RoformerV2Backbone", {}),
    "RoformerV2TextClassifier": ("RoformerV2Backbone", CLASSIFIER),
    "SmolLM3CausalLM": ("SmolLM3Backbone", {}),
    "T5Gemma2Seq2SeqLM": ("T5Gemma2Backbone", {}),
    "T5GemmaSeq2SeqLM": ("T5GemmaBackbone", {}),
    "T5Seq2SeqLM": ("T5Backbone", {}),
    "XLMRobertaMaskedLM": ("XLMRobertaBackbone", {}),
    "XLMRobertaTextClassifier": ("XLMRobertaBackbone", CLASSIFIER),
    "XLMRobertaTextEmbedder": ("XLMRobertaBackbone", {}),
}
# RWKV works through a sequence in pieces of 16.
SHAPES = {name: {"token_ids": (16,), "padding_mask": (16,)} for name in ("RWKV7Backbone", "RWKV7CausalLM")}


def backbone(name: str) -> keras.Model:
    return getattr(keras_hub.models, name.partition(" ")[0])(**BACKBONES[name])


def build_task(name: str) -> Callable[[], keras.Model]:
    body, options = TASKS[name]
    return lambda: getattr(keras_hub.models, name)(backbone=backbone(body), **options)


# Its configuration does not say that it is tied (KerasHub 0.32).
REFUSED = {"LlamaBackbone (tied)": "leaves out tie_word_embeddings=True"}


# On PyTorch it does (KerasHub 0.32).
CHANGED = {"Gemma3nCausalLM": "KerasHub's own model, opened again, predicts something else on this backend"}

SPECIMENS = [
    *(
        Specimen(name, lambda name=name: backbone(name), SHAPES.get(name, {}), refused=REFUSED.get(name))
        for name in BACKBONES
    ),
    *(
        Specimen(
            name,
            build_task(name),
            SHAPES.get(name, {}),
            changed=CHANGED.get(name) if keras.backend.backend() != "torch" else None,
        )
        for name in TASKS
    ),
]
