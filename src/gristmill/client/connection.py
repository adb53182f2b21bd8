"""Requests to one server: what may be tried again is, and every failure is a UserError that says what happened."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import httpx
import msgspec

from gristmill.http_values import api_base, seconds, sent_key, shown
from gristmill.printable import printable
from gristmill.user_error import UserError
from gristmill.wire.errors import ErrorBody, ErrorResponse

T = TypeVar("T")

#: An upload's answer comes only when the last byte is stored, a label score's when the model is loaded.
_SLOW = httpx.Timeout(600.0, connect=10.0)
_QUICK = httpx.Timeout(30.0, connect=10.0)
#: Below the five seconds after which uvicorn closes an idle connection, so that no request is sent into one that is
#: just being closed.
_KEEP_ALIVE = 4.0
#: Answers of a proxy, or of a server that turned the request away before it did anything.
_NOT_ACTED_UPON = (429, 503)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_HINT = "check the URL (it usually ends in /v1)."


class NoAnswer(UserError):
    """The server is away, restarting or overloaded, or a proxy answered for it: asking again may help.

    ``refused``: there was no connection at all. ``acted_upon``: the server may have done what it was asked.
    """

    def __init__(
        self,
        message: str,
        reason: str,
        *,
        refused: bool = False,
        acted_upon: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.refused = refused
        self.acted_upon = acted_upon
        self.retry_after = retry_after


class NotBatchApi(UserError):
    """Something answered, but nothing that speaks the Batch API."""

    retry_after = None

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.reason = f"it answered {status}, and not as a Batch API server"
        self.status = status


class Refusal(UserError):
    """The server's own no, in its words."""

    def __init__(self, message: str, status: int, code: str | int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Silence(NamedTuple):
    """The server does not answer: ``since`` when, in seconds of the Unix epoch, and the latest ``reason``."""

    since: float
    reason: str


class Backoff:
    """Pauses between tries, in seconds: longer each time, and none alike, so that clients do not come back together."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def pause(self, retry_after: float | None = None) -> float:
        """``retry_after``: what the server asked for."""
        pause = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, _LONGEST_PAUSE)
        return max(pause, min(retry_after or 0.0, _LONGEST_PAUSE))


class ServerConnection:
    """``patience``: seconds for which a request is tried again after its first failure."""

    def __init__(self, server: str, api_key: str | None, patience: float) -> None:
        """Raises UserError for what is no address, and for a key that no request could carry."""
        try:
            self.server = api_base(server)
        except ValueError:
            raise _no_address(shown(server)) from None
        #: The address for messages.
        self.shown = shown(self.server)
        self._key = sent_key(api_key)
        self._patience = patience
        self._http = httpx.Client(
            timeout=_QUICK,
            limits=httpx.Limits(keepalive_expiry=_KEEP_ALIVE),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )
        #: A server that has never answered is most likely none, and not waited for.
        self._has_answered = False

    def ask(
        self, method: str, path: str, kind: type[T], *, repeatable: bool = True, slow: bool = False, **of: Any
    ) -> T:
        """``repeatable`` False: not tried again where the server may have done it already. Raises NoAnswer once
        patience ends, Refusal and NotBatchApi."""
        return self.patiently(lambda: self.ask_once(method, path, kind, slow=slow, **of), repeatable)

    def ask_once(self, method: str, path: str, kind: type[T], *, slow: bool = False, **of: Any) -> T:
        """``of``: what httpx takes of a request's content."""
        with self._told_failures(sent=method != "GET"):
            answer = self._http.request(method, self.server + path, timeout=_SLOW if slow else _QUICK, **of)
        self._check(answer)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = f"{self.shown} answered, but not as a Batch API server: {_HINT}"
            raise NotBatchApi(message, answer.status_code) from None

    @contextmanager
    def stream(
        self, path: str, headers: dict[str, str], json: dict[str, Any] | None = None
    ) -> Iterator[httpx.Response]:
        """An answer whose body is still to be read; failures while it is read are told, too. A status of 416 is left
        to the caller. With ``json``, POST that."""
        method, timeout = ("GET", _QUICK) if json is None else ("POST", _SLOW)
        asked = self._http.stream(method, self.server + path, headers=headers, json=json, timeout=timeout)
        with self._told_failures(sent=json is not None), asked as answer:
            if not answer.is_success and answer.status_code != 416:
                answer.read()
            self._check(answer, 416)
            yield answer

    def patiently(self, attempt: Callable[[], T], repeatable: bool = True) -> T:
        backoff, first_failure = Backoff(), None
        while True:
            try:
                return attempt()
            except NoAnswer as error:
                if (error.refused and not self._has_answered) or (error.acted_upon and not repeatable):
                    raise
                now = time.monotonic()
                first_failure = now if first_failure is None else first_failure
                pause = backoff.pause(error.retry_after)
                if now + pause - first_failure > self._patience:
                    raise
            time.sleep(pause)

    def _check(self, answer: httpx.Response, *also: int) -> None:
        self._has_answered = True
        status = answer.status_code
        if answer.is_success or status in also:
            return
        error = _error_of(answer)
        again = answer.headers.get("x-should-retry") != "false"
        if (status in (408, 429) or status >= 500) and status != 501 and again:
            reason = error.message if error is not None else f"it answered {status} {answer.reason_phrase}".strip()
            raise NoAnswer(
                self._harmless(error.message)
                if error is not None
                else f"{self.shown} answered {status} {answer.reason_phrase}: the server, or a proxy before it, is "
                "overloaded or restarting.",
                self._harmless(reason),
                acted_upon=status not in _NOT_ACTED_UPON,
                retry_after=seconds(answer.headers.get("retry-after")),
            )
        if error is not None and error.code != "unknown_url":
            raise Refusal(self._harmless(error.message) + self._about_key(status), status, error.code)
        if status in (401, 403):
            raise Refusal(f"{self.shown} answered {status} {answer.reason_phrase}." + self._about_key(status), status)
        url = shown(str(answer.url))
        raise NotBatchApi(f"{url} answered {status}, but not as a Batch API server: {_HINT}", status)

    def _about_key(self, status: int) -> str:
        if status not in (401, 403):
            return ""
        if self._key:
            return " The API key that was sent is not the right one: see GRISTMILL_API_KEY."
        return " No API key was sent: set GRISTMILL_API_KEY."

    def _harmless(self, text: str) -> str:
        """A server's words as they may be shown: without the key, should they repeat it."""
        return printable(text.replace(self._key, "***") if self._key else text)

    @contextmanager
    def _told_failures(self, sent: bool = False) -> Iterator[None]:
        """``sent``: a request that broke may have been acted upon."""
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise _no_address(self.shown) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            reason = str(error) or "no connection"
            message = (
                f"No server answers at {self.shown} ({reason}): start one with 'gristmill serve', "
                "or name another with --server."
            )
            raise NoAnswer(message, reason, refused=True) from None
        except httpx.TimeoutException:
            message = f"The server at {self.shown} did not answer in time: is it overloaded?"
            raise NoAnswer(message, "it did not answer in time", acted_upon=sent) from None
        except httpx.TransportError as error:
            reason = f"the connection broke: {str(error) or type(error).__name__}"
            raise NoAnswer(f"The server at {self.shown} gave no answer: {reason}.", reason, acted_upon=sent) from None
        except httpx.DecodingError:
            raise NotBatchApi(f"{self.shown} sends what cannot be decompressed: {_HINT}", 200) from None


def _no_address(given: str) -> UserError:
    return UserError(f"'{given}' is not a server's URL: write it like http://127.0.0.1:4080.")


def _error_of(answer: httpx.Response) -> ErrorBody | None:
    """In the API's own words; None where something else answered."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(answer.content, type=ErrorResponse).error
    return None
