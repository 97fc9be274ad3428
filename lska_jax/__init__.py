"""Large-kernel attention for JAX: LSKA, LKA and the Visual Attention Network in Flax NNX.

from lska_jax import LSKA, create_model

model = create_model("van_lska_tiny", k=23, num_classes=10)
"""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax import analysis as analysis
    from lska_jax import data as data
    from lska_jax import nn as nn
    from lska_jax import ops as ops
    from lska_jax import robustness as robustness
    from lska_jax import tasks as tasks
    from lska_jax import weights as weights
    from lska_jax.analysis.attention_maps import attention_rollout as attention_rollout
    from lska_jax.analysis.attention_maps import gate_maps as gate_maps
    from lska_jax.analysis.explain import explain as explain
    from lska_jax.analysis.gradcam import gradcam as gradcam
    from lska_jax.analysis.occlusion import occlusion_map as occlusion_map
    from lska_jax.analysis.receptive_field import receptive_field as receptive_field
    from lska_jax.analysis.run_report.write import report_runs as report_runs
    from lska_jax.commands.config_option import load_config as load_config
    from lska_jax.commands.from_python import compile_check as compile_check
    from lska_jax.commands.from_python import dry_run as dry_run
    from lska_jax.commands.from_python import evaluate as evaluate
    from lska_jax.commands.from_python import train as train
    from lska_jax.commands.predict_from_python import predict as predict
    from lska_jax.commands.predict_from_python import predict_label_maps as predict_label_maps
    from lska_jax.commands.predict_from_python import predict_objects as predict_objects
    from lska_jax.models.fold import fold_batch_norm as fold_batch_norm
    from lska_jax.models.table import Preprocessing as Preprocessing
    from lska_jax.models.table import list_models as list_models
    from lska_jax.models.table import model_entry as model_entry
    from lska_jax.models.van import VAN as VAN
    from lska_jax.models.van_config import VANConfig as VANConfig
    from lska_jax.nn.attention import LKA as LKA
    from lska_jax.nn.attention import LSKA as LSKA
    from lska_jax.nn.attention import LKATrivial as LKATrivial
    from lska_jax.nn.attention import LSKATrivial as LSKATrivial
    from lska_jax.ops.depthwise import depthwise_conv as depthwise_conv
    from lska_jax.running.parallel import batch_sharding as batch_sharding
    from lska_jax.running.parallel import make_mesh as make_mesh
    from lska_jax.running.parallel import state_sharding as state_sharding
    from lska_jax.training.publish import publish as publish
    from lska_jax.weights.create import create_model as create_model

__version__ = "0.1.0"

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "LKA": "lska_jax.nn.attention",
        "LSKA": "lska_jax.nn.attention",
        "LKATrivial": "lska_jax.nn.attention",
        "LSKATrivial": "lska_jax.nn.attention",
        "Preprocessing": "lska_jax.models.table",
        "VAN": "lska_jax.models.van",
        "VANConfig": "lska_jax.models.van_config",
        "analysis": "lska_jax.analysis",
        "attention_rollout": "lska_jax.analysis.attention_maps",
        "batch_sharding": "lska_jax.running.parallel",
        "compile_check": "lska_jax.commands.from_python",
        "create_model": "lska_jax.weights.create",
        "data": "lska_jax.data",
        "depthwise_conv": "lska_jax.ops.depthwise",
        "dry_run": "lska_jax.commands.from_python",
        "evaluate": "lska_jax.commands.from_python",
        "explain": "lska_jax.analysis.explain",
        "fold_batch_norm": "lska_jax.models.fold",
        "gate_maps": "lska_jax.analysis.attention_maps",
        "gradcam": "lska_jax.analysis.gradcam",
        "list_models": "lska_jax.models.table",
        "load_config": "lska_jax.commands.config_option",
        "make_mesh": "lska_jax.running.parallel",
        "model_entry": "lska_jax.models.table",
        "nn": "lska_jax.nn",
        "occlusion_map": "lska_jax.analysis.occlusion",
        "ops": "lska_jax.ops",
        "predict": "lska_jax.commands.predict_from_python",
        "predict_label_maps": "lska_jax.commands.predict_from_python",
        "predict_objects": "lska_jax.commands.predict_from_python",
        "publish": "lska_jax.training.publish",
        "receptive_field": "lska_jax.analysis.receptive_field",
        "report_runs": "lska_jax.analysis.run_report.write",
        "robustness": "lska_jax.robustness",
        "state_sharding": "lska_jax.running.parallel",
        "tasks": "lska_jax.tasks",
        "train": "lska_jax.commands.from_python",
        "weights": "lska_jax.weights",
    },
)
