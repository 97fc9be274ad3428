"""Large-kernel attention for JAX: LSKA, LKA and the Visual Attention Network in Flax NNX.

from lska_jax import LSKA, create_model

model = create_model("van_lska_tiny", k=23, num_classes=10)
"""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax import nn as nn
    from lska_jax import ops as ops
    from lska_jax import weights as weights
    from lska_jax.analysis.attention_maps import attention_rollout as attention_rollout
    from lska_jax.analysis.attention_maps import gate_maps as gate_maps
    from lska_jax.analysis.explain import explain as explain
    from lska_jax.analysis.gradcam import gradcam as gradcam
    from lska_jax.analysis.occlusion import occlusion_map as occlusion_map
    from lska_jax.analysis.receptive_field import receptive_field as receptive_field
    from lska_jax.analysis.run_report.write import report_runs as report_runs
    from lska_jax.commands.config_option import load_config as load_config
    from lska_jax.commands.from_python import evaluate as evaluate
    from lska_jax.commands.from_python import predict as predict
    from lska_jax.commands.from_python import train as train
    from lska_jax.models.fold import fold_batch_norm as fold_batch_norm
    from lska_jax.models.table import list_models as list_models
    from lska_jax.models.table import model_entry as model_entry
    from lska_jax.models.van import VAN as VAN
    from lska_jax.models.van_config import VANConfig as VANConfig
    from lska_jax.nn.attention import LKA as LKA
    from lska_jax.nn.attention import LSKA as LSKA
    from lska_jax.nn.attention import LKATrivial as LKATrivial
    from lska_jax.nn.attention import LSKATrivial as LSKATrivial
    from lska_jax.ops.depthwise import depthwise_conv as depthwise_conv
    from lska_jax.weights.create import create_model as create_model

__version__ = "0.1.0"

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "LKA": "lska_jax.nn.attention",
        "LSKA": "lska_jax.nn.attention",
        "LKATrivial": "lska_jax.nn.attention",
        "LSKATrivial": "lska_jax.nn.attention",
        "VAN": "lska_jax.models.van",
        "VANConfig": "lska_jax.models.van_config",
        "attention_rollout": "lska_jax.analysis.attention_maps",
        "create_model": "lska_jax.weights.create",
        "depthwise_conv": "lska_jax.ops.depthwise",
        "evaluate": "lska_jax.commands.from_python",
        "explain": "lska_jax.analysis.explain",
        "fold_batch_norm": "lska_jax.models.fold",
        "gate_maps": "lska_jax.analysis.attention_maps",
        "gradcam": "lska_jax.analysis.gradcam",
        "list_models": "lska_jax.models.table",
        "load_config": "lska_jax.commands.config_option",
        "model_entry": "lska_jax.models.table",
        "nn": "lska_jax.nn",
        "occlusion_map": "lska_jax.analysis.occlusion",
        "ops": "lska_jax.ops",
        "predict": "lska_jax.commands.from_python",
        "receptive_field": "lska_jax.analysis.receptive_field",
        "report_runs": "lska_jax.analysis.run_report.write",
        "train": "lska_jax.commands.from_python",
        "weights": "lska_jax.weights",
    },
)
