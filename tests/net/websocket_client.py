"""A WebSocket client that nobody here wrote, against `packmule serve --listen --plain`: the opening, pings, messages in
pieces, what is refused."""

import asyncio
import sys

import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

OPENING = b"\x89PKS\x01\x00"


async def ended(ws):
    """Waits for the end; the code of the other end's close, or none."""
    try:
        while True:
            await ws.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


async def main(url):
    connect = lambda: websockets.connect(url, subprotocols=["packmule.1"])
    async with connect() as ws:
        assert ws.subprotocol == "packmule.1", ws.subprotocol
        await (await ws.ping(b"before anything is said"))
        await ws.send([OPENING[:2], b"", OPENING[2:5], OPENING[5:]])
        assert await ws.recv() == OPENING
        await (await ws.ping())
        # No hello: it is gone.
        await ws.send(b"\x0a\x00no records")
        await ended(ws)
    async with connect() as ws:
        await ws.send("text")
        assert await ended(ws) == 1003
    async with connect() as ws:
        await ws.close(4000, "enough")
        assert ws.close_code == 4000, ws.close_code
    for other in [url.replace("/packmule/1", "/"), url]:
        # Another path; and no subprotocol.
        try:
            async with websockets.connect(other):
                raise AssertionError(other)
        except InvalidStatus as refused:
            assert refused.response.status_code in (400, 404), refused


asyncio.run(main(sys.argv[1]))
