"""Put a model folder on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from lska_jax.weights.model_facts import CONFIG_NAME, WEIGHTS_NAME
from lska_jax.weights.model_folder import CARD_NAME, read_model_folder


def push_folder(
    folder: str | Path, repo: str, *, is_private: bool = False, message: str = ""
) -> str:
    """Upload a model folder of this package, whole, as one commit.

    The account is the one that ``hf auth login`` or the variable HF_TOKEN gives; HF_ENDPOINT names
    another Hub.

    Args:
      folder: the model folder; its hashes are verified first.
      repo: "name" or "org/name"; made if it is not there.
      is_private: whether a new repository is.
      message: of the commit.

    Returns:
      The address of the repository.

    Raises:
      ValueError: the folder is damaged, or no model folder of this package.
      ImportError: huggingface_hub is not installed.
      ConnectionError: the Hub does not answer, or refuses; with its reason.
    """
    facts, _ = read_model_folder(folder)
    files = (WEIGHTS_NAME, CONFIG_NAME, CARD_NAME)
    if missing := [name for name in files if not (Path(folder) / name).is_file()]:
        raise ValueError(
            f"{folder} has no {', '.join(missing)}; make a model folder with lska-jax publish."
        )
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ImportError(
            "To put a folder on the Hub, huggingface_hub is needed: pip install 'lska-jax[hub]'."
        ) from error
    try:
        api = HfApi()
        made = api.create_repo(repo, private=is_private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=str(folder),
            allow_patterns=list(files),
            commit_message=message or f"Add {facts.description}",
        )
    # The library raises errors of several packages: its own, of HTTP, of the file system.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"{folder} could not be put on the Hub as {repo}: {reason}. Log in with: hf auth "
            "login. The folder is as it was; the same command tries again."
        ) from error
    return str(made)
