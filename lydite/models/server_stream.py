"""An event loop in a thread beside the reader: answers come out of an ordinary generator while others are under way.

A thread, because the reader may itself run inside an event loop (a notebook), and because answers should go on arriving
while it scores and writes. The thread is a daemon and lives as long as one generator.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Put = Callable[[T], None]


def stream(produce: Callable[[Put[T]], Coroutine[Any, Any, None]]) -> Iterator[T]:
    """Yields what `produce` puts, in that order; what it raises is raised here. Closing the generator cancels it."""
    items: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(produce(lambda item: items.put((item,))))

    def work() -> None:
        try:
            loop.run_until_complete(task)
            items.put(None)
        except asyncio.CancelledError:
            items.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are read
            items.put(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=work, name="lydite-server", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            if isinstance(item, BaseException):
                raise first_cause(item)
            yield item[0]
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has closed by itself
            loop.call_soon_threadsafe(task.cancel)
        thread.join(timeout=5)


def run(coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of one coroutine."""

    async def produce(put: Put[T]) -> None:
        put(await coroutine())

    [result] = stream(produce)
    return result


def first_cause(error: BaseException) -> BaseException:
    """The first error of a group of tasks: the others were cancelled by it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
