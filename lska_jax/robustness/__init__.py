"""Robustness: corrupted and shifted image sets, their scores, the sweep over them, the report.

from lska_jax.robustness import evaluate

summaries = evaluate(model, suite="imagenet_a,imagenet_r", data_root="data", out="robustness")
"""

from typing import TYPE_CHECKING

from lska_jax._lazy import lazy_attributes

if TYPE_CHECKING:
    from lska_jax.robustness.cells import Summary as Summary
    from lska_jax.robustness.corruptions.corrupting import corrupt as corrupt
    from lska_jax.robustness.report.write import write_report as write_report
    from lska_jax.robustness.sweep.classifier import Classifier as Classifier
    from lska_jax.robustness.sweep.classifier import load_classifier as load_classifier
    from lska_jax.robustness.sweep.classifier import wrap_function as wrap_function
    from lska_jax.robustness.sweep.run import evaluate as evaluate
    from lska_jax.robustness.sweep.summary import load_summaries as load_summaries

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "Classifier": "lska_jax.robustness.sweep.classifier",
        "Summary": "lska_jax.robustness.cells",
        "corrupt": "lska_jax.robustness.corruptions.corrupting",
        "evaluate": "lska_jax.robustness.sweep.run",
        "load_classifier": "lska_jax.robustness.sweep.classifier",
        "load_summaries": "lska_jax.robustness.sweep.summary",
        "wrap_function": "lska_jax.robustness.sweep.classifier",
        "write_report": "lska_jax.robustness.report.write",
    },
)
