"""Models of the Hugging Face hub, or of a mirror of it that HF_ENDPOINT names."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gristmill.extras import require
from gristmill.models.cache import hub_folder, make_private
from gristmill.models.checked_file import git_blob_id_of, require_room, sha256_of
from gristmill.models.download import download
from gristmill.models.hub_choice import HubFile, choose
from gristmill.models.progress import Report, human_size
from gristmill.models.receipt import Pulled, Receipt, ReceiptFile, write_receipt
from gristmill.user_error import UserError

PARTIAL = ".partial"
_TIMEOUT_SECONDS = 20.0


class _Listing(NamedTuple):
    revision: str
    licence: str | None
    files: list[HubFile]


def pull_from_hub(repo: str, file: str | None, report: Report) -> Pulled:
    """Choose, fetch, check and keep one model of ``repo``; continues what an interrupted pull had fetched.

    The caller holds the folder (``writing_to``). Raises UserError when there is no such repository or model,
    the choice is not clear, the connection keeps failing, or the content is not what the hub says it is.
    """
    listing = _list(repo)
    choice = choose(repo, listing.files, file)
    folder = hub_folder(repo)
    partial = _partial_folder(folder, listing.revision)
    there = sum(_size(partial / wanted.path) for wanted in choice.files)
    require_room(folder, choice.size - there)
    resumed = f", of which {human_size(there)} is here from an earlier attempt" if there else ""
    licence = listing.licence or "not stated; see the repository's page"
    report.say(f"{repo}: {choice.main}, {human_size(choice.size)} to download{resumed}. Licence: {licence}.")
    received, done = [], 0
    for wanted in choice.files:
        received.append(_fetch(repo, listing.revision, wanted, partial, report, done, choice.size))
        done += wanted.size
    # Only now, all of them being right, do they become the model.
    for wanted in choice.files:
        make_private((folder / wanted.path).parent)
        (partial / wanted.path).replace(folder / wanted.path)
    shutil.rmtree(partial, ignore_errors=True)
    name = repo if choice.kind == "ir" else f"{repo}:{choice.main}"
    receipt = Receipt(name, choice.kind, choice.main, tuple(received), listing.licence, listing.revision)
    return write_receipt(folder, receipt)


def _list(repo: str) -> _Listing:
    hub = require("huggingface_hub")
    try:
        info = hub.HfApi().model_info(repo, files_metadata=True, timeout=_TIMEOUT_SECONDS)
    except hub.errors.GatedRepoError:
        raise UserError(
            f"The repository '{repo}' asks you to accept its terms first: do so on its page on the hub, "
            "then set HF_TOKEN to a token of that account and run the same command again."
        ) from None
    except hub.errors.RepositoryNotFoundError:
        raise UserError(
            f"The hub has no public model repository '{repo}': check the spelling "
            "(organisation/repository), or set HF_TOKEN if it is private."
        ) from None
    except hub.errors.OfflineModeIsEnabled:
        raise UserError(f"'{repo}' is not pulled yet and HF_HUB_OFFLINE is set: unset it to pull.") from None
    except Exception as error:  # which HTTP client raises depends on the version of huggingface_hub
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"The model hub {hub.constants.ENDPOINT} could not be asked for '{repo}' ({reason}): check the "
            "network, and HF_ENDPOINT if you use a mirror."
        ) from None
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    files = [_hub_file(repo, sibling) for sibling in info.siblings or []]
    return _Listing(info.sha or "main", licence if isinstance(licence, str) else None, files)


def _hub_file(repo: str, sibling: Any) -> HubFile:
    path = PurePosixPath(sibling.rfilename)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"The repository '{repo}' lists a file outside of itself, '{path}': do not use it.")
    if sibling.size is None:
        raise UserError(f"The hub does not tell the sizes of the files of '{repo}': check HF_ENDPOINT.")
    return HubFile(str(path), sibling.size, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id)


def _partial_folder(folder: Path, revision: str) -> Path:
    """Where this revision's files grow. Another revision's halves would not fit: they are removed."""
    for other in (folder / PARTIAL).glob("*"):
        if other.name != revision:
            shutil.rmtree(other, ignore_errors=True)
    return folder / PARTIAL / revision


def _fetch(
    repo: str, revision: str, wanted: HubFile, partials: Path, report: Report, before: int, total: int
) -> ReceiptFile:
    hub = require("huggingface_hub")
    partial = partials / wanted.path
    make_private(partial.parent)
    url = hub.hf_hub_url(repo, wanted.path, revision=revision)
    headers = hub.utils.build_hf_headers(library_name="gristmill")
    partial.touch()
    download(url, partial, wanted.size, headers, lambda done: report.advance(before + done, total))
    report.advance(before + wanted.size, total)
    sha256 = sha256_of(partial)
    # A small file has no SHA-256 on the hub, but git's id of its content does the same.
    by_blob = wanted.blob_id and len(wanted.blob_id) == 40 and not wanted.sha256
    right = git_blob_id_of(partial) == wanted.blob_id if by_blob else sha256 == (wanted.sha256 or sha256)
    if not right:
        partial.unlink()
        raise UserError(
            f"What arrived of '{wanted.path}' is not what the hub says it is (its checksum differs), so it "
            "was not kept: run the same command again, and if it stays so, do not use this hub or mirror."
        )
    return ReceiptFile(wanted.path, wanted.size, sha256)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
