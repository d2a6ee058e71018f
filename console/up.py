"""`relay up`: Redis, receiver, worker and console in one terminal, started in order and stopped together.

Without REDIS_URL the embedded Redis is started first and its address written for the other
commands. With neither vendor's key it is a trial: own data and token, this machine only, stand-ins
for both vendors, and the sample deliveries. A child that dies later is started again; one that dies
before all is ready ends the command, because then something is set up wrongly.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr
from redis.exceptions import RedisError

from console import trial
from console.processes import ROOT, Child, Terminal, child_environment
from console.redis_server import EmbeddedRedis, RedisRefused
from pipeline.connections import console_redis
from pipeline.home import Address, Home, HomeError
from pipeline.hook_tokens import parse_tokens
from pipeline.inbox import Inbox, NotPossible
from pipeline.settings import Settings, SettingsError

T = TypeVar("T")

# a platform kills after 30 s; the worker waits up to 20 s for calls in flight
STOP_WITHIN_S = 25.0
# a receiver whose supervisor was killed lives for at most five seconds more (console.child)
PORT_FREE_WITHIN_S = 10.0
SANDBOX_WITHIN_S = 30.0
SAY_NOT_READY_AFTER_S = 20.0
REDIS_ANSWERS_WITHIN_S = 5.0


class CannotStart(Exception):
    """`relay up` has to give up. The message is a sentence for the operator."""


def up(settings: Settings) -> int:
    """Run the relay until Ctrl-C or SIGTERM; return the exit status.

    0 when it was asked to stop, 1 when it could not start, 2 when a setting is the reason.
    """
    terminal = Terminal(trial=settings.is_trial)
    home = Home(settings.relay_home)
    try:
        with home.lock():
            return asyncio.run(_Relay(settings, home, terminal).run())
    except SettingsError as error:
        terminal.say("relay", str(error))
        return 2
    except (CannotStart, HomeError, RedisRefused) as error:
        terminal.say("relay", str(error))
        return 1
    except OSError as error:
        terminal.say("relay", f"cannot start: {error.strerror or type(error).__name__}")
        return 1


@dataclass(frozen=True, slots=True)
class _Supervised:
    child: Child
    keeper: asyncio.Task[None]
    is_vendor: bool


class _Relay:
    """Everything one `relay up` runs."""

    def __init__(self, settings: Settings, home: Home, terminal: Terminal) -> None:
        self._settings = settings
        self._home = home
        # a trial's data and token are its own, but the address is where every command looks for it
        self._own = home.trial() if settings.is_trial else home
        self._terminal = terminal
        # real senders come from outside
        self._host = "127.0.0.1" if settings.is_trial else "0.0.0.0"  # noqa: S104
        self._receiver_url = f"http://127.0.0.1:{settings.port}"
        self._redis: EmbeddedRedis | None = None
        self._starting: asyncio.Future[None] | None = None
        self._running: list[_Supervised] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    def _say(self, text: str) -> None:
        self._terminal.say("relay", text)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)
        start = asyncio.create_task(self._start())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                await stop
        finally:
            start.cancel()
            stop.cancel()
            await self._stop_all()
            with suppress(Exception, asyncio.CancelledError):
                await start
        return 0

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():  # asked twice: somebody is in a hurry
            self._say("stopping at once")
            for each in self._running:
                each.child.signal(signal.SIGKILL)
        else:
            self._say("stopping")
            self._stop.set()

    async def _start(self) -> None:
        tokens = self._tokens()
        await self._wait_for_port()
        redis_url = await self._start_redis()
        await self._check_ack_policy(redis_url)
        sandbox_url = ""
        environment = self._settings.environment()
        if self._settings.is_trial:
            sandbox_url = await self._start_sandbox()
            environment = trial.trial_settings(self._settings, redis_url, tokens, sandbox_url)
        else:
            environment["REDIS_URL"] = redis_url
        environment = child_environment(environment)
        worker = ["workers.main.WorkerSettings"]
        receiver = self._uvicorn_arguments()
        self._supervise(Child("worker", "arq", worker, environment, self._terminal))
        self._supervise(Child("receiver", "uvicorn", receiver, environment, self._terminal))
        await self._or_death(self._until_ready())
        self._announce()
        self._start_console(environment)
        if self._settings.is_trial:
            await trial.show(self._say, self._receiver_url, sandbox_url, redis_url, tokens)
            self._say("the trial goes on running; Ctrl-C ends it")

    def _tokens(self) -> str:
        """Return the valid tokens as HOOK_TOKENS has them, making the first when there is none."""
        self._own.make()
        if self._settings.hook_tokens is not None and not self._settings.is_trial:
            return self._settings.hook_tokens.get_secret_value()
        tokens = self._own.make_token()
        try:
            parse_tokens(tokens)
        except ValueError as error:
            raise SettingsError([f"{self._own.tokens_file}: {error}"]) from None
        return tokens

    def _uvicorn_arguments(self) -> list[str]:
        return [
            *("receiver.main:app", "--app-dir", str(ROOT)),
            *("--host", self._host, "--port", str(self._settings.port), "--no-access-log"),
            *("--timeout-graceful-shutdown", "10"),
        ]

    def _start_console(self, environment: dict[str, str]) -> None:
        """Start the operator's page; the relay does without where its port is taken."""
        port, token = self._settings.console_port, self._settings.console_token
        if not port:
            return
        # without a token it is for this machine only
        host = self._host if token else "127.0.0.1"
        try:
            is_free = _is_free(host, port)
        except CannotStart:  # a port that this user may not have
            is_free = False
        if not is_free:
            self._say(f"no console: port {port} is taken, or not for this user; set CONSOLE_PORT")
            return
        arguments = [
            *("console.main:app", "--app-dir", str(ROOT), "--host", host, "--port", str(port)),
            *("--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "5"),
        ]
        self._supervise(Child("console", "uvicorn", arguments, environment, self._terminal))
        self._say(f"the console: http://127.0.0.1:{port}/")

    def _supervise(self, child: Child, *, is_vendor: bool = False) -> None:
        keeper = asyncio.create_task(child.keep_running())
        self._running.append(_Supervised(child, keeper, is_vendor))

    async def _wait_for_port(self) -> None:
        deadline = time.monotonic() + PORT_FREE_WITHIN_S
        said = False
        while not _is_free(self._host, self._settings.port):
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"Port {self._settings.port} is taken by another program; set PORT."
                )
            if not said:
                self._say(f"port {self._settings.port} is still taken; waiting for it")
                said = True
            await asyncio.sleep(0.1)

    async def _start_redis(self) -> str:
        url = self._settings.redis_url
        if url is not None and not self._settings.is_trial:
            # of an embedded one that was killed: no command must find that instead
            self._home.remove_address()
            return url.get_secret_value()
        if url is not None:
            self._say("a trial uses its own Redis, not the one of REDIS_URL")
        self._redis = EmbeddedRedis(self._own.path, say=self._say)
        await self._start_server(self._redis)
        self._tasks.append(asyncio.create_task(self._keep_redis(self._redis)))
        self._home.write_address(
            Address(self._redis.url, self._own.path, self._settings.is_trial, self._receiver_url)
        )
        self._say(f"Redis runs; its data is in {self._own.redis_dir}")
        return self._redis.url

    async def _check_ack_policy(self, redis_url: str) -> None:
        """Raise `SettingsError` where this Redis cannot keep ACK_POLICY.

        The receiver checks it too; here it is told before anything is started, and alone. A Redis
        that does not answer yet is waited for by the receiver.
        """
        if self._settings.ack_policy == "stored":
            return
        there = self._settings.model_copy(update={"redis_url": SecretStr(redis_url)})
        redis = console_redis(there)
        try:
            async with asyncio.timeout(REDIS_ANSWERS_WITHIN_S):
                await Inbox(redis, self._settings.ack_policy).start()
        except NotPossible as error:
            raise SettingsError([str(error)]) from None
        except (RedisError, OSError) as error:
            self._say(f"ACK_POLICY is not checked yet: {type(error).__name__} from Redis")
        finally:
            await redis.aclose()

    async def _start_server(self, redis: EmbeddedRedis) -> None:
        # shielded: a thread cannot be cancelled, so the end has to know that it still starts
        self._starting = asyncio.ensure_future(asyncio.to_thread(redis.start))
        await asyncio.shield(self._starting)

    async def _stop_server(self, redis: EmbeddedRedis) -> None:
        await asyncio.to_thread(redis.stop)
        while self._starting is not None and not self._starting.done():
            await asyncio.wait([self._starting], timeout=0.1)
            await asyncio.to_thread(redis.stop)

    async def _keep_redis(self, redis: EmbeddedRedis) -> None:
        """Start the embedded Redis again when it dies; receiver and worker wait meanwhile."""
        pause_s = 0.5
        while True:
            await asyncio.sleep(0.25)
            if redis.is_running:
                continue
            self._say(f"Redis ended; again in {pause_s:g} s (its log: {redis.log_file})")
            await asyncio.sleep(pause_s)
            pause_s = min(30.0, pause_s * 2)
            try:
                await self._start_server(redis)
            except (RedisRefused, HomeError) as error:
                self._say(str(error))
            else:
                self._say("Redis runs again, with all its data")

    async def _start_sandbox(self) -> str:
        """Start the vendors' stand-ins on a free port, which they keep when started again."""
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def hear(line: str) -> None:
            found = re.search(r"listening on (http://\S+)", line)
            if found and not listening.done():
                listening.set_result(found[1])

        arguments = ["--port", "0"]
        environment = child_environment({})
        child = Child("sandbox", "sandbox", arguments, environment, self._terminal, hear)
        self._supervise(child, is_vendor=True)
        try:
            url = await self._or_death(asyncio.wait_for(listening, SANDBOX_WITHIN_S))
        except TimeoutError:
            raise CannotStart("The vendors' stand-ins do not start.") from None
        child.arguments = ["--port", str(urlsplit(url).port)]
        return url

    async def _or_death(self, wanted: Coroutine[Any, Any, T]) -> T:
        """Wait for *wanted*, or give up when a child dies meanwhile."""
        task = asyncio.create_task(wanted)
        deaths = {asyncio.create_task(each.child.died.wait()): each for each in self._running}
        try:
            await asyncio.wait([task, *deaths], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            name = next(each.child.name for death, each in deaths.items() if death.done())
            raise CannotStart(f"The {name} does not start; its own lines above say why.")
        finally:
            for pending in (task, *deaths):
                pending.cancel()

    async def _until_ready(self) -> None:
        """Wait for the receiver's own yes, which includes Redis and a worker's heartbeat."""
        began = time.monotonic()
        told = False
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while True:
                answer = ""
                with suppress(httpx.HTTPError):
                    response = await client.get(f"{self._receiver_url}/readyz")
                    if response.status_code == 200:
                        return
                    answer = _what_is_wrong(response)
                if not told and time.monotonic() - began > SAY_NOT_READY_AFTER_S:
                    told = True
                    self._say(f"not ready yet, still waiting: {answer or 'no answer'}")
                await asyncio.sleep(0.1)

    def _announce(self) -> None:
        self._say(f"ready: {self._receiver_url}/hooks/SOURCE/TOKEN")
        if self._settings.is_trial or self._settings.hook_tokens is None:
            self._say(f"the token is in {self._own.tokens_file}")
        else:
            self._say("the tokens are those of HOOK_TOKENS")

    async def _stop_all(self) -> None:
        deadline = time.monotonic() + STOP_WITHIN_S
        for task in self._tasks:
            task.cancel()
        # together: the whole takes as long as the slowest; stand-ins still answer the worker's last calls
        for are_vendors in (False, True):
            parts = [each for each in self._running if each.is_vendor is are_vendors]
            stops = (each.child.stop(each.keeper, deadline) for each in parts)
            await asyncio.gather(
                *stops, return_exceptions=True
            )  # whatever one does, all are stopped
        if self._redis is not None:
            await self._stop_server(self._redis)
            self._home.remove_address()
        self._say("stopped")


def _what_is_wrong(response: httpx.Response) -> str:
    """Return what `/readyz` names, without the JSON around it."""
    try:
        return str(response.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return response.text[:300]


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as error:
            raise CannotStart(f"Port {port} may not be used by this user; set PORT.") from error
        except OSError:
            return False
    return True
