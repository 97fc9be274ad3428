"""What TensorBoard is given: scalars, pictures, and nothing beyond a resumed step."""

import struct

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from lska_jax.training.metric_writers import TensorBoard
from tests.training.test_reporting import make_reporter, records


def tensorboard_events(directory):
    for path in sorted(directory.iterdir()):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            # A record is its length, a checksum of it, the event, a checksum of that.
            start = position + 12
            yield path.name, Event.FromString(content[start : start + length])
            position = start + length + 4


def test_tensorboard_keeps_the_scalars_at_their_time(tmp_path):
    writer = TensorBoard(tmp_path)
    writer.write(5, {"time": 1234.5, "epoch": 0.5, "train/loss": 2.0})
    writer.close()
    scalars = {
        value.tag: (event.step, event.wall_time, value.simple_value)
        for _, event in tensorboard_events(tmp_path)
        for value in event.summary.value
    }
    assert scalars == {"epoch": (5, 1234.5, 0.5), "train/loss": (5, 1234.5, 2.0)}


def test_pictures_are_files_and_images_in_tensorboard(tmp_path):
    pixels = np.full((4, 5, 3), 200, np.uint8)
    reporter = make_reporter(tmp_path, writers=("jsonl", "tensorboard"))
    reporter.pictures(7, {"eval/predictions": pixels})
    reporter.close()
    with Image.open(tmp_path / "pictures" / "eval_predictions.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    (shown,) = [
        (event.step, value.tag, value.image.height, value.image.width)
        for _, event in tensorboard_events(tmp_path / "tensorboard")
        for value in event.summary.value
    ]
    assert shown == (7, "eval/predictions", 4, 5)
    assert records(tmp_path) == []


def test_tensorboard_forgets_what_lies_beyond_the_resumed_step(tmp_path):
    TensorBoard(tmp_path, start_step=12).close()
    starts = [
        event.step
        for _, event in tensorboard_events(tmp_path)
        if event.session_log.status == SessionLog.START
    ]
    # TensorBoard drops every event at or beyond the step of such a mark.
    assert starts == [13]
