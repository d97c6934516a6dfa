"""KerasHub's models of several kinds of input, of sound, of video and of diffusion, tiny."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import hub_texts
import keras
import numpy as np
from hub_texts import ENCODER
from keras_hub import models
from keras_hub.src.models.sam3.sam3_detr_decoder import SAM3DetrDecoder
from keras_hub.src.models.sam3.sam3_detr_encoder import SAM3DetrEncoder
from keras_hub.src.models.sam3.sam3_geometry_encoder import SAM3GeometryEncoder
from keras_hub.src.models.sam3.sam3_mask_decoder import SAM3MaskDecoder
from keras_hub.src.models.sam3.sam3_text_encoder import SAM3TextEncoder
from keras_hub.src.models.sam3.sam3_vision_encoder import SAM3VisionEncoder
from keras_hub.src.models.vae.vae_backbone import VAEBackbone
from specimen import Specimen

WHISPER: dict[str, Any] = {
    **ENCODER,
    "num_mels": 8,
    "max_encoder_sequence_length": 8,
    "max_decoder_sequence_length": 8,
}
MOONSHINE: dict[str, Any] = {
    "vocabulary_size": 12,
    "filter_dim": 8,
    "encoder_num_layers": 1,
    "decoder_num_layers": 1,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "encoder_num_heads": 2,
    "decoder_num_heads": 2,
    "max_position_embeddings": 16,
}
PALI: dict[str, Any] = {
    **hub_texts.GROUPED,
    "image_size": 16,
    "head_dim": 4,
    "vit_patch_size": 4,
    "vit_num_layers": 1,
    "vit_num_heads": 2,
    "vit_hidden_dim": 8,
    "vit_intermediate_dim": 12,
}
VIDEO: dict[str, Any] = {
    "image_shape": (8, 8, 3),
    "num_frames": 2,
    "patch_size": 4,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "num_heads": 2,
    "num_spatial_layers": 1,
    "num_temporal_layers": 1,
    "num_auxiliary_layers": 1,
    "vocabulary_size": 12,
    "num_text_layers": 1,
    "attention_logit_soft_cap": 50.0,
}
# Sixteen patches of an image become four tokens.
IMAGE_TOKENS = 4
TEXT_WITH_IMAGE = 8


def pair(kind: str, tokens: int) -> dict[str, Any]:
    """The two encoders of a model of images and texts."""
    vision = getattr(models, f"{kind}VisionEncoder")
    text = getattr(models, f"{kind}TextEncoder")
    return {
        "vision_encoder": vision(4, 8, 2, 2, 12, image_shape=(16, 16, 3), name="vision_encoder"),
        "text_encoder": text(12, 8, 8, 2, 2, 12, max_sequence_length=tokens, name="text_encoder"),
    }


def blip(language_model: keras.Model | None = None) -> dict[str, Any]:
    return {
        "vision_encoder": models.BLIP2VisionEncoder(
            image_size=16,
            patch_size=4,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            use_patch_bias=True,
            use_class_token=True,
            use_mha_bias=True,
            use_mlp_bias=True,
            dropout_rate=0.0,
            layer_norm_epsilon=1e-6,
            initializer_range=0.02,
        ),
        "qformer": models.BLIP2QFormer(
            num_query_tokens=2,
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            vision_dim=8,
            cross_attention_frequency=1,
            dropout=0.0,
            layer_norm_epsilon=1e-6,
        ),
        "language_model": language_model
        or models.BLIP2CustomOPT(
            **ENCODER, num_query_tokens=2, qformer_hidden_dim=8, max_sequence_length=10, dropout=0.0
        ),
    }


def blip_t5() -> dict[str, Any]:
    return blip(models.BLIP2FlanT5(**ENCODER, key_value_dim=4, num_query_tokens=2, qformer_hidden_dim=8, dropout=0.0))


def gemma3() -> dict[str, Any]:
    vision = models.Gemma3VisionEncoder(
        image_size=16,
        patch_size=4,
        pool_size=2,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        output_dim=8,
    )
    return {**hub_texts.GEMMA_3, "vision_encoder": vision}


def gemma4() -> dict[str, Any]:
    vision = models.Gemma4VisionEncoder(
        image_size=16,
        patch_size=4,
        pool_size=2,
        num_layers=1,
        num_heads=2,
        head_dim=4,
        num_key_value_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        output_dim=8,
    )
    return {**hub_texts.GEMMA_3, "vision_encoder": vision}


def parseq() -> dict[str, Any]:
    encoder = models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(4, 4),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
        use_class_token=False,
        name="image_encoder",
    )
    return {
        "image_encoder": encoder,
        # That of its tokenizer.
        "vocabulary_size": 97,
        "max_label_length": 6,
        "decoder_hidden_dim": 8,
        "num_decoder_layers": 1,
        "num_decoder_heads": 2,
        "decoder_mlp_dim": 12,
    }


def diffusion() -> dict[str, Any]:
    def text(name: str, activation: str) -> keras.Model:
        return models.CLIPTextEncoder(12, 8, 8, 2, 2, 12, activation, -2, max_sequence_length=6, name=name)

    return {
        "mmdit_patch_size": 2,
        "mmdit_hidden_dim": 8,
        "mmdit_num_layers": 2,
        "mmdit_num_heads": 2,
        "mmdit_position_size": 16,
        "mmdit_qk_norm": None,
        "mmdit_dual_attention_indices": None,
        "vae": VAEBackbone(
            [32, 32, 32, 32], [1, 1, 1, 1], [32, 32, 32, 32], [1, 1, 1, 1], sampler_method="mode", name="vae"
        ),
        "clip_l": text("clip_l", "quick_gelu"),
        "clip_g": text("clip_g", "gelu"),
        "image_shape": (32, 32, 3),
    }


def flux() -> dict[str, Any]:
    return {
        "input_channels": 8,
        "hidden_size": 16,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [4, 2, 2],
        "theta": 10_000,
        "use_bias": True,
        "guidance_embed": True,
        "image_shape": (4, 8),
        "text_shape": (4, 8),
        "image_ids_shape": (4, 3),
        "text_ids_shape": (4, 3),
        "y_shape": (8,),
    }


def sam3() -> dict[str, Any]:
    size = {"hidden_dim": 8, "intermediate_dim": 12, "num_heads": 2}
    image = {"image_shape": (28, 28, 3), "patch_size": 14}
    return {
        "vision_encoder": SAM3VisionEncoder(
            **image,
            **size,
            num_layers=2,
            fpn_hidden_dim=8,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(42, 42, 3),
            window_size=2,
            global_attn_indexes=[1],
        ),
        "text_encoder": SAM3TextEncoder(vocabulary_size=12, embedding_dim=8, num_layers=1, **size),
        "geometry_encoder": SAM3GeometryEncoder(num_layers=1, roi_size=7, **size),
        "detr_encoder": SAM3DetrEncoder(num_layers=1, **size),
        "detr_decoder": SAM3DetrDecoder(num_layers=1, num_queries=4, **image, **size),
        "mask_decoder": SAM3MaskDecoder(num_upsampling_stages=3, hidden_dim=8, num_heads=2),
    }


BACKBONES: dict[str, Callable[[], dict[str, Any]]] = {
    "BLIP2Backbone": blip,
    "BLIP2Backbone (T5)": blip_t5,
    "CLIPBackbone": lambda: {**pair("CLIP", 6), "projection_dim": 8},
    "FluxBackbone": flux,
    "Gemma3Backbone (with images)": gemma3,
    "Gemma4Backbone (with images)": gemma4,
    "MetaCLIP2Backbone": lambda: {**pair("MetaCLIP2", 6), "projection_dim": 8},
    "MoonshineBackbone": lambda: MOONSHINE,
    "PARSeqBackbone": parseq,
    "PaliGemmaBackbone": lambda: PALI,
    "SAM3PromptableConceptBackbone": sam3,
    "SigLIPBackbone": lambda: pair("SigLIP", 6),
    "StableDiffusion3Backbone": diffusion,
    "VideoPrismBackbone": lambda: VIDEO,
    "WhisperBackbone": lambda: WHISPER,
}
NO_TEXT: dict[str, Any] = {"preprocessor": None}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "BLIP2CausalLM": ("BLIP2Backbone", NO_TEXT),
    "BLIP2Seq2SeqLM": ("BLIP2Backbone (T5)", NO_TEXT),
    "FluxTextToImage": ("FluxBackbone", NO_TEXT),
    "MoonshineAudioToText": ("MoonshineBackbone", NO_TEXT),
    "PaliGemmaCausalLM": ("PaliGemmaBackbone", NO_TEXT),
    "SAM3PromptableConceptImageSegmenter": ("SAM3PromptableConceptBackbone", NO_TEXT),
    "StableDiffusion3ImageToImage": ("StableDiffusion3Backbone", NO_TEXT),
    "StableDiffusion3Inpaint": ("StableDiffusion3Backbone", NO_TEXT),
    "StableDiffusion3TextToImage": ("StableDiffusion3Backbone", NO_TEXT),
}
PATCHES = {"pixel_values": (1, 16, 48), "pixel_position_ids": (1, 16, 2)}
WITH_IMAGE = {
    "token_ids": (TEXT_WITH_IMAGE,),
    "padding_mask": (TEXT_WITH_IMAGE,),
    "vision_mask": (TEXT_WITH_IMAGE,),
    "position_ids": (TEXT_WITH_IMAGE,),
    "vision_indices": (IMAGE_TOKENS,),
    "images": (1, 16, 16, 3),
}
SHAPES: dict[str, Mapping[str, tuple[int, ...]]] = {
    "Gemma3Backbone (with images)": WITH_IMAGE,
    "Gemma4Backbone (with images)": {**WITH_IMAGE, **PATCHES},
    "Moonshine": {"encoder_input_values": (2000, 1), "encoder_padding_mask": (2000,)},
    # With its own token as many boxes as there are samples: its masks of attention have no axis for the queries.
    "SAM3": {"token_ids": (32,), "padding_mask": (32,), "boxes": (3, 5), "box_labels": (3,)},
    "Whisper": {"encoder_features": (8, 8)},
}
VALUES = {
    # The image stands at the beginning of the text.
    "vision_mask": lambda rng, shape: np.arange(shape[1])[None] < np.full((shape[0], 1), IMAGE_TOKENS),
    "vision_indices": lambda rng, shape: np.tile(np.arange(shape[1]), (shape[0], 1)),
    "position_ids": lambda rng, shape: np.tile(np.arange(shape[1]), (shape[0], 1)),
    # Which sample, and a box in the middle of it.
    "boxes": lambda rng, shape: np.insert(rng.uniform(0.3, 0.5, (*shape[:2], 4)), 0, np.arange(shape[0])[:, None], -1),
    "pixel_position_ids": lambda rng, shape: np.tile(np.indices((4, 4)).reshape(2, -1).T, (shape[0], 1, 1, 1)),
}

TILED = "KerasHub trains positions that it has tiled to the size of its images, and keeps them as they were before"
CHANGED = {"SAM3PromptableConceptBackbone": TILED, "SAM3PromptableConceptImageSegmenter": TILED}


def backbone(name: str) -> keras.Model:
    return getattr(models, name.partition(" ")[0])(**BACKBONES[name]())


def build_task(name: str) -> Callable[[], keras.Model]:
    body, options = TASKS[name]
    return lambda: getattr(models, name)(backbone=backbone(body), **options)


def reader() -> keras.Model:
    """It asks its preprocessor for the tokens to begin and to end with."""
    preprocessor = models.PARSeqCausalLMPreprocessor(tokenizer=models.PARSeqTokenizer())
    return models.PARSeqCausalLM(preprocessor, backbone("PARSeqBackbone"))


def shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    return next((found for start, found in SHAPES.items() if name.startswith(start)), {})


SPECIMENS = [
    *(
        Specimen(name, lambda name=name: backbone(name), shapes(name), VALUES, changed=CHANGED.get(name))
        for name in BACKBONES
    ),
    *(Specimen(name, build_task(name), shapes(name), VALUES, changed=CHANGED.get(name)) for name in TASKS),
    Specimen("PARSeqCausalLM", reader),
]
