"""What a run is made of, built from its config: data, mesh, model, optimizer, compiled steps."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from lska_jax.data.augment import EvalTransform, TrainTransform
from lska_jax.data.loader import default_num_workers
from lska_jax.data.mixing import MixingSpec
from lska_jax.data.opening import open_source
from lska_jax.data.sources import Source
from lska_jax.models.build import build, config_of
from lska_jax.nn.functional import ModelFunctions
from lska_jax.nn.initial_values import OneKey
from lska_jax.running import parallel
from lska_jax.training.config_check import check_against_devices, check_against_source
from lska_jax.training.optimizer import Schedule, cosine_schedule, make_optimizer
from lska_jax.training.program import Program
from lska_jax.training.state import TrainState, abstract_state, host_state
from lska_jax.training.step import StepSpec, eval_step, train_step

_PROBED_EXAMPLES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run's parts; nothing in it changes while it trains.

    Attributes:
      config: the resolved config.
      mesh: all devices, or those that the run is compiled for.
      functions: the model as pure functions.
      optimizer: AdamW at learning rate 1.
      schedule: learning rate by step.
      spec: what a step does.
      steps_per_epoch: steps that see the training split once, rounded down.
      total_steps: where the run ends.
      state: shapes, dtypes and shardings of the train state.
    """

    config: ConfigDict
    mesh: Mesh | AbstractMesh
    functions: ModelFunctions
    optimizer: optax.GradientTransformation
    schedule: Schedule
    spec: StepSpec
    steps_per_epoch: int
    total_steps: int
    state: TrainState


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
    schedule = cosine_schedule(
        steps_per_epoch=steps_per_epoch,
        epochs=settings.epochs,
        warmup_epochs=settings.warmup_epochs,
        learning_rate=settings.learning_rate,
        min_learning_rate=settings.min_learning_rate,
        warmup_learning_rate=settings.warmup_learning_rate,
        by=settings.schedule_by,
    )
    optimizer = make_optimizer(
        weight_decay=settings.weight_decay,
        beta1=settings.beta1,
        beta2=settings.beta2,
        epsilon=settings.epsilon,
        clip_norm=settings.clip_norm,
    )
    model = nnx.eval_shape(lambda: build_model(config, rngs=OneKey()))
    use_ema = config.training.ema_decay > 0
    graph, variables = nnx.split(model)
    state = jax.eval_shape(
        lambda variables: host_state(nnx.merge(graph, variables), optimizer, use_ema=use_ema),
        variables,
    )
    total_steps = steps_per_epoch * (settings.epochs + settings.cooldown_epochs)
    if total_steps >= 2**31:
        raise ValueError(
            f"{total_steps} steps are more than a 32-bit counter holds; lower optimizer.epochs."
        )
    return Run(
        config=config,
        mesh=mesh,
        functions=ModelFunctions(model),
        optimizer=optimizer,
        schedule=schedule,
        spec=step_spec(config),
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


def step_spec(config: ConfigDict) -> StepSpec:
    """Return what the config says about a step."""
    data, training = config.data, config.training
    return StepSpec(
        num_classes=config.model.num_classes,
        mean=tuple(data.mean),
        std=tuple(data.std),
        mixing=MixingSpec(
            mixup_alpha=data.mixup_alpha,
            cutmix_alpha=data.cutmix_alpha,
            switch_prob=data.switch_prob,
            label_smoothing=training.label_smoothing,
        ),
        erase_prob=data.erase_prob,
        gradient_accumulation=training.gradient_accumulation,
        ema_decay=training.ema_decay,
        seed=training.seed,
    )


def open_sources(config: ConfigDict) -> tuple[Source, Source]:
    """Open the training and the evaluation split and check both against the config.

    Raises:
      ValueError: a split is missing or empty, the class counts differ, a label is out of range, or
        both splits are the same images.
    """
    train_source = open_checked_source(config, split=config.data.train_split)
    eval_source = open_checked_source(config, split=config.data.eval_split)
    if train_source.class_names != eval_source.class_names:
        different = sorted(set(train_source.class_names) ^ set(eval_source.class_names))
        raise ValueError(
            f"{train_source.name} and {eval_source.name} have different classes: "
            f"{', '.join(different[:10])}; the class folders of both splits must be the same."
        )
    if train_source.name == eval_source.name:
        raise ValueError(
            f"Training and evaluation would read the same images, {train_source.name}. Give the "
            "source split folders, or name another data.eval_split."
        )
    return train_source, eval_source


def open_checked_source(config: ConfigDict, *, split: str) -> Source:
    """Open one split of the config's source and check it against the config.

    Raises:
      ValueError: the split is missing or empty, its class count is not the model's, or a label is
        out of range.
    """
    data = config.data
    source = open_source(data.source, split=split, data_dir=data.data_dir or None)
    check_against_source(
        config, num_classes=len(source.class_names), num_examples=len(source), split=split
    )
    _check_some_labels(source)
    return source


def _check_some_labels(source: Source) -> None:
    """Read examples all over a source: unlabelled splits show before anything is compiled."""
    for index in np.linspace(0, len(source) - 1, _PROBED_EXAMPLES).astype(int).tolist():
        label = source[index].label
        if not 0 <= label < len(source.class_names):
            raise ValueError(
                f"{source.path(index)} has label {label}; {source.name} has classes 0 to "
                f"{len(source.class_names) - 1}. Choose a labelled split, or repair the data."
            )


def train_transform(config: ConfigDict) -> TrainTransform:
    """Return the config's host-side augmentation."""
    data = config.data
    return TrainTransform(
        image_size=data.image_size,
        channels=config.model.in_channels,
        crop=data.crop,
        crop_scale=_pair(data.crop_scale),
        crop_ratio=_pair(data.crop_ratio),
        pad=data.pad,
        hflip_prob=data.hflip_prob,
        rand_augment=data.rand_augment,
        interpolation=data.train_interpolation,
        mean=tuple(data.mean),
    )


def eval_transform(config: ConfigDict) -> EvalTransform:
    """Return the config's evaluation preprocessing."""
    data = config.data
    return EvalTransform(
        image_size=data.image_size,
        channels=config.model.in_channels,
        crop_pct=data.crop_pct,
        interpolation=data.interpolation,
    )


def _pair(bounds: Sequence[float]) -> tuple[float, float]:
    low, high = bounds
    return float(low), float(high)


def num_workers(config: ConfigDict) -> int:
    """Return how many decoding processes to start."""
    asked = config.data.num_workers
    return default_num_workers() if asked < 0 else asked


def train_program(run: Run) -> Program:
    """Return the train step for the run's shapes and shardings: (state, batch) -> both outputs."""
    step = functools.partial(
        train_step,
        functions=run.functions,
        optimizer=run.optimizer,
        schedule=run.schedule,
        spec=run.spec,
    )
    shardings = jax.tree.map(lambda x: x.sharding, run.state)
    jitted = jax.jit(
        step, donate_argnums=0, out_shardings=(shardings, parallel.replicated(run.mesh))
    )
    batch = abstract_batch(run, run.config.training.batch_size)
    return Program(jitted, (run.state, batch), run.mesh)


def eval_program(run: Run) -> Program:
    """Return the evaluation step: (params, stats, batch) -> EvalSums."""
    step = functools.partial(eval_step, functions=run.functions, spec=run.spec)
    jitted = jax.jit(step, out_shardings=parallel.replicated(run.mesh))
    batch = abstract_batch(run, run.config.training.eval_batch_size)
    return Program(jitted, (run.state.params, run.state.batch_stats, batch), run.mesh)


def compile_train_step(run: Run) -> jax.stages.Compiled:
    """Compile the train step; see ``train_program``."""
    return train_program(run).compile()


def compile_eval_step(run: Run) -> jax.stages.Compiled:
    """Compile the evaluation step; see ``eval_program``."""
    return eval_program(run).compile()


def abstract_batch(run: Run, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes, dtypes and shardings of a global batch."""
    size = run.config.data.image_size
    shapes = {
        "image": ((batch_size, size, size, run.config.model.in_channels), np.uint8),
        "label": ((batch_size,), np.int32),
        "mask": ((batch_size,), np.bool_),
    }
    sharding = parallel.batch_sharding(run.mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in shapes.items()
    }
