"""What a run's task has to see before its steps are traced: the training images, and a teacher."""

from typing import Any

import jax
import numpy as np

from lska_jax.running import parallel
from lska_jax.tasks.classification import Classification
from lska_jax.tasks.distillation import make_teacher
from lska_jax.training.model_places import read_model
from lska_jax.training.run import Run, Sources


def prepare_task(run: Run, sources: Sources) -> dict[str, Any]:
    """Let a run's task see its training images and its teacher, before a step is traced.

    Returns:
      The task's constants on the devices, which every training batch holds.

    Raises:
      ValueError: the teacher is of other classes, or the task cannot be taught.
    """
    config, task = run.config, run.task
    task.see_training(sources.train)
    if config.training.teacher:
        if not isinstance(task, Classification):
            raise ValueError(
                f"training.teacher: the task {config.task} has no teacher; leave it ''."
            )
        facts, arrays = read_model(config.training.teacher)
        task.learn_from(
            make_teacher(
                facts,
                arrays,
                mean=config.data.mean,
                std=config.data.std,
                class_names=sources.class_names,
                num_classes=config.model.num_classes,
                place=config.training.teacher,
            )
        )
    replicated = parallel.replicated(run.mesh)
    return jax.tree.map(lambda x: parallel.place(np.asarray(x), replicated), task.constants)
