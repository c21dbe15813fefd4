"""Access to the Hugging Face Hub; if it does not answer, to its local cache at once; uploads."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from lpt.errors import ConfigError, HubError, Problem, config_error, first_line

logger = logging.getLogger(__name__)
T = TypeVar("T")
_TIMEOUT_S = 5.0
_DOWNLOAD_TIMEOUT_S = 8.0
_PAUSE_S = 1.0
_BUSY = 429  # HTTP status of the Hub's limit on requests in five minutes
_failures: list[str] = []  # why this process has given up the Hub
_broken: Counter[str] = Counter()  # how often the download of a URL broke off early


def load_from_hub(
    load: Callable[[], T], repo: str, asked: Problem, revision: str | None = None
) -> T:
    """The result of `load`, which uses the Hub's clients; if the Hub fails, of its local cache.

    Args:
        load: Loads a model or data set; called once more if the Hub fails meanwhile.
        repo: Path of its page on the Hub.
        asked: What is loaded, in messages: the configuration key, the value given, what the key
            takes, and what to do without the Hub.
        revision: Branch, tag or commit.

    Raises:
        HubError: The Hub does not answer or offline mode is on, and the cache lacks something.
        ConfigError: The Hub answers that it is not there or not accessible, or it is unusable.
    """
    _install_client()
    offline = _is_offline()
    try:
        try:
            return load()
        except Exception:
            if offline or not _is_offline():
                raise
            return load()
    except ConfigError:
        raise
    except Exception as error:  # of any library that downloads, reads or parses
        raise _explained(error, repo, asked, revision) from error


def upload_to_hub(
    files: Mapping[str, Path | bytes], repo: str, *, private: bool = False, pr: bool = False
) -> str:
    """Upload files to a model repository in one commit; returns the page of the commit.

    Args:
        files: Content of each file, or the file with it, by its name in the repository.
        repo: Id of the repository; it is created if it does not exist, unless `pr`.
        private: Whether it must be private.
        pr: Open a pull request instead of changing the main branch; returns its page.

    Raises:
        ConfigError: The Hub refuses or does not answer; nothing was uploaded.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, errors

    api, expected = HfApi(), "OWNER/NAME on the Hub, which your token may write to"
    try:
        if not pr:
            api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise config_error("--private", f"{repo} exists and is public", "a new repository")
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        commit = api.create_commit(
            repo, additions, commit_message="Upload an adapter of lpt", create_pr=pr
        )
    except ConfigError:
        raise
    except Exception as error:  # of the Hub's clients
        hint = "--out FOLDER writes the files without the Hub"
        statuses = {_status(cause) for cause in _causes(error)} - {None}
        unanswered = isinstance(error, (errors.HTTPError, ConnectionError))  # type: ignore[attr-defined]
        if unanswered and not statuses:
            expected = f"a reachable Hub ({constants.ENDPOINT})"
        elif statuses & {401, 403, 404}:
            hint = "log in with `hf auth login`, or set HF_TOKEN, with the right to write"
        raise config_error(
            "--repo", f"{repo}: {' '.join(str(error).split())}", expected, hint
        ) from error
    return str(commit.pr_url or commit.commit_url)


def how_to_get_access(repo: str) -> str:
    """A hint for a repository that the Hub does not show to everyone, if it has it at all."""
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{repo}"
    return f"ask for access at {page}, then log in with `hf auth login` or set HF_TOKEN"


def _explained(error: Exception, repo: str, asked: Problem, revision: str | None) -> ConfigError:
    """The error for something that could not be loaded: what the Hub answered, if it did."""
    from huggingface_hub import constants, errors

    page, causes = f"{constants.ENDPOINT}/{repo}", list(_causes(error))

    def caused_by(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    def refused(fault: str, hint: str = asked.hint) -> ConfigError:
        return config_error(asked.where, f"{asked.given}{fault}", asked.expected, hint)

    if caused_by(errors.HFValidationError):
        return refused(", which is neither a local folder nor a possible Hub id")
    if caused_by(errors.RevisionNotFoundError):
        given = f"{revision}, which {asked.given} does not have on the Hub"
        where = asked.where.replace("model.path", "model.revision")
        return config_error(where, given, f"a branch, tag or commit of {page}")
    if caused_by(errors.GatedRepoError):
        return refused(", which is gated on the Hub", how_to_get_access(repo))
    if caused_by(errors.RepositoryNotFoundError):
        return refused(", which is not on the Hub or is private", how_to_get_access(repo))
    denied = [first_line(cause) for cause in causes if _status(cause) in (401, 403)]
    if denied:
        fault = f", to which the Hub refuses access ({denied[-1]})"
        return refused(fault, how_to_get_access(repo))
    if _is_offline():
        state = _failures[0] if _failures else "offline mode is on (HF_HUB_OFFLINE)"
        given = f"{asked.given} is not completely in the local cache, and {state}"
        return HubError([Problem(asked.where, given, asked.expected, asked.hint)])
    reasons = [first_line(cause) for cause in (error, error.__cause__) if cause is not None]
    return refused(f" could not be loaded: {': '.join(dict.fromkeys(reasons))}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@cache
def _install_client() -> None:
    """Let the Hub's clients give up soon; by themselves they retry for minutes."""
    from huggingface_hub import get_session, set_client_factory

    default: Any = get_session()

    def client() -> Any:
        made = type(default)(
            event_hooks=default.event_hooks,
            follow_redirects=default.follow_redirects,
            timeout=_TIMEOUT_S,
        )
        made.send = partial(_send, made.send)
        return made

    set_client_factory(client)


def _send(send: Callable[..., Any], request: Any, *, stream: bool = False, **options: Any) -> Any:
    """Send a request, twice if there is no answer; then switch to offline mode.

    Other services than the Hub and its downloads are optional.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its httpx

    limit = _DOWNLOAD_TIMEOUT_S if stream else _TIMEOUT_S
    limits = request.extensions["timeout"].items()
    request.extensions["timeout"] = {name: min(value or limit, limit) for name, value in limits}
    needed = stream or str(request.url).startswith(constants.ENDPOINT)
    for last in (False, True):
        try:
            response = send(request, stream=stream, **options)
        except HTTPError as error:
            if not needed:
                raise
            fault, last = first_line(error), last or _timed_out(error)
        else:
            if not needed or (response.status_code < 500 and response.status_code != _BUSY):
                if stream:
                    response.iter_raw = partial(_body, response.iter_raw, str(request.url))
                return response
            response.close()
            fault = f"HTTP status {response.status_code}"
        if last:
            raise _given_up(str(request.url.join("/")), fault)
        time.sleep(_PAUSE_S)
    raise AssertionError


def _body(iter_raw: Callable[..., Iterator[bytes]], url: str, *args: Any) -> Iterator[bytes]:
    """The content of a download; one that breaks off early is resumed once."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its httpx

    size = 0
    try:
        for part in iter_raw(*args):
            size += len(part)
            yield part
    except HTTPError as error:
        _broken[url] += size < constants.DOWNLOAD_CHUNK_SIZE  # less is not written
        if _broken[url] > 1 or _timed_out(error):
            raise _given_up(url, first_line(error)) from error
        raise


def _timed_out(error: BaseException) -> bool:
    return "Timeout" in type(error).__name__


def _given_up(url: str, fault: str) -> OSError:
    """Switch to offline mode, in which the Hub's clients use the cache."""
    from huggingface_hub import constants
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import OfflineModeIsEnabled

    reason = f"the Hugging Face Hub is unavailable ({url.partition('?')[0]}: {fault})"
    if not _failures:
        logger.warning("%s; its local cache is used.", reason[0].upper() + reason[1:])
        hub_logging.set_verbosity_error()  # it would blame HF_HUB_OFFLINE
    _failures.append(reason)
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    return OfflineModeIsEnabled(reason)
