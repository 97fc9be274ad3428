"""What a run is made of, built from its config: data, mesh, model, optimizer, compiled steps."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from lska_jax.data.examples import Fields
from lska_jax.data.loader import default_num_workers
from lska_jax.data.sources import Examples
from lska_jax.models.build import build, config_of
from lska_jax.models.table import family_of
from lska_jax.nn.functional import ModelFunctions
from lska_jax.nn.initial_values import OneKey
from lska_jax.running import parallel
from lska_jax.tasks.table import task_entry
from lska_jax.tasks.task import Task
from lska_jax.training.config_check import check_against_devices
from lska_jax.training.evaluators import MAIN_EVALUATOR, evaluator_settings
from lska_jax.training.optimizer import make_optimizer
from lska_jax.training.program import Program, Programs
from lska_jax.training.schedules import Schedule, make_schedule
from lska_jax.training.state import TrainState, abstract_state, host_state
from lska_jax.training.step import StepSpec, eval_step, train_step
from lska_jax.training.tuning import tuning_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run's parts; nothing in it changes while it trains.

    Attributes:
      config: the resolved config.
      task: what is learnt.
      mesh: all devices, or those that the run is compiled for.
      functions: the model as pure functions.
      optimizer: AdamW at learning rate 1.
      schedule: learning rate by step.
      spec: what a step does.
      num_train_examples: size of the training split.
      steps_per_epoch: steps that see the training split once, rounded down.
      total_steps: where the run ends.
      state: shapes, dtypes and shardings of the train state.
    """

    config: ConfigDict
    task: Task
    mesh: Mesh | AbstractMesh
    functions: ModelFunctions
    optimizer: optax.GradientTransformationExtraArgs
    schedule: Schedule
    spec: StepSpec
    num_train_examples: int
    steps_per_epoch: int
    total_steps: int
    state: TrainState


class Sources(NamedTuple):
    """What a run reads.

    Attributes:
      train: the training split.
      evaluation: the split of each evaluator, by name.
      class_names: of the model's outputs, in their order; None where they are no classes.
    """

    train: Examples
    evaluation: dict[str, Examples]
    class_names: tuple[str, ...] | None


def build_run(
    config: ConfigDict, *, num_train_examples: int, mesh: Mesh | AbstractMesh | None = None
) -> Run:
    """Build everything but the data, abstractly: no parameter is computed, nothing is compiled.

    Args:
      config: checked by ``lska_jax.training.config_check.check_config``.
      num_train_examples: size of the training split.
      mesh: to run on; None takes all devices. One of a topology's devices can be compiled for.

    Raises:
      ValueError: the batches or the mesh do not fit the devices.
    """
    check_against_devices(config, device_count=mesh.size if mesh else jax.device_count())
    mesh = mesh or parallel.make_mesh(fsdp=config.training.fsdp)
    steps_per_epoch = max(1, num_train_examples // config.training.batch_size)
    settings = config.optimizer
    epochs = settings.epochs + settings.cooldown_epochs
    total_steps = settings.steps or steps_per_epoch * epochs
    schedule = make_schedule(settings, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    model = nnx.eval_shape(lambda: build_model(config, rngs=OneKey()))
    tuning = tuning_of(config, model, steps_per_epoch=steps_per_epoch)
    muon_rate = settings.muon_learning_rate
    if muon_rate:
        muon_rate /= settings.learning_rate
    optimizer = make_optimizer(
        weight_decay=settings.weight_decay,
        beta1=settings.beta1,
        beta2=settings.beta2,
        epsilon=settings.epsilon,
        clip_norm=settings.clip_norm,
        no_decay=family_of(model).no_decay,
        head=family_of(model).head,
        decay=settings.decay,
        tuning=tuning,
        muon_rate=muon_rate,
    )
    use_ema = config.training.ema_decay > 0
    graph, variables = nnx.split(model)
    state = jax.eval_shape(
        lambda variables: host_state(nnx.merge(graph, variables), optimizer, use_ema=use_ema),
        variables,
    )
    if total_steps >= 2**31:
        raise ValueError(
            f"{total_steps} steps are more than a 32-bit counter holds; lower optimizer.epochs or "
            "optimizer.steps."
        )
    return Run(
        config=config,
        task=build_task(config),
        mesh=mesh,
        functions=ModelFunctions(model, frozen_statistics=tuning.frozen_statistics),
        optimizer=optimizer,
        schedule=schedule,
        spec=StepSpec(
            gradient_accumulation=config.training.gradient_accumulation,
            ema_decay=config.training.ema_decay,
            ema_warmup=config.training.ema_warmup,
            seed=config.training.seed,
            tuning=tuning,
        ),
        num_train_examples=num_train_examples,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        state=abstract_state(state, mesh),
    )


def build_model(config: ConfigDict, *, rngs: nnx.Rngs | None = None) -> Any:
    """Return the config's model, freshly initialised.

    Args:
      config: of the run.
      rngs: source of the initial parameters; None takes the run's seed.
    """
    rngs = nnx.Rngs(config.training.seed) if rngs is None else rngs
    return build(config_of(config.model.to_dict()), rngs=rngs)


def build_task(config: ConfigDict) -> Task:
    """Return the task of a checked config."""
    return task_entry(config).build(config)


def describe_model(config: ConfigDict) -> str:
    """Return the config's model in a few words."""
    model = config_of(config.model.to_dict())
    return family_of(model).describe(model)


def open_sources(task: Task) -> Sources:
    """Open the training split and that of every evaluator, and compare them.

    Raises:
      ValueError: a split is missing, empty or not what the config says, or training and evaluation
        do not go together.
    """
    data = task.config.data
    train = task.open_split(source=data.source, split=data.train_split)
    evaluation = open_evaluation(task)
    for name, source in evaluation.items():
        task.check_splits(train, source, is_held_out=name == MAIN_EVALUATOR)
    names = task.class_names(train)
    if names is not None:
        evaluation = in_class_order(task, evaluation, names, whose=train.name)
    return Sources(train, evaluation, names)


def open_evaluation(task: Task) -> dict[str, Examples]:
    """Open the split of every evaluator, by the evaluator's name."""
    return {
        one.name: task.open_split(source=one.source, split=one.split)
        for one in evaluator_settings(task.config)
    }


def in_class_order(
    task: Task, sources: Mapping[str, Examples], names: Sequence[str], *, whose: str
) -> dict[str, Examples]:
    """Return sources whose labels are positions in ``names``; see ``Task.in_class_order``."""
    return {
        name: task.in_class_order(source, names, whose=whose) for name, source in sources.items()
    }


def sources_as_trained(
    task: Task, sources: Sources, names: Sequence[str], *, whose: str
) -> Sources:
    """Return a run's sources with the labels that its checkpoint was trained with.

    Args:
      task: of the run.
      sources: from ``open_sources``.
      names: of the classes, in the order of the model's outputs.
      whose: has ``names``.

    Raises:
      ValueError: the sources have other classes.
    """
    return Sources(
        task.in_class_order(sources.train, names, whose=whose),
        in_class_order(task, sources.evaluation, names, whose=whose),
        tuple(names),
    )


def num_workers(config: ConfigDict) -> int:
    """Return how many decoding processes to start."""
    asked = config.data.num_workers
    return default_num_workers() if asked < 0 else asked


def train_program(run: Run, fields: Fields | None = None) -> Program:
    """Return the train step for the run's shapes and shardings: (state, batch) -> both outputs.

    Args:
      run: its parts.
      fields: of an example; None takes the first that the task has.
    """
    step = functools.partial(
        train_step,
        task=run.task,
        functions=run.functions,
        optimizer=run.optimizer,
        schedule=run.schedule,
        spec=run.spec,
    )
    shardings = jax.tree.map(lambda x: x.sharding, run.state)
    jitted = jax.jit(
        step, donate_argnums=0, out_shardings=(shardings, parallel.replicated(run.mesh))
    )
    fields = run.task.train_shapes()[0] if fields is None else fields
    batch = abstract_batch(run, run.config.training.batch_size, fields)
    constants = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.replicated(run.mesh)),
        run.task.constants,
    )
    batch |= constants
    return Program(jitted, (run.state, batch), run.mesh)


def eval_program(run: Run, fields: Fields | None = None) -> Program:
    """Return the evaluation step: (params, stats, batch) -> (rows counted, the task's measures)."""
    step = functools.partial(eval_step, task=run.task, functions=run.functions)
    jitted = jax.jit(step, out_shardings=parallel.replicated(run.mesh))
    fields = run.task.eval_shapes()[0] if fields is None else fields
    batch = abstract_batch(run, run.config.training.eval_batch_size, fields)
    return Program(jitted, (run.state.params, run.state.batch_stats, batch), run.mesh)


def train_programs(run: Run) -> Programs:
    """Return the train step for every shape that a training batch may have."""
    return Programs([train_program(run, fields) for fields in run.task.train_shapes()])


def eval_programs(run: Run) -> Programs:
    """Return the evaluation step for every shape that an evaluation batch may have."""
    return Programs([eval_program(run, fields) for fields in run.task.eval_shapes()])


def abstract_batch(
    run: Run, batch_size: int, fields: Fields | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes, dtypes and shardings of a global batch.

    Args:
      run: its parts.
      batch_size: rows over all processes.
      fields: of an example; None takes the first of training.
    """
    fields = run.task.train_shapes()[0] if fields is None else fields
    shapes = {name: ((batch_size, *field.shape), field.dtype) for name, field in fields.items()}
    shapes["mask"] = ((batch_size,), np.bool_)
    sharding = parallel.batch_sharding(run.mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in shapes.items()
    }
