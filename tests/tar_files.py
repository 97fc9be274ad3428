"""Tar archives in memory, as the builders of data sets expect them."""

import io
import tarfile


def make_tar(files: dict[str, bytes]) -> bytes:
    """Return an uncompressed tar of {name: content}, in that order."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()
