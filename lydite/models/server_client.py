"""HTTP to a server that speaks the OpenAI protocol: limits, timeouts, retries, and whose fault an error is.

One attempt ends in one of four ways: an answer; `RequestFailed` (this request will not succeed, others may);
a passing fault (connection lost, 408, 409, 429, 5xx, a body that is no JSON), which is tried again after a growing,
jittered pause or after what `Retry-After` says, and in the end is `RequestFailed` with `transient`; or ModelError,
where no request can succeed (wrong key, no quota, a server that has gone away).

Contract: the key comes from an environment variable and goes into the Authorization header and nowhere else. It is in
no attribute that prints, and is struck out of whatever a server says.
"""

import asyncio
import email.utils
import functools
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from lydite.errors import ModelError

T = TypeVar("T")

LONGEST_PAUSE = 600.0
"""Seconds. A server that asks for more is not waited for: the run stops and the same command continues it."""
LONGEST_BACKOFF = 60.0
SECRET_LENGTH = 16
"""A shorter key is a placeholder such as EMPTY; it may well be a word of an answer."""
_PASSING = (408, 409, 425, 429)
_OUT_OF_FUNDS = ("insufficient_quota", "billing_hard_limit_reached")


@dataclass(frozen=True)
class Clock:
    """Time as the client sees it; tests bring their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class RequestFailed(Exception):
    """The server will not answer this request. `transient`: it may the next time."""

    def __init__(self, reason: str, *, transient: bool, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.transient = transient
        self.status = status


class _PassingFault(Exception):
    """Worth another attempt, after `pause` seconds where the server said so."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pause = pause


class Limiter:
    """Spaces requests so that in no minute more than so many requests, or tokens, are sent.

    Requests are spread evenly, not sent in bursts: servers count minutes in ways that differ.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Clock) -> None:
        self._clock = clock
        self._seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_by_requests = self._next_by_tokens = self._not_before = 0.0

    async def take(self, num_tokens: int) -> None:
        """Waits until a request of about `num_tokens` may be sent."""
        now = self._clock.now()
        start = max(now, self._next_by_requests, self._next_by_tokens)
        self._next_by_requests = start + self._seconds_per_request
        self._next_by_tokens = start + num_tokens * self._seconds_per_token
        while (wait := max(start, self._not_before) - self._clock.now()) > 0:
            await self._clock.sleep(wait)

    def correct(self, estimated: int, real: int) -> None:
        """Counts a request as the tokens that the server says it was."""
        self._next_by_tokens += (real - estimated) * self._seconds_per_token

    def pause(self, seconds: float) -> None:
        """Nothing is sent for so long: the server asked for it."""
        self._not_before = max(self._not_before, self._clock.now() + seconds)


class Client:
    """Sends requests to one server. Use within `async with`; the limits hold over several such blocks."""

    def __init__(
        self,
        url: str,
        *,
        key_name: str,
        max_retries: int,
        timeout: float,
        backoff: float,
        limiter: Limiter,
        clock: Clock,
    ) -> None:
        self.url = url
        self.limiter = limiter
        self._key_name = key_name
        self._key = read_key(key_name)
        self._max_retries, self._timeout, self._backoff, self._clock = max_retries, timeout, backoff, clock
        # Not keyed: jitter must differ between processes, and moves no number.
        self._random = random.Random()
        self._http: httpx2.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    async def __aenter__(self) -> "Client":
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=self._timeout,
            trust_env=not is_local(self.url),  # a server on this machine is not reached through a proxy
            verify=_tls() if self.url.startswith("https:") else False,  # nothing to verify without TLS
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.aclose()
        self._http = None

    async def get(self, path: str, as_type: type[T], *, max_retries: int | None = None) -> T:
        """The first question: where nobody answers, that is a ModelError at once."""
        return await self._send(path, None, as_type, 0, self._max_retries if max_retries is None else max_retries)

    async def post(self, path: str, body: dict[str, Any], as_type: type[T], *, num_tokens: int) -> T:
        """The server's answer, read as `as_type`; RequestFailed or ModelError. `num_tokens`: about how many it will count."""
        try:
            data = msgspec.json.encode(body)
        except UnicodeEncodeError:
            raise RequestFailed("the text holds a lone surrogate, which cannot be sent", transient=False) from None
        return await self._send(path, data, as_type, num_tokens, self._max_retries)

    async def _send(self, path: str, data: bytes | None, as_type: type[T], num_tokens: int, max_retries: int) -> T:
        attempt = 0
        while True:
            await self.limiter.take(num_tokens)
            try:
                return await self._once(path, data, as_type)
            except httpx2.ConnectError as error:
                name = type(error).__name__  # no more of it: addresses might hold secrets
                if data is None:
                    raise ModelError(
                        f"no server answers at {self.url} ({name}); start it or mend the address"
                    ) from error
                fault = _PassingFault(f"the server cannot be reached ({name})")
            except httpx2.InvalidURL as error:
                raise ModelError(f"{self.url} is no address: {error}") from error
            except (TimeoutError, httpx2.TimeoutException):
                fault = _PassingFault(f"no answer within {self._timeout:g} s")
            except httpx2.RequestError as error:
                fault = _PassingFault(f"the connection was lost ({type(error).__name__})")
            except _PassingFault as error:
                fault = error
            attempt += 1
            if attempt > max_retries:
                raise RequestFailed(f"{fault.reason}; tried {attempt} times", transient=True)
            await self._clock.sleep(self._pause(attempt, fault.pause))

    async def _once(self, path: str, data: bytes | None, as_type: type[T]) -> T:
        assert self._http is not None, "used outside of `async with`"
        # httpx's own timeouts are between two pieces of an answer; one that drips in would never end.
        async with asyncio.timeout(self._timeout):
            method = "GET" if data is None else "POST"
            response = await self._http.request(method, self.url + path, content=data)
        if response.status_code != 200:
            self._refuse(response)
        if self._key and len(self._key) >= SECRET_LENGTH and self._key.encode() in response.content:
            raise RequestFailed("the server's answer contains the API key, so it was not kept", transient=False)
        try:
            return msgspec.json.decode(response.content, type=as_type)
        except (msgspec.DecodeError, ValueError) as error:
            raise _PassingFault(f"the answer cannot be read ({self.clean(str(error))})") from error

    def _refuse(self, response: httpx2.Response) -> None:
        """Raises what an answer other than 200 means."""
        status, said = response.status_code, self._message(response)
        where = f"{self.url} (HTTP {status}: {said})"
        if status == 401:
            mend = f"the key in {self._key_name} is not accepted" if self._key else f"put a key into {self._key_name}"
            raise ModelError(f"{self.url} asks for a key (HTTP 401); {mend}")
        if 300 <= status < 400:
            raise ModelError(f"{self.url} sends requests elsewhere (HTTP {status}); give the address that it moved to")
        if status == 402 or any(word in response.text for word in _OUT_OF_FUNDS):
            raise ModelError(f"the account has no funds for {where}; the same command continues later")
        if status in _PASSING or status >= 500:
            pause = retry_after(response.headers)
            if pause is not None:
                if pause > LONGEST_PAUSE:
                    raise ModelError(f"{where} asks to wait {pause:.0f} s; the same command continues then")
                self.limiter.pause(pause)
            raise _PassingFault(f"HTTP {status}: {said}", pause)
        raise RequestFailed(f"HTTP {status}: {said}", transient=False, status=status)

    def _message(self, response: httpx2.Response) -> str:
        """What the server says went wrong, on one line and without the key."""
        try:
            found = msgspec.json.decode(response.content)
        except (msgspec.DecodeError, ValueError):
            found = response.text
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        return self.clean(found if isinstance(found, str) else str(found))

    def clean(self, text: str) -> str:
        """A server's words, on one line, not too long, without the key."""
        text = text.replace(self._key, "***") if self._key else text
        text = " ".join(text.split())
        return text if len(text) <= 300 else text[:297] + "..."

    def _pause(self, attempt: int, asked: float | None) -> float:
        """Seconds before the next attempt: doubling, half of it random; never less than the server asked for."""
        longest = min(LONGEST_BACKOFF, self._backoff * 2 ** (attempt - 1))
        jittered: float = longest * self._random.uniform(0.5, 1.0)
        return jittered if asked is None else asked + min(jittered, 1.0)


def read_key(name: str) -> str:
    """The key in an environment variable; empty where it is not set. ModelError, which does not quote it, if it cannot be sent."""
    key = os.environ.get(name, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ModelError(f"the key in {name} has characters that a header cannot carry; set it again")
    return key


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that a server asks to wait (RFC 9110, section 10.2.3: a number or a date); None where it says nothing."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        said = headers.get("retry-after")
        if said is None:
            return None
        try:
            return max(0.0, float(said))
        except ValueError:
            return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the machine's certificates takes longer than many an answer."""
    return httpx2.create_ssl_context()


def is_local(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
