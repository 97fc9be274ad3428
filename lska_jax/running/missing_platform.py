"""What JAX raises where a platform, or a home folder, is not there, in words that say what to do.

Nothing heavy is imported. For ``JAX_PLATFORMS=cuda`` without its plugin JAX raises a bare
AssertionError, for others a RuntimeError.
"""

import os
import traceback


def describe_missing_platform(error: BaseException) -> str | None:
    """Return what is missing and what to do; None for any other error.

    Args:
      error: that was raised.
    """
    if "Could not determine home directory" in str(error):
        return (
            "HOME is not set, and the user has no home folder. Set HOME, or give folders without ~ "
            "(--config.data.data_dir, --data_root, TFDS_DATA_DIR)."
        )
    frames = traceback.extract_tb(error.__traceback__)
    is_bare = isinstance(error, AssertionError) and frames and _is_of_backends(frames[-1].filename)
    if not is_bare and "initialize backend" not in str(error):
        return None
    asked = os.environ.get("JAX_PLATFORMS", "")
    reason = str(error).splitlines()[0] if str(error) else "no plugin for it is installed"
    return (
        f"JAX has no device to run on: JAX_PLATFORMS={asked!r} asks for a platform that is not "
        f"here ({reason}). Unset it to take what is here, or install it, for example with pip "
        "install 'jax[cuda13]'."
    )


def _is_of_backends(filename: str) -> bool:
    return os.path.basename(filename) == "xla_bridge.py"
