"""Meshes that programs are traced for."""

import jax
from jax.sharding import AxisType


def one_device(axis_type=AxisType.Auto):
    """Set a mesh of one device while a with statement lasts."""
    return jax.set_mesh(jax.make_mesh((1,), ("data",), (axis_type,)))
