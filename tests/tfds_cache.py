"""Stand-ins for downloads of TFDS's builders, where its cache looks for them.

TFDS trusts what lies in its cache under the name that it derives from the address and the
registered checksum, with an .INFO file beside it; the content itself is not checked again.
"""

import json
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource


def cache_download(data_dir: Path, name: str, url: str, content: bytes) -> None:
    """Put content where the builder of a set looks for a download.

    Args:
      data_dir: where the set will be prepared.
      name: of the set, with its config.
      url: as the builder has it.
      content: of the file.
    """
    info = tfds.builder(name, data_dir=str(data_dir)).url_infos[url]
    folder = data_dir / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / resource.get_dl_fname(url, info.checksum)
    file.write_bytes(content)
    described = {"original_fname": info.filename, "urls": [url]}
    file.with_name(f"{file.name}.INFO").write_text(json.dumps(described))
