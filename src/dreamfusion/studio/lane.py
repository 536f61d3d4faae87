"""The server's end of one worker process: a job goes in, messages come out (`worker` describes the lines).

The process starts with the first job and stays for the next one. When the server is no more, its end of the pipe
closes; the worker then saves what it does and ends.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

WORKER = (sys.executable, "-m", "dreamfusion.studio.worker")
_LONGEST = 1 << 20
"""bytes of a line of a worker"""


class Lane:
    """A worker process for one device, one job at a time."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._process: Process | None = None

    async def work(self, job: Mapping[str, object]) -> AsyncIterator[dict[str, Any]]:
        """Do a job; yields what the worker says, last a message with `end`: "done", "stopped", "busy" or "failed".

        A worker that dies ends it with "died".
        """
        if self._process is None or self._process.returncode is not None:
            self._process = await _started()
        process = self._process
        assert process.stdout is not None
        with suppress(ConnectionError):
            await self._send({**job, "device": self.device})
        while line := await process.stdout.readline():
            message = json.loads(line)
            yield message
            if "end" in message:
                return
        self._process = None
        yield {"end": "died", "error": _death(await process.wait())}

    async def stop(self) -> None:
        """Ask the worker to save and end its job."""
        with suppress(ConnectionError):
            await self._send({"stop": True})

    def kill(self) -> None:
        """End the process now; the last checkpoint stays."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def close(self, patience: float) -> None:
        """Let the worker save and end, for so many seconds at most, then end it."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), patience)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()

    async def _send(self, message: Mapping[str, object]) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(json.dumps(dict(message)).encode() + b"\n")
            await self._process.stdin.drain()


async def _started() -> Process:
    """In a session of its own: Ctrl-C in the terminal is for the server, which then closes the pipe."""
    return await asyncio.create_subprocess_exec(
        *WORKER, stdin=PIPE, stdout=PIPE, limit=_LONGEST, start_new_session=True
    )


def _death(code: int) -> str:
    if code == -9:
        return "its process was killed: perhaps the machine has too little memory for it"
    return f"its process ended with code {code}; the terminal of the studio shows why"
