"""A gRPC service: methods by name, each from a message to a message or to several.

Handlers run in threads of grpc's own; what they call says what went wrong by its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from .protobuf import Message, decode, encode

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

Translate = Callable[[Exception], tuple[grpc.StatusCode, str]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service."""

    request: type[Any]
    answer: Callable[[Any], Any]
    streams: bool = False
    """It answers several messages."""


def unary(request: type[Q], answer: Callable[[Q], A]) -> Method:
    """Return a method that answers one message."""
    return Method(request, answer)


def streaming(request: type[Q], answer: Callable[[Q], Iterable[A]]) -> Method:
    """Return a method that answers several messages."""
    return Method(request, answer, streams=True)


def handler(
    name: str, methods: Mapping[str, Method], translate: Translate
) -> grpc.GenericRpcHandler:
    """Return the service *name* for a server; *translate* says how an error is told."""
    made = {called: _handler(method, translate) for called, method in methods.items()}
    return grpc.method_handlers_generic_handler(name, made)


def _handler(method: Method, translate: Translate) -> grpc.RpcMethodHandler[Any, Any]:
    def one(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method.answer(request)
        except Exception as exc:
            context.abort(*translate(exc))
            raise

    def several(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            yield from method.answer(request)
        except Exception as exc:
            context.abort(*translate(exc))
            raise

    def read(data: bytes) -> Any:
        return decode(method.request, data)

    if method.streams:
        return grpc.unary_stream_rpc_method_handler(several, read, encode)
    return grpc.unary_unary_rpc_method_handler(one, read, encode)
