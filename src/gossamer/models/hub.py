"""Sharing: what `gossamer sparsify` left in its folder, uploaded to the hub with its card.

`PreTrainedModel.push_to_hub` writes a card of its own over a model's, unless the repository has one already: then it
keeps it. So the card goes up with the model here, and every later `model.push_to_hub(repo)` keeps it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from ..errors import CheckpointError, refuse
from .config_file import adapter_base
from .declared import read_config
from .gate_block import blocks_of, require_adapter_blocks
from .model_card import model_card
from .run_report import RunReport

# What the hub's HTTP client raises when nobody answers; which client that is changes between its versions.
TRANSPORT: type[Exception] = HfHubHTTPError.__bases__[0]


def push_to_hub(
    folder: Path | str, repo_id: str, *, private: bool | None = None, token: str | None = None
) -> str:
    """Upload a run's model, its tokenizer, its card and its report to `repo_id`; returns the commit's address.

    Args:
        folder: OUT of `gossamer sparsify` or `gossamer demo`: report.json, and model, adapter or sparse.
        repo_id: owner/name.
        private: whether a repository that this call creates is private; None for the owner's default.
        token: None for the one stored by `hf auth login`.
    Raises: `CheckpointError` for a folder without report or gates, a bad name, or a hub that cannot be reached.
    """
    folder = Path(folder)
    model, report = shared(folder)
    card = model_card(report, title=repo_id.split("/")[-1], where=repo_id)
    api: Any = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=str(model),
            ignore_patterns="README.md",
            commit_message="Add the model",
        )
        api.upload_file(
            repo_id=repo_id, path_or_fileobj=(folder / "report.json").read_bytes(), path_in_repo="report.json"
        )
        done = api.upload_file(repo_id=repo_id, path_or_fileobj=card.encode(), path_in_repo="README.md")
    except (TRANSPORT, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise refuse(
            f"{repo_id} cannot be written ({str(error).strip().splitlines()[0]})",
            "owner/name, a token that may write, and network access",
            "check the name, or log in with hf auth login",
            CheckpointError,
        ) from error
    return str(done)


def shared(folder: Path) -> tuple[Path, RunReport]:
    """The gated model in a run's folder, and its report; nothing that would run dense passes."""
    report = RunReport.load(folder)
    adapter = folder / "adapter"
    if adapter.is_dir():
        require_adapter_blocks(adapter)
        base = adapter_base(adapter)
        if Path(base).exists():
            raise refuse(
                f"{adapter} holds adapters of {base}, which is a folder of this machine",
                "a merged model, or adapters of a model on the hub",
                "share the base first and put its id into adapter_config.json, or run with --lora and --merge",
                CheckpointError,
            )
        return adapter, report
    model = folder / ("sparse" if report.recipe == "addition" else "model")
    if not blocks_of(read_config(model).__dict__, model):
        raise refuse(
            f"{model} is a dense checkpoint",
            "a model that gossamer sparsify kept",
            "make it sparse first",
            CheckpointError,
        )
    return model, report
