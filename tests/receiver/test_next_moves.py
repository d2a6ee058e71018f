"""What each sender is told when it is refused: what was not stored comes again, and nothing makes it give up."""

from __future__ import annotations

import gzip
from itertools import product

import pytest
from httpx import Response

from pipeline.sources.registry import SOURCES
from receiver import problems
from receiver.next_moves import GIVES_UP_AT, said_to
from receiver.problems import Problem, Refused, render
from tests.receiver.conftest import TOKEN, MakeClient

pytestmark = pytest.mark.anyio

ALL = [value for value in vars(problems).values() if isinstance(value, Problem)]
FINAL = [problem for problem in ALL if problem not in problems.SEND_AGAIN]


def test_every_refusal_is_final_or_asks_for_another_try() -> None:
    """By the contract's statuses: what is 5xx, or came too slowly, is to be sent again; `/readyz` is no delivery."""
    again = {problem for problem in ALL if problem.status >= 500 or problem.status == 408}
    assert again == {*problems.SEND_AGAIN, problems.NOT_READY}


@pytest.mark.parametrize(("source", "problem"), [*product(sorted(GIVES_UP_AT), ALL)])
def test_no_refusal_makes_a_sender_give_up(source: str, problem: Problem) -> None:
    """Mailgun never hears 406 and Postmark never 403: after these they throw the event away."""
    assert source in SOURCES
    assert said_to(source, problem).status != GIVES_UP_AT[source]


@pytest.mark.parametrize("problem", problems.SEND_AGAIN)
def test_brevo_is_told_429_whenever_it_shall_send_again(problem: Problem) -> None:
    """Brevo throws away what is answered 4xx or 5xx, all but 429; the answer says when."""
    said = said_to("brevo", problem)
    assert said.status == 429
    assert (said.name, said.title, said.type) == (problem.name, problem.title, problem.type)
    retry = [value for name, value in said.headers if name == b"retry-after"]
    assert retry == [dict(problem.headers).get(b"retry-after", b"1")]
    assert set(problem.headers) <= set(said.headers)


@pytest.mark.parametrize("source", ["ses", "mailersend"])
def test_who_takes_408_for_final_is_told_503(source: str) -> None:
    """A body that came too slowly is to be sent again, and these repeat after 5xx only."""
    said = said_to(source, problems.STALLED)
    assert (said.status, dict(said.headers)[b"retry-after"]) == (503, b"1")


@pytest.mark.parametrize("source", [*SOURCES, "unknown"])
def test_every_other_answer_is_the_contracts(source: str) -> None:
    """What is final stays as it is for everybody, and all other senders get the contract's statuses."""
    slow = (problems.STALLED,)
    own = {"brevo": problems.SEND_AGAIN, "ses": slow, "mailersend": slow}.get(source, ())
    for problem in ALL:
        if problem not in own:
            assert said_to(source, problem) is problem


@pytest.mark.parametrize(("source", "problem"), [*product(["brevo", "ses", "pixel"], ALL)])
def test_the_body_agrees_with_the_status(source: str, problem: Problem) -> None:
    """The `status` of the problem is that of the answer's first line."""
    said = said_to(source, problem)
    status, _, body = render(Refused(problem, "why"), said)
    assert status == said.status
    assert b'"status":%d' % status in body


def assert_429(answer: Response, name: str) -> None:
    """Hold *answer* against what Brevo needs."""
    assert (answer.status_code, answer.json()["status"]) == (429, 429)
    assert answer.json()["type"] == f"urn:audience-relay:problem:{name}"
    assert int(answer.headers["retry-after"]) > 0


async def test_brevo_without_redis(make_client: MakeClient) -> None:
    """While nothing can be stored Brevo hears 429, also for what would be a dead letter; the others 503."""
    async with make_client(redis_url="redis://127.0.0.1:1/0", spill_max_bytes=0) as client:
        for body in (b'{"event":"click"}', b"not json"):
            assert_429(await client.post(f"/hooks/brevo/{TOKEN}", content=body), "not-stored")
            answer = await client.post(f"/hooks/mailgun/{TOKEN}", content=body)
            assert (answer.status_code, answer.json()["status"]) == (503, 503)
        metrics = (await client.get("/metrics")).text
        assert 'source="brevo",status="429"' in metrics
        assert 'source="brevo",status="503"' not in metrics


async def test_brevo_beyond_the_memory_and_finally_refused(make_client: MakeClient) -> None:
    """A busy receiver is 429 to Brevo; a wrong token, a large body and a wrong form stay what they are."""
    async with make_client(max_body_bytes=2048, max_inflight_bytes=2048) as client:
        packed = gzip.compress(b'"' + b"1" * 2040 + b'"')
        headers = {"content-encoding": "gzip"}
        url = f"/hooks/brevo/{TOKEN}"
        assert_429(await client.post(url, content=packed, headers=headers), "too-busy")
        for path, body, status in [
            ("/hooks/brevo/wrong", b"{}", 401),
            (url, b"1" * 2049, 413),
            (url, b"not json", 400),
        ]:
            answer = await client.post(path, content=body)
            assert (answer.status_code, answer.json()["status"]) == (status, status)
