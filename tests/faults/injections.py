"""The faults by name: each is injected for real, and what it cost is measured."""

from tests.faults.damage import (
    flipped_bit,
    full_disk,
    missing_file,
    missing_manifest,
    sigterm_while_stalled,
    stalled_worker,
    truncated_file,
)
from tests.faults.stops import (
    kill_during_save,
    kill_while_training,
    other_topology,
    second_signal,
    sigint_while_training,
    signal_to_one_of_two,
    sigterm_during_evaluation,
    sigterm_to_the_group,
    sigterm_while_evaluating_alone,
    sigterm_while_starting,
    sigterm_while_training,
)

FAULTS = {
    "SIGTERM while training": sigterm_while_training,
    "SIGINT while training": sigint_while_training,
    "SIGTERM during an evaluation within training": sigterm_during_evaluation,
    "SIGTERM to the process group, 2 workers": sigterm_to_the_group,
    "SIGTERM during start-up and compilation": sigterm_while_starting,
    "SIGTERM during --eval_only": sigterm_while_evaluating_alone,
    "signal to one of 2 processes x 2 devices": signal_to_one_of_two,
    "SIGTERM, then another number of devices": other_topology,
    "second SIGTERM to a process that hangs": second_signal,
    "kill -9 while training": kill_while_training,
    "kill -9 during an asynchronous save": kill_during_save,
    "flipped bit in the newest checkpoint": flipped_bit,
    "truncated file in it": truncated_file,
    "missing file in it": missing_file,
    "missing manifest in it": missing_manifest,
    "input worker stopped, then continued": stalled_worker,
    "SIGTERM while the input is stalled": sigterm_while_stalled,
    "full disk": full_disk,
}
