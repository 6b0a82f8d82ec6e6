"""What a call is, before anybody runs it, and how one declaration of a method serves every face of the client.

Law: values and types. A method builds a `Call`; a face runs it, blocking or awaiting. No gRPC, no clock, no randomness.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import msgspec
from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

    from google.protobuf.descriptor import MethodDescriptor

    from arbiter.client.failures import CallFailed

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class Again(enum.Enum):
    """Whether a call may be sent again when nobody knows what became of it."""

    ALWAYS = "always"  # it changes nothing, or sending it twice changes nothing more
    KEYED = "keyed"  # if it carries an idempotency key
    TIMED = "timed"  # if it carries the time at which what it says is so
    NEVER = "never"


class Call(Generic[_T]):
    """One call: what is sent, how the response is read, and what answers in its place when no server does.

    `timeout` is in seconds, None for the client's own. `local` makes an answer out of the failure, None: there is none.
    """

    __slots__ = ("local", "message", "read", "rpc", "timeout")

    def __init__(
        self,
        rpc: Rpc[Any, Any],
        message: Any,
        read: Callable[[Any], _T],
        timeout: float | None,
        local: Callable[[CallFailed], _T] | None,
    ) -> None:
        self.rpc = rpc
        self.message = message
        self.read = read
        self.timeout = timeout
        self.local = local


class Rpc(msgspec.Struct, Generic[_Request, _Response], frozen=True):
    """A method of the API: its path as HTTP/2 has it, its messages, whether it may be sent again."""

    path: str
    request: type[_Request]
    response: type[_Response]
    again: Again

    def call(
        self,
        message: _Request,
        read: Callable[[_Response], _T],
        timeout: float | None,
        local: Callable[[CallFailed], _T] | None = None,
    ) -> Call[_T]:
        """Return the call that sends `message`."""
        return Call(self, message, read, timeout, local)


def rpc(
    method: MethodDescriptor, request: type[_Request], response: type[_Response], again: Again
) -> Rpc[_Request, _Response]:
    """Return a method of the API. Raises TypeError when its messages are others."""
    if (method.input_type, method.output_type) != (request.DESCRIPTOR, response.DESCRIPTOR):
        raise TypeError(f"{method.full_name} has other messages")
    return Rpc(f"/{method.containing_service.full_name}/{method.name}", request, response, again)


class Blocking:
    """A face whose methods return the answer."""

    def run(self, call: Call[_T]) -> _T:
        """Run a call."""
        raise NotImplementedError

    def bind(self, build: Callable[_P, Call[_T]]) -> Callable[_P, _T]:
        """Return the method that runs what `build` builds."""

        def method(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            return self.run(build(*args, **kwargs))

        return method


class Awaiting:
    """A face whose methods are coroutines."""

    async def run(self, call: Call[_T]) -> _T:
        """Run a call."""
        raise NotImplementedError

    def bind(self, build: Callable[_P, Call[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Return the method that runs what `build` builds."""

        async def method(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            return await self.run(build(*args, **kwargs))

        return method


class Method(Generic[_P, _T]):
    """A method of every face, declared once as a function that builds its call.

    On a blocking face it returns the answer, on an awaiting one a coroutine of it; the arguments are the function's.
    """

    def __init__(self, build: Callable[Concatenate[Any, _P], Call[_T]]) -> None:
        """Decorate the function."""
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, face: None, owner: type) -> Self: ...
    @overload
    def __get__(self, face: Blocking, owner: type) -> Callable[_P, _T]: ...
    @overload
    def __get__(self, face: Awaiting, owner: type) -> Callable[_P, Coroutine[Any, Any, _T]]: ...
    def __get__(self, face: Blocking | Awaiting | None, owner: type) -> Any:
        """Return the method as the face has it. It stays with the face, so this is asked once."""
        if face is None:
            return self
        bound = self.build.__get__(face, owner)
        method = functools.update_wrapper(face.bind(bound), bound)
        face.__dict__[self.build.__name__] = method
        return method
