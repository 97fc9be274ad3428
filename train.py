"""Train, or evaluate, a model: ``python train.py --config configs/digits.py``.

The same as ``lska-jax train``, from a clone. Running the same command again resumes at the latest
checkpoint of the workdir; SIGTERM and Ctrl-C finish the current step, save and exit with status 75.
"""

from lska_jax.running import door

if __name__ == "__main__":
    # Before anything else: a preempted machine does not wait for imports.
    door.hold_signals()

import sys

from lska_jax.commands.train import main

if __name__ == "__main__":
    sys.exit(main(command="python train.py", signals=door.enter()))
