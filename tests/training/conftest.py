"""What tests of the trainer share."""

from small_runs import two_devices as two_devices
