"""Videos of ImageNet-P as a source of single frames.

Source: github.com/hendrycks/robustness, ImageNet-P: each sequence is one H.264 file of 31 frames
(translate: 41). Decoding needs PyAV, the extra ``video``. OpenCV, which the authors read them with,
wraps the same FFmpeg: on videos encoded with the authors' options both gave the same pixels.
"""

import importlib.util
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lska_jax.data.listed_source import FileList
from lska_jax.data.sources import BrokenImage, Record, check_index

# Each loader thread or worker takes 32 frames in a row: two videos at most.
_VIDEOS_KEPT = 8
# Beyond that it is no accident.
_VIDEOS_TRIED = 10


def check_video_support() -> None:
    """Refuse to go on without a decoder of videos.

    Raises:
      ValueError: PyAV is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise ValueError(
            "Reading ImageNet-P's videos needs PyAV, which is not installed: "
            "pip install 'lska-jax[video]', or unpack each video into a folder of frames."
        )


def decode_frames(data: bytes) -> UInt8[np.ndarray, "frames height width 3"]:
    """Decode all frames of a video.

    Args:
      data: the whole file.

    Returns:
      RGB pixels (frames, H, W, 3) uint8.

    Raises:
      BrokenImage: the bytes are no video or cut short before its first frame.
    """
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BrokenImage(f"not a readable video ({reason})") from error
    if not frames:
        raise BrokenImage("a video without frames")
    return np.stack(frames)


class VideoSource:
    """The frames of videos of one length, one after the other."""

    def __init__(
        self, name: str, files: FileList, labels: np.ndarray, class_names: Sequence[str]
    ) -> None:
        """Count the frames of the first video that can be read; all are taken to have as many.

        Args:
          name: what is read.
          files: the videos.
          labels: (videos,) integers.
          class_names: name of each class, in label order.

        Raises:
          ValueError: PyAV is not installed, or none of the first videos can be read.
        """
        check_video_support()
        self.name = name
        self.class_names = tuple(class_names)
        self._files = files
        self._labels = np.asarray(labels, np.int32)
        self._decoded: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self.frames_per_video = self._count_frames()

    def __len__(self) -> int:
        """Return the number of frames of all videos together."""
        return len(self._labels) * self.frames_per_video

    def __getitem__(self, index: int) -> Record:
        """Return frame ``index``, (H, W, 3) uint8, and the label of its video.

        Raises:
          BrokenImage: the video cannot be decoded, or has fewer frames than the first one.
        """
        check_index(index, len(self), self.name)
        video, frame = divmod(int(index), self.frames_per_video)
        frames = self._frames(video)
        if frame >= len(frames):
            raise BrokenImage(f"the video has {len(frames)} of {self.frames_per_video} frames")
        return Record(frames[frame], int(self._labels[video]))

    def path(self, index: int) -> str:
        """Return the video's path and the frame's number, from 0."""
        check_index(index, len(self), self.name)
        video, frame = divmod(int(index), self.frames_per_video)
        return f"{self._files.path(video)}#{frame}"

    def _count_frames(self) -> int:
        tried = range(min(_VIDEOS_TRIED, len(self._files)))
        for video in tried:
            try:
                return len(self._frames(video))
            except BrokenImage as error:
                reason = f"{self._files.path(video)}: {error}"
        raise ValueError(f"{self.name}: the first {len(tried)} videos are broken; {reason}.")

    def _frames(self, video: int) -> np.ndarray:
        with self._lock:
            if video in self._decoded:
                self._decoded.move_to_end(video)
                return self._decoded[video]
        frames = decode_frames(self._files.read(video))
        with self._lock:
            self._decoded[video] = frames
            while len(self._decoded) > _VIDEOS_KEPT:
                self._decoded.popitem(last=False)
        return frames

    def __getstate__(self) -> dict[str, Any]:
        """Pickle neither decoded frames nor the lock."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_decoded", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; videos are decoded again when they are read."""
        self.__dict__.update(state, _decoded=OrderedDict(), _lock=threading.Lock())
