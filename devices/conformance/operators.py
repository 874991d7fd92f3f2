"""Who works the device during the run: a person at a real one, or a script with our own agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from devices.terminal import NoReply, TerminalAgent
from models.domain.ids import SessionId
from models.domain.screen import Screen

JPEG = b"\xff\xd8\xff\xe0" + b"conformance" * 1000
SCRIPT_LOOK_S = 0.05
SCRIPT_SCORE = 0.9


class Act(Enum):
    """Something to do at the device: (zh, en)."""

    START = ("请启动终端并让它连接", "Start the terminal and let it connect")
    EVENT = ("请做任意一个会发送事件的操作，例如开始接待顾客", "Do anything that sends an event, e.g. begin a customer")
    FACE = ("请按下刷脸并面对摄像头", "Press for face recognition and look at the camera")

    @property
    def zh(self) -> str:
        """In Chinese."""
        return self.value[0]

    @property
    def en(self) -> str:
        """In English."""
        return self.value[1]


class Operator(Protocol):
    """Works the device and looks at its screen."""

    @property
    def has_camera(self) -> bool:
        """Whether Act.FACE can be asked for."""

    async def do(self, act: Act) -> None:
        """Ask for it; may return before it is done."""

    async def sees(self, text: str) -> bool | None:
        """Whether the device shows this text now; None: nobody looked."""


class Person:
    """Somebody at the device, told on `say` and asked with `ask` (True, False, or None to leave a question out)."""

    def __init__(self, say: Callable[[str], None], ask: Callable[[str], bool | None], *, has_camera: bool) -> None:
        self._say, self._ask = say, ask
        self._has_camera = has_camera

    @property
    def has_camera(self) -> bool:
        return self._has_camera

    async def do(self, act: Act) -> None:
        self._say(f"→ {act.zh} / {act.en}")

    async def sees(self, text: str) -> bool | None:
        return await asyncio.to_thread(self._ask, f"屏幕显示 / Does the screen show: “{text}”")


class Script:
    """Our own agent in the place of a device: the run's own proof, and what broken devices are made from."""

    def __init__(self, agent: TerminalAgent, *, jpeg: bytes = JPEG) -> None:
        self.agent = agent
        self._jpeg = jpeg
        self._session: SessionId | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def has_camera(self) -> bool:
        return True

    async def do(self, act: Act) -> None:
        if act is Act.START:
            await self.agent.start()
            return
        task = asyncio.get_running_loop().create_task(self._do(act))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, act: Act) -> None:
        try:
            if act is Act.EVENT:
                self._session = (await self.agent.request("session.open", timeout_s=60.0)).session
            else:
                score = None if self.agent.config.liveness_key is None else SCRIPT_SCORE
                await self.agent.show_face(self._jpeg, self._session, liveness=score)
        except NoReply:
            return  # the examiner answers late on purpose

    async def sees(self, text: str) -> bool | None:
        try:
            await self.agent.wait_screen(lambda screen: _shows(screen, text), SCRIPT_LOOK_S)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """End the agent and what it still waits for."""
        await self.agent.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _shows(screen: Screen, text: str) -> bool:
    return screen.prompt is not None and screen.prompt.text == text
