"""ImageNet-P: videos, and folders of frames."""

import io
import multiprocessing
import operator
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from set_trees import WNIDS, write_kind, write_tar, write_tree

from lska_jax.data.augment import EvalTransform
from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import eval_batches
from lska_jax.data.sources import BrokenImage
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets import video
from lska_jax.robustness.sets.opening import open_cell

SNOW = Cell("imagenet_p", "snow")
FRAMES = 5
both_kinds = pytest.mark.parametrize("kind", ["folder", "tar"])


def grey_level(sequence: int, frame: int) -> int:
    return 40 * sequence + 8 * frame + 20


def make_video(sequence: int, frames: int = FRAMES) -> bytes:
    """Encode frames of one grey level each as the authors encode theirs, H.264 in an mp4."""
    av = pytest.importorskip("av")
    written = io.BytesIO()
    with av.open(written, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for frame in range(frames):
            pixels = np.full((32, 32, 3), grey_level(sequence, frame), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return written.getvalue()


def video_files(**changed: bytes) -> dict[str, bytes]:
    names = [f"snow/{WNIDS[label]}/{name}.mp4" for label, name in ((4, "a"), (4, "b"), (7, "a"))]
    return {name: make_video(index) for index, name in enumerate(names)} | changed


# --- videos


@both_kinds
def test_every_frame_of_a_video_is_an_example(kind, tmp_path):
    name = "imagenet-p" if kind == "folder" else "imagenet-p/weather"
    data = open_cell(SNOW, data_root=write_kind(kind, tmp_path, name, video_files()))
    assert [data.source[i].label for i in range(3 * FRAMES)] == [4] * 10 + [7] * 5
    np.testing.assert_array_equal(data.extra["sequence"], np.repeat([0, 1, 2], FRAMES))
    np.testing.assert_array_equal(data.extra["frame"], np.tile(np.arange(FRAMES), 3))
    for index, (sequence, frame) in enumerate(
        zip(data.extra["sequence"], data.extra["frame"], strict=True)
    ):
        image = data.source[index].image
        assert image.shape == (32, 32, 3) and image.dtype == np.uint8
        # H.264 loses a few levels, frames lie 8 apart.
        assert abs(image.mean() - grey_level(sequence, frame)) < 4
    assert data.note.startswith("incomplete: 3 of 50,000 sequences")


def test_the_path_of_a_frame_names_the_video_and_the_frame(tmp_path):
    data = open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", video_files()))
    expected = f"{tmp_path}/imagenet-p/snow/{WNIDS[4]}/b.mp4#2"
    assert data.source.path(FRAMES + 2) == expected


def test_frames_come_out_the_same_in_any_order_and_from_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_VIDEOS_KEPT", 1)
    source = open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", video_files())).source
    order = np.random.default_rng(0).permutation(3 * FRAMES).tolist()
    expected = [source[index].image for index in range(3 * FRAMES)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda index: source[index].image, order))
    for index, image in zip(order, read, strict=True):
        np.testing.assert_array_equal(image, expected[index])


def test_a_video_source_travels_to_a_spawned_process(tmp_path):
    source = open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", video_files())).source
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (record,) = pool.starmap(operator.getitem, [(source, 12)])
    np.testing.assert_array_equal(record.image, source[12].image)


def test_a_short_and_a_broken_video_are_masked_frame_by_frame(tmp_path):
    names = list(video_files())
    files = video_files(**{names[1]: make_video(1, frames=3), names[2]: b"no video"})
    source = open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", files)).source
    (batch,) = eval_batches(
        source, LabelledImages(EvalTransform(image_size=32)), global_batch_size=15
    )
    assert batch["mask"].tolist() == [True] * 8 + [False] * 7


def test_a_broken_first_video_does_not_hide_how_many_frames_there_are(tmp_path):
    files = video_files(**{next(iter(video_files())): b"no video"})
    source = open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", files)).source
    assert len(source) == 3 * FRAMES
    with pytest.raises(BrokenImage, match="not a readable video"):
        source[0]


def test_nothing_but_broken_videos_is_refused(tmp_path):
    pytest.importorskip("av")
    files = {f"snow/{WNIDS[4]}/a.mp4": b"no video"}
    with pytest.raises(ValueError, match="first 1 videos are broken; .*a.mp4"):
        open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", files))


def test_without_a_decoder_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    files = {f"snow/{WNIDS[4]}/a.mp4": b"-"}
    with pytest.raises(ValueError, match=re.escape("pip install 'lska-jax[video]'")):
        open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", files))


def test_loose_archives_are_those_of_imagenet_c(tmp_path):
    from lska_jax.robustness.sets.opening import MissingSet

    write_tar(tmp_path / "weather.tar", {f"snow/{WNIDS[4]}/a.mp4": b"-"})
    with pytest.raises(MissingSet, match="ImageNet-P is missing"):
        open_cell(SNOW, data_root=tmp_path)


# --- folders of frames


def frame_files(frames: int = 11) -> dict[str, bytes]:
    return {
        f"snow/{WNIDS[label]}/seq{sequence}/frame{frame}.png": b"%d %d" % (sequence, frame)
        for label, sequence in ((4, 0), (4, 1), (7, 2))
        for frame in range(frames)
    }


@both_kinds
def test_frames_in_folders_are_in_the_order_of_their_numbers(kind, tmp_path):
    data = open_cell(SNOW, data_root=write_kind(kind, tmp_path, "imagenet-p", frame_files()))
    expected = [b"%d %d" % pair for pair in zip(*data.extra.values(), strict=True)]
    assert [data.source[i].image for i in range(33)] == expected
    assert [data.source[i].label for i in range(33)] == [4] * 22 + [7] * 11
    np.testing.assert_array_equal(data.extra["frame"], np.tile(np.arange(11), 3))


def test_a_sequence_of_another_length_is_named(tmp_path):
    files = frame_files()
    files.pop(f"snow/{WNIDS[7]}/seq2/frame10.png")
    with pytest.raises(ValueError, match=f"{WNIDS[7]}/seq2 has 10 frames, others 11"):
        open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", files))


def test_images_that_belong_to_no_sequence_are_refused(tmp_path):
    files = frame_files() | {f"snow/{WNIDS[9]}/frame0.png": b"-"}
    with pytest.raises(ValueError, match=f"snow/{WNIDS[9]} holds images of no sequence"):
        open_cell(SNOW, data_root=write_tree(tmp_path / "imagenet-p", files))
