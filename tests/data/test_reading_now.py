"""Which example is in hand: of threads, and of a reader that never comes back."""

import pickle
import threading

import numpy as np

from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import train_batches
from lska_jax.data.reading_now import ReadingNow
from lska_jax.data.sources import Record

TIMEOUT_SECONDS = 60


class Blocking:
    """Sixteen examples; the one at `stuck` is not read before it is released."""

    name = "folder:/data"
    class_names = ("a",)

    def __init__(self, stuck):
        self.stuck, self.reached, self.released = stuck, threading.Event(), threading.Event()

    def __len__(self):
        return 16

    def path(self, index):
        return f"/data/a/{index}.jpg"

    def __getitem__(self, index):
        if index == self.stuck:
            self.reached.set()
            assert self.released.wait(TIMEOUT_SECONDS)
        return Record(np.zeros((8, 8, 1), np.uint8), 0)


class Identity:
    image_size, channels = 8, 1

    def __call__(self, image, generator):
        return image


def test_an_example_that_is_never_read_is_named():
    source, reading = Blocking(stuck=5), ReadingNow()
    read = LabelledImages(Identity())
    batches = train_batches(source, read, global_batch_size=16, seed=0, reading=reading)
    first: list = []
    reader = threading.Thread(target=lambda: first.append(next(batches)))
    reader.start()
    assert source.reached.wait(TIMEOUT_SECONDS)
    assert reading.describe(source) == "Reading /data/a/5.jpg of folder:/data since 0 s."
    source.released.set()
    reader.join(TIMEOUT_SECONDS)
    assert sorted(first[0]["index"].tolist()) == list(range(16))
    batches.close()


def test_nothing_in_hand_is_said_too():
    assert ReadingNow().describe(Blocking(stuck=0)) == "No reader has an example in hand."


def test_a_copy_in_another_process_writes_to_the_same_table():
    reading = ReadingNow()
    copy = pickle.loads(pickle.dumps(reading))
    copy.begin(7)
    assert "Reading /data/a/7.jpg" in reading.describe(Blocking(stuck=0))
    copy.end()
    assert reading.describe(Blocking(stuck=0)) == "No reader has an example in hand."
