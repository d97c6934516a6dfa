"""KerasHub's models of images, tiny: each backbone, and each task with a backbone of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import keras_hub
from keras_hub.models import DINOV2Backbone, HGNetV2Backbone, MiTBackbone, ResNetBackbone, ViTDetBackbone
from specimen import Specimen

VIT: dict[str, Any] = {
    "image_shape": (16, 16, 3),
    "patch_size": 4,
    "num_layers": 2,
    "hidden_dim": 8,
    "num_heads": 2,
}
RESNET: dict[str, Any] = {
    # KerasHub takes nothing but 64 for these two.
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 8],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
    "block_type": "basic_block",
}
RESNET_4: dict[str, Any] = {
    **RESNET,
    "stackwise_num_filters": [64, 8, 8, 8],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
}
MIT: dict[str, Any] = {
    "layerwise_depths": [1, 1],
    "image_shape": (32, 32, 3),
    "hidden_dims": [4, 8],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [4, 2],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
}
HGNET: dict[str, Any] = {
    "embedding_size": 4,
    "stem_channels": [3, 4, 4],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "image_shape": (None, None, 3),
    "depths": [1, 1],
    "hidden_sizes": [8, 8],
    "stackwise_stage_filters": [[4, 4, 8, 1, 1, 3], [8, 4, 8, 1, 1, 3]],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
    "out_features": ["stage1", "stage2"],
}
EFFICIENT: dict[str, Any] = {
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [4, 4],
    "stackwise_output_filters": [4, 8],
    "stackwise_expansion_ratios": [1, 2],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.25],
    "stackwise_strides": [1, 2],
    "stackwise_block_types": ["fused", "unfused"],
    "stackwise_force_input_filters": [0, 0],
    "stackwise_nores_option": [False, False],
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
}
MOBILE: dict[str, Any] = {
    "stackwise_expansion": [[8, 12], [16]],
    "stackwise_num_blocks": [2, 1],
    "stackwise_num_filters": [[8, 8], [8]],
    "stackwise_kernel_size": [[3, 3], [5]],
    "stackwise_num_strides": [[2, 1], [1]],
    "stackwise_se_ratio": [[None, None], [0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish"]],
    "stackwise_padding": [[1, 1], [2]],
    "output_num_filters": 16,
    "input_activation": "hard_swish",
    "output_activation": "hard_swish",
    "input_num_filters": 8,
    "image_shape": (32, 32, 3),
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "squeeze_and_excite": 0.5,
    "last_layer_filter": 16,
}
# One block of each of the three kinds.
MOBILE_5: dict[str, Any] = {
    "stackwise_block_types": [["er"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[8], [8, 8]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[2.0], [2.0, 2.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [3, 3]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 2]],
    "stackwise_key_dims": [[0], [0, 4]],
    "stackwise_value_dims": [[0], [0, 4]],
    "stackwise_kv_strides": [[0], [0, 1]],
    "stackwise_use_cpe": [[False], [False, False]],
    "image_shape": (32, 32, 3),
    "stem_size": 4,
    "use_msfa": False,
}
DINO: dict[str, Any] = {**VIT, "intermediate_dim": 12, "layer_scale_init_value": 1.0}
D_FINE: dict[str, Any] = {
    "decoder_in_channels": [8, 8],
    "encoder_hidden_dim": 8,
    "num_denoising": 4,
    "num_labels": 3,
    "hidden_dim": 8,
    "learn_initial_query": False,
    "num_queries": 4,
    "anchor_image_size": (32, 32),
    "feat_strides": [4, 8],
    "num_feature_levels": 2,
    "encoder_in_channels": [8, 8],
    "encode_proj_layers": [1],
    "num_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "num_encoder_layers": 1,
    "hidden_expansion": 0.5,
    "depth_multiplier": 0.5,
    "eval_idx": -1,
    "num_decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 12,
    "decoder_n_points": [2, 2],
    "lqe_hidden_dim": 8,
    "num_lqe_layers": 2,
    "out_features": ["stage1", "stage2"],
    "image_shape": (None, None, 3),
    "seed": 0,
}
VIT_DET: dict[str, Any] = {
    "image_shape": (16, 16, 3),
    "patch_size": 2,
    "hidden_size": 8,
    "num_layers": 2,
    "global_attention_layer_indices": [1],
    "intermediate_dim": 12,
    "num_heads": 2,
    "num_output_channels": 8,
    "window_size": 2,
}


def feature_pyramid() -> dict[str, Any]:
    return {"image_encoder": ResNetBackbone(**RESNET_4), "min_level": 3, "max_level": 4, "use_p5": False}


def sam() -> dict[str, Any]:
    layers = keras_hub.layers
    return {
        "image_encoder": ViTDetBackbone(**{**VIT_DET, "image_shape": (32, 32, 3), "patch_size": 4}),
        "prompt_encoder": layers.SAMPromptEncoder(
            hidden_size=8, image_embedding_size=(8, 8), input_image_size=(32, 32), mask_in_channels=4
        ),
        "mask_decoder": layers.SAMMaskDecoder(
            num_layers=1,
            hidden_size=8,
            intermediate_dim=8,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=3,
            iou_head_depth=2,
            iou_head_hidden_dim=4,
        ),
    }


def dino_maps() -> keras.Model:
    return DINOV2Backbone(
        **{**DINO, "image_shape": (32, 32, 3), "num_layers": 4},
        num_register_tokens=0,
        apply_layernorm=True,
        name="image_encoder",
    )


BACKBONES: dict[str, Callable[[], dict[str, Any]]] = {
    "BASNetBackbone": lambda: {"image_encoder": ResNetBackbone(**RESNET_4), "num_classes": 1},
    "CSPNetBackbone": lambda: {
        "stem_filters": 8,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_strides": 2,
        "stackwise_depth": [1, 2],
        "stackwise_num_filters": [8, 12],
        "image_shape": (None, None, 3),
        "down_growth": True,
        "bottle_ratio": (0.5, 1.0),
        "block_ratio": (1.0, 0.5),
        "expand_ratio": (2.0, 1.0),
        "block_type": "dark_block",
        "stage_type": "csp",
        "stem_padding": "same",
    },
    "DFineBackbone": lambda: {"backbone": HGNetV2Backbone(**HGNET), **D_FINE},
    "DINOV2Backbone": lambda: {**DINO, "num_register_tokens": 2, "use_swiglu_ffn": True},
    "DINOV3Backbone": lambda: {**DINO, "num_register_tokens": 2, "use_gated_mlp": False},
    "DeepLabV3Backbone": lambda: {
        "image_encoder": ResNetBackbone(**{**RESNET_4, "stackwise_num_strides": [1, 2, 2, 1]}),
        "low_level_feature_key": "P2",
        "spatial_pyramid_pooling_key": "P4",
        "dilation_rates": [2, 3],
        "upsampling_size": 4,
        "image_shape": (32, 32, 3),
    },
    "DeiTBackbone": lambda: {**VIT, "intermediate_dim": 12},
    "DenseNetBackbone": lambda: {
        "stackwise_num_repeats": [1, 2],
        "compression_ratio": 0.5,
        "growth_rate": 4,
        "image_shape": (32, 32, 3),
    },
    "DepthAnythingBackbone": lambda: {
        "image_encoder": dino_maps(),
        "reassemble_factors": [4, 2, 1, 0.5],
        "neck_hidden_dims": [4, 4, 8, 8],
        "fusion_hidden_dim": 8,
        "head_hidden_dim": 4,
        "head_in_index": -1,
        "feature_keys": ["stage1", "stage2", "stage3", "stage4"],
    },
    "EfficientNetBackbone": lambda: EFFICIENT,
    "HGNetV2Backbone": lambda: HGNET,
    "MiTBackbone": lambda: MIT,
    "MobileNetBackbone": lambda: MOBILE,
    "MobileNetV5Backbone": lambda: MOBILE_5,
    "ResNetBackbone": lambda: {**RESNET, "block_type": "bottleneck_block"},
    "ResNetBackbone (2)": lambda: {**RESNET, "use_pre_activation": True},
    "RetinaNetBackbone": feature_pyramid,
    "SAMBackbone": sam,
    "SegFormerBackbone": lambda: {"projection_filters": 8, "image_encoder": MiTBackbone(**MIT)},
    "SwinTransformerBackbone": lambda: {
        "image_shape": (32, 32, 3),
        "embed_dim": 8,
        "depths": (2, 2),
        "num_heads": (2, 4),
        "window_size": 4,
    },
    "VGGBackbone": lambda: {
        "stackwise_num_repeats": [1, 2],
        "stackwise_num_filters": [4, 8],
        "image_shape": (32, 32, 3),
    },
    "ViTBackbone": lambda: {**VIT, "patch_size": (4, 4), "mlp_dim": 12},
    "ViTDetBackbone": lambda: VIT_DET,
    "XceptionBackbone": lambda: {
        "stackwise_conv_filters": [[4, 8], [12, 12], [16, 16]],
        "stackwise_pooling": [False, True, False],
        "image_shape": (None, None, 3),
    },
}
CLASSIFIER: dict[str, Any] = {"num_classes": 3}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "BASNetImageSegmenter": ("BASNetBackbone", {}),
    "CSPNetImageClassifier": ("CSPNetBackbone", CLASSIFIER),
    "DFineObjectDetector": ("DFineBackbone", CLASSIFIER),
    "DeepLabV3ImageSegmenter": ("DeepLabV3Backbone", CLASSIFIER),
    "DeiTImageClassifier": ("DeiTBackbone", CLASSIFIER),
    "DenseNetImageClassifier": ("DenseNetBackbone", CLASSIFIER),
    "DepthAnythingDepthEstimator": ("DepthAnythingBackbone", {"depth_estimation_type": "relative"}),
    "EfficientNetImageClassifier": ("EfficientNetBackbone", CLASSIFIER),
    "HGNetV2ImageClassifier": ("HGNetV2Backbone", {**CLASSIFIER, "preprocessor": None}),
    "MiTImageClassifier": ("MiTBackbone", CLASSIFIER),
    "MobileNetImageClassifier": ("MobileNetBackbone", {**CLASSIFIER, "num_features": 8}),
    "MobileNetV5ImageClassifier": ("MobileNetV5Backbone", {**CLASSIFIER, "head_hidden_size": 8}),
    "ResNetImageClassifier": ("ResNetBackbone", CLASSIFIER),
    "RetinaNetObjectDetector": ("RetinaNetBackbone", {**CLASSIFIER, "pre_logits_num_conv_layers": 1}),
    "SAMImageSegmenter": ("SAMBackbone", {}),
    "SegFormerImageSegmenter": ("SegFormerBackbone", CLASSIFIER),
    "SwinTransformerImageClassifier": ("SwinTransformerBackbone", CLASSIFIER),
    "VGGImageClassifier": ("VGGBackbone", {**CLASSIFIER, "pooling_hidden_dim": 8}),
    "ViTImageClassifier": ("ViTBackbone", CLASSIFIER),
    "XceptionImageClassifier": ("XceptionBackbone", CLASSIFIER),
}
SAM_PROMPTS: Mapping[str, tuple[int, ...]] = {
    "points": (1, 2),
    "labels": (1,),
    "boxes": (1, 2, 2),
    "masks": (1, 32, 32, 1),
}


def backbone(name: str) -> keras.Model:
    return getattr(keras_hub.models, name.partition(" ")[0])(**BACKBONES[name]())


def build_task(name: str) -> Callable[[], keras.Model]:
    body, options = TASKS[name]
    return lambda: getattr(keras_hub.models, name)(backbone=backbone(body), **options)


def shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    return SAM_PROMPTS if name.startswith("SAM") else {}


CHANGED = {
    # It trains them in the size of its images (KerasHub 0.32).
    "DINOV2Backbone": "KerasHub keeps its trained positions resampled to the size that it was pretrained with",
    "DFineBackbone": "it takes its best queries, and with random weights their scores tie to the seventh digit",
}

SPECIMENS = [
    *(Specimen(name, lambda name=name: backbone(name), shapes(name), changed=CHANGED.get(name)) for name in BACKBONES),
    *(Specimen(name, build_task(name), shapes(name)) for name in TASKS),
]
