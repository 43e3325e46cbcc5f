"""The connection that a chaos test cuts: it breaks in the chosen way, and works again afterwards."""

import asyncio
import contextlib

import pytest

from benchmarks.link import Link


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(line)
    writer.close()


async def closed(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_link_forwards_until_it_is_reset_refuses_then_and_heals() -> None:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        with Link(server.sockets[0].getsockname()[1]) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"one\n")
            assert await reader.readline() == b"one\n"
            await asyncio.to_thread(link.cut, "reset")
            with pytest.raises(ConnectionResetError):
                await reader.readline()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", link.port)
            await asyncio.to_thread(link.heal)
            answers, again = await asyncio.open_connection("127.0.0.1", link.port)
            again.write(b"two\n")
            assert await answers.readline() == b"two\n"
            assert link.connections == 2
            await closed(again, writer)


async def test_what_is_swallowed_arrives_late() -> None:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        with Link(server.sockets[0].getsockname()[1]) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"one\n")
            assert await reader.readline() == b"one\n"
            await asyncio.to_thread(link.cut, "swallow")
            writer.write(b"two\n")
            other_reader, other = await asyncio.open_connection("127.0.0.1", link.port)
            other.write(b"three\n")
            # Requests on connections that are not cut are answered meanwhile.
            with Link(server.sockets[0].getsockname()[1]) as whole:
                answers, asks = await asyncio.open_connection("127.0.0.1", whole.port)
                for _ in range(50):
                    asks.write(b"whole\n")
                    assert await answers.readline() == b"whole\n"
                await closed(asks)
            early = [asyncio.ensure_future(one.readline()) for one in (reader, other_reader)]
            await asyncio.sleep(0)
            assert not any(answer.done() for answer in early)
            for answer in early:
                answer.cancel()
            await asyncio.gather(*early, return_exceptions=True)
            await asyncio.to_thread(link.heal)
            assert await reader.readline() == b"two\n"
            assert await other_reader.readline() == b"three\n"
            await closed(writer, other)
