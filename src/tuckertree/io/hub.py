"""Saved folders on the Hugging Face hub: fetched as plain files, pushed with a model card; no pickle and no code."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from tuckertree._base.atomic import atomic_folder
from tuckertree._base.errors import TuckertreeError, UsageError, argument, first_line
from tuckertree._base.extras import require_extra
from tuckertree._base.progress import draws_bars
from tuckertree._base.version import __version__
from tuckertree.io.folder import CONFIG, FILES, REPORT, SAVED, TENSORS, file_in, read_config, read_report
from tuckertree.io.model_card import model_card
from tuckertree.io.recognition import SAFETENSORS, kind_of
from tuckertree.runtimes.cache import cache_folder

HUB = "hf-hub:"
CARD = "README.md"
_OF_THE_HUB = frozenset({".gitattributes", CARD})
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")


def is_on_hub(path: str | Path) -> bool:
    """Whether a user names a repository of the hub, by ``hf-hub:``."""
    return str(path).startswith(HUB)


def short_name(path: str | Path) -> str:
    """The name of a repository of the hub without its owner and its revision, for a file that is made of it.

    Examples
    --------
    >>> from tuckertree.io.hub import short_name
    >>> short_name("hf-hub:somebody/r20@refs/pr/1")
    'r20'
    """
    return str(path).partition("@")[0].rpartition("/")[2]


def local_folder(path: str | Path) -> Path:
    """The folder that a user names: a path as it is, ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision`` fetched.

    Of a repository no file is asked for but those of a saved folder, and first its config alone; they are kept by their
    commit in the cache folder. Nothing that is read from a file comes here: it would make a file fetch another.

    Raises
    ------
    TuckertreeError
        If huggingface_hub is not installed, the hub cannot be reached and the cache does not hold the network either, the
        repository or its revision is unknown or closed, or it is no saved folder.
    UsageError
        If what follows ``hf-hub:`` is not of that form.
    """
    if not is_on_hub(path):
        return Path(path)
    text = path if isinstance(path, str) else path.as_posix()
    repository, at, revision = text.removeprefix(HUB).partition("@")
    _check_repository(repository, text)
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UsageError(f"{text}: the name of a revision, a branch, tag or commit, follows the @")
    hub = require_extra("huggingface_hub", extra="hub")
    where: dict[str, Any] = {"library_name": "tuckertree", "library_version": __version__}
    with _explained(text, repository, revision):
        first = hub.snapshot_download(repository, revision=revision or None, allow_patterns=[CONFIG], **where)
    if not SAVED.marks(Path(first)):  # before gigabytes of another library's weights come
        raise TuckertreeError(f"{text} is no network saved by tuckertree: it has no {CONFIG} of one")
    commit = Path(first).name
    with _explained(text, repository, revision):
        snapshot = Path(hub.snapshot_download(repository, revision=commit, allow_patterns=[*FILES], **where))
    return _plain(snapshot, repository)


class Saveable(Protocol):
    """What is needed of a result."""

    @property
    def output(self) -> object:
        """None where it is saved as a folder."""

    def save(self, path: str | Path) -> Path:
        """Write the folder."""


def push_to_hub(
    source: Saveable | str | Path,
    name: str,
    *,
    private: bool = False,
    overwrite: bool = False,
    base_model: str | None = None,
    license: str | None = None,  # noqa: A002  (the hub's word)
    message: str = "Compressed with tuckertree",
) -> str:
    """Put a result, or a folder that one was saved to, on the Hugging Face hub, with a page that says what it is.

    What goes there is JSON, safetensors and, of a network in 8 bits, an ONNX file. It needs the extra ``hub``, and a login
    by ``hf auth login`` or the variable ``HF_TOKEN``.

    Parameters
    ----------
    source
        A :class:`tuckertree.CompressionResult`, or the folder.
    name
        ``owner/name``; the repository is made if there is none.
    private
        Whether a repository that is made is private. Nothing is ever put into a public one then.
    overwrite
        Whether what a repository of a saved folder holds may be replaced, its page too.
    base_model, license
        What the page says of the network it was made from: its name on the hub, and a license as the hub names them.
    message
        Of the commit.

    Returns
    -------
    str
        ``hf-hub:owner/name@commit``, which :func:`tuckertree.load` takes, and every command where it takes a folder.

    Raises
    ------
    TuckertreeError
        If the folder is not one of ours or not whole, huggingface_hub is not installed, the hub cannot be reached or
        refuses, or the repository holds what may not be replaced.
    UsageError
        If a name is none, or the result is of an ONNX file.

    Examples
    --------
    >>> import tuckertree as tt
    >>> tt.push_to_hub("out/r20", "r20")
    Traceback (most recent call last):
    tuckertree.UsageError: r20: a repository of the hub is named owner/name, in letters, digits and -._
    """
    repository = name.removeprefix(HUB)
    _check_repository(repository, name)
    if base_model is not None:
        _check_repository(base_model, base_model)
    if license is not None and not _LICENSE.fullmatch(license):
        raise UsageError(f"a license is named as on the hub, apache-2.0 for instance, not {license!r}")
    with _saved(source) as path:
        files = _files(path)
        report = read_report(path) if REPORT in files else {}
        card = model_card(repository, read_config(path), report, base_model=base_model, license=license)
        return _pushed(repository, card, files, message, private=private, overwrite=overwrite)


@contextmanager
def _saved(source: Saveable | str | Path) -> Iterator[Path]:
    """The folder of what is to be pushed."""
    if isinstance(source, str | Path):
        yield Path(source)
        return
    if source.output is not None:
        raise UsageError(
            "the result is an ONNX file, not a saved folder; push that file by the hub's own tools"
        )
    with TemporaryDirectory(prefix="tuckertree-") as folder:
        yield source.save(Path(folder) / "saved")


def _pushed(
    repository: str, card: str, files: Mapping[str, Path], message: str, *, private: bool, overwrite: bool
) -> str:
    """Make one commit of the files, and name it."""
    hub = require_extra("huggingface_hub", extra="hub")
    with _explained(repository, repository, ""):
        api = hub.HfApi(library_name="tuckertree", library_version=__version__)
        api.create_repo(repository, private=private, exist_ok=True)
        found = api.model_info(repository)
        there = {file.rfilename for file in found.siblings or ()}
        _check_free(repository, there, overwrite=overwrite)
        if private and not found.private:
            raise TuckertreeError(
                f"{repository} exists and is public; choose another name, or make it private there"
            )
        operations = [hub.CommitOperationAdd(CARD, card.encode())]
        operations += [hub.CommitOperationAdd(file, str(place)) for file, place in files.items()]
        operations += [hub.CommitOperationDelete(file) for file in sorted(there & {*FILES} - {*files})]
        commit = api.create_commit(repository, operations, commit_message=message)
    return f"{HUB}{repository}@{commit.oid}"


def _files(path: Path) -> dict[str, Path]:
    """The files of a saved folder by name, none of them a link to elsewhere."""
    config = read_config(path)
    named = [CONFIG, config.tensors, *([] if config.int8 is None else [config.int8])]
    if unusual := sorted({*named} - {*FILES}):
        raise TuckertreeError(
            f"{path} holds {unusual[0]}, which is not the name that a saved folder has for it"
        )
    named += [REPORT] if (path / REPORT).exists() else []
    files = {name: file_in(path, name) for name in named}
    if kind_of(files[TENSORS]) != SAFETENSORS:
        raise TuckertreeError(f"{files[TENSORS]} is not a safetensors file")
    return files


def _check_repository(repository: str, given: str) -> None:
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise UsageError(f"{given}: a repository of the hub is named owner/name, in letters, digits and -._")


def _check_free(repository: str, there: set[str], *, overwrite: bool) -> None:
    """Refuse a repository in which something else than a saved folder would be replaced or stand beside it."""
    if others := sorted(there - {*FILES} - _OF_THE_HUB):
        raise TuckertreeError(f"{repository} exists and holds other files ({others[0]}); choose another name")
    if there - {".gitattributes"} and not overwrite:
        raise TuckertreeError(
            f"{repository} exists already; choose another name or pass {argument('overwrite')}"
        )


def _plain(snapshot: Path, repository: str) -> Path:
    """The files of a snapshot, which are links into the hub's cache, as a folder like any other."""
    owner, _, name = repository.partition("/")
    folder = cache_folder() / "hub" / owner / snapshot.name / name
    if not folder.is_dir():
        with atomic_folder(
            folder, kind=SAVED, overwrite=True
        ) as fresh:  # another program may have made the same
            for file in FILES:
                if (snapshot / file).is_file():
                    shutil.copyfile(snapshot / file, fresh / file)
    return folder


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the hub's package draw bars only where we do, and say nothing that is no error."""
    bars, logger = require_extra("huggingface_hub.utils", extra="hub"), logging.getLogger("huggingface_hub")
    level, hidden = logger.level, not (draws_bars() or bars.are_progress_bars_disabled())
    logger.setLevel(logging.ERROR)
    if hidden:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if hidden:
            bars.enable_progress_bars()


@contextmanager
def _explained(name: str, repository: str, revision: str) -> Iterator[None]:
    """Say in one line what the hub, or the way to it, has against a request."""
    errors = require_extra("huggingface_hub.errors", extra="hub")
    login = "log in by `hf auth login`"
    try:
        with _quiet():
            yield
    except TuckertreeError:
        raise
    except errors.GatedRepoError as error:
        raise TuckertreeError(f"{repository} is gated: ask for access on its page and {login}") from error
    except errors.RevisionNotFoundError as error:
        raise TuckertreeError(f"{repository} has no revision {revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise TuckertreeError(
            f"the hub has no repository {repository} that you may see; if it is private, {login}"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(f"{name}: {first_line(error)}") from error
    except errors.LocalEntryNotFoundError as error:
        raise TuckertreeError(
            f"the Hugging Face hub cannot be reached, and {name} is not in its cache: {_root(error)}"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise TuckertreeError(
                f"the hub does not let you at {repository} ({status}): {login}, with a token that may do this"
            ) from error
        raise TuckertreeError(f"{name}: the hub answers {first_line(error)}") from error
    except Exception as error:  # of whatever package makes the connection
        raise TuckertreeError(
            f"{name}: the Hugging Face hub cannot be reached or does not answer as it should: {_root(error)}"
        ) from error


def _root(error: BaseException) -> str:
    """What the first of a chain of errors says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
