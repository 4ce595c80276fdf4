"""The scripted upstream, a process of its own: says what the observer's requests name.

    python -m benchmarks.gate.upstream MAX_PAUSE_S

prints its URL and ends when its standard input does.
"""

import asyncio
import json
import re
import sys
from contextlib import suppress

from benchmarks.gate.scripts import make_script

ASKED = re.compile(r"stream (\d+) of (\d+)")
"""What the observer asks: the number of a script, and the seed."""
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


async def serve(max_pause_s: float) -> None:
    """Serves until the standard input ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # the gate may hang up
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert length is not None, "the gate sends whole bodies"
            body = json.loads(await reader.readexactly(int(length[1])))
            found = ASKED.search(body["messages"][0]["content"])
            assert found is not None, "only the observer asks"
            script = make_script(int(found[2]), int(found[1]), max_pause_s=max_pause_s)
            writer.write(_HEAD)
            for step in script.steps:
                if isinstance(step, bytes):
                    writer.write(b"%x\r\n%s\r\n" % (len(step), step))
                    await writer.drain()
                    await asyncio.sleep(0)
                else:
                    await asyncio.sleep(step)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
