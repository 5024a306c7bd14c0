"""Web applications of jobs through the proxy: real servers in real sandboxes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.builders import shell_job
from tests.provider.provider_process import Served
from tests.provider.web_jobs import (
    Browser,
    open_session,
    serving_web_jobs,
    start,
    web_job,
)
from tests.waiting import eventually
from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.network.networks import Networks

LINK = "speeches.example.com"


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving_web_jobs(tmp_path) as served:
        yield served


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as browser:
        yield browser


async def open_application(
    provider: Served, browser: Browser, job: dict[str, Any], rank: int = 0
) -> str:
    """Open the job's application in the browser, and return its address."""
    session = await open_session(provider, job, "WEB", rank)
    assert (session["type"], session["jobId"], session["rank"]) == ("web", job["id"], rank)
    answer = await browser.open(session["redirectClientTo"])
    assert answer.status_code == 303, answer.text
    return browser.application_url


async def running_application(provider: Served, browser: Browser) -> tuple[dict[str, Any], str]:
    """Start a job, and open its application. Return the job, and the application's address."""
    job = web_job()
    await start(provider, job)
    return job, await open_application(provider, browser, job)


async def test_a_token_is_exchanged_for_a_cookie_of_its_replica(
    provider: Served, browser: Browser
) -> None:
    job = web_job()
    await start(provider, job)
    session = await open_session(provider, job, "WEB")
    answer = await browser.open(session["redirectClientTo"])
    path = f"/ucloud/local/sessions/web/{job['id']}/0/"
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    words = [word.strip() for word in answer.headers["set-cookie"].split(";")]
    assert {f"Path={path}", "HttpOnly", "SameSite=Lax"} < set(words)
    assert "token" not in (await browser.get(browser.application_url)).text
    async with Browser() as second:
        assert (await second.get(session["redirectClientTo"])).status_code == 401  # it was used
        assert (await second.get(browser.application_url)).status_code == 401


async def test_every_method_is_forwarded_with_its_body(provider: Served, browser: Browser) -> None:
    _, url = await running_application(provider, browser)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        body = b"" if method in {"GET", "OPTIONS"} else b"four"
        answer = await browser.request(method, f"{url}a%2Fb/c%20d?x=1&y=%26", content=body)
        assert answer.status_code == 200
        request = answer.json()
        assert (request["method"], request["target"], request["size"]) == (
            method,
            "/a%2Fb/c%20d?x=1&y=%26",
            len(body),
        )
    assert (await browser.head(url)).status_code in {200, 405}

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(320):
            yield b"x" * 65536

    assert (await browser.put(f"{url}large", content=chunks())).json()["size"] == 320 * 65536


async def test_the_session_is_hidden_from_the_application(
    provider: Served, browser: Browser
) -> None:
    job, url = await running_application(provider, browser)
    sent = {
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "X-Forwarded-Prefix": "/lie",
        "X-Forwarded-Host": "lie",
        "Authorization": "Basic YTpi",
    }
    answer = await browser.get(url, headers=sent)
    headers = answer.json()["headers"]
    names = [name for name, _ in headers]
    assert len(set(names)) == len(names)
    received = dict(headers)
    assert "x-hop" not in received
    assert received["x-forwarded-prefix"] == f"/ucloud/local/sessions/web/{job['id']}/0"
    assert received["x-forwarded-host"] == received["host"] == httpx.URL(url).netloc.decode()
    assert (received["x-forwarded-proto"], received["x-forwarded-for"]) == ("http", "127.0.0.1")
    assert received["authorization"] == "Basic YTpi"  # the application's own
    assert "ucloud-session" not in received.get("cookie", "")
    # A cookie of the application is limited to its own pages.
    (cookie,) = answer.headers.get_list("set-cookie")
    assert cookie.startswith("flavour=vanilla")
    assert "domain" not in cookie.lower()
    assert f"Path=/ucloud/local/sessions/web/{job['id']}/0/" in cookie
    assert "keep-alive" not in answer.headers
    through_another = await browser.get(url, headers={"X-Forwarded-For": "192.0.2.1, 192.0.2.2"})
    assert dict(through_another.json()["headers"])["x-forwarded-for"].startswith(
        "192.0.2.1, 192.0.2.2"
    )
    assert dict((await browser.get(url)).json()["headers"])["cookie"] == "flavour=vanilla"


async def test_redirects_stay_below_the_prefix(provider: Served, browser: Browser) -> None:
    _, url = await running_application(provider, browser)
    assert (await browser.get(f"{url}redirect")).headers[
        "location"
    ] == f"{httpx.URL(url).path}there?x=1"
    assert (await browser.get(url.rstrip("/"))).status_code in {
        307,
        401,
    }  # the cookie is for paths below


async def test_invalid_expired_and_foreign_tokens_open_nothing(
    provider: Served, browser: Browser
) -> None:
    job, other = web_job(replicas=1), web_job()
    await start(provider, job)
    await start(provider, other)
    url = await open_application(provider, browser, job)
    cookie = browser.cookies["ucloud-session"]
    open_url = f"{url}.ucloud/open"
    tokens = SessionTokens(provider.settings.data_dir / "session-secret")
    cookies = SessionTokens(provider.settings.data_dir / "cookie-secret")
    own = Session(job["id"], 0, SessionType.WEB)
    wrong = {
        "": 401,
        "nonsense": 401,
        provider.token(): 401,
        cookie: 401,
        tokens.issue(own, -1): 401,
        tokens.issue(own, challenge="0" * 64): 401,
        tokens.issue(Session(other["id"], 0, SessionType.WEB)): 403,
        tokens.issue(Session(job["id"], 1, SessionType.WEB)): 403,
        tokens.issue(Session(job["id"], 0, SessionType.SHELL)): 403,
    }
    async with Browser() as stranger:
        for token, status in wrong.items():
            answer = await stranger.get(open_url, params={"token": token})
            assert (answer.status_code, set(answer.json())) == (status, {"why"})
        wrong_cookies = {
            "": 401,
            tokens.issue(own): 401,
            cookies.issue(own, -1): 401,
            cookies.issue(Session(other["id"], 0, SessionType.WEB)): 403,
        }
        for value, status in wrong_cookies.items():
            headers = {"Cookie": f"ucloud-session={value}"}
            assert (await stranger.get(url, headers=headers)).status_code == status
            with pytest.raises(InvalidStatus) as rejected:
                async with connect_websocket(f"ws{url[4:]}echo", additional_headers=headers):
                    pass
            assert rejected.value.response.status_code == status
        headers = {"Cookie": f"ucloud-session={cookie}"}
        assert (await stranger.get(url, headers=headers)).status_code == 200
        assert (await stranger.get(url.replace("/0/", "/1/"), headers=headers)).status_code == 403
        assert (await stranger.get(url.replace("/0/", "/x/"), headers=headers)).status_code == 403
        assert (
            await stranger.get(url.replace("/0/", f"/{'9' * 5000}/"), headers=headers)
        ).status_code == 403
        assert (
            await stranger.get(url.replace("/local/", "/%6cocal/"), headers=headers)
        ).status_code == 404
        assert (
            await stranger.get(url.replace(job["id"], other["id"]), headers=headers)
        ).status_code == 403


async def test_pages_of_other_hosts_cannot_use_the_cookie(
    provider: Served, browser: Browser
) -> None:
    _, url = await running_application(provider, browser)
    foreign, own = (
        {"Origin": "https://evil.example"},
        {"Origin": str(httpx.URL(url).copy_with(path="/"))[:-1]},
    )
    assert (await browser.post(url, headers=foreign)).status_code == 403
    assert (await browser.post(url, headers=own)).status_code == 200
    cookie = {"Cookie": f"ucloud-session={browser.cookies['ucloud-session']}"}
    with pytest.raises(InvalidStatus) as rejected:
        async with connect_websocket(f"ws{url[4:]}echo", additional_headers=cookie | foreign):
            pass
    assert rejected.value.response.status_code == 403


async def test_websockets_are_forwarded_both_ways(provider: Served, browser: Browser) -> None:
    _, url = await running_application(provider, browser)
    cookie = {"Cookie": f"ucloud-session={browser.cookies['ucloud-session']}; own=1"}
    origin = str(httpx.URL(url).copy_with(path="/"))[:-1]
    async with connect_websocket(
        f"ws{url[4:]}echo",
        additional_headers=cookie,
        subprotocols=["other", "chat"],
        origin=origin,
    ) as socket:
        assert socket.subprotocol == "chat"
        assert json.loads(await socket.recv()) == {"cookie": "own=1", "origin": origin}
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.send(b"\x00" * 500_000)
        assert await socket.recv() == b"\x00" * 500_000
        await socket.send("close")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4001, "on request")
    with pytest.raises(InvalidStatus) as rejected:
        async with connect_websocket(f"ws{url[4:]}rejected", additional_headers=cookie):
            pass
    assert rejected.value.response.status_code == 418


async def test_an_endless_response_ends_when_the_browser_leaves(
    provider: Served, browser: Browser
) -> None:
    job, url = await running_application(provider, browser)
    async with browser.stream("GET", f"{url}endless") as answer:
        async for _ in answer.aiter_raw():
            break
    await eventually(
        (provider.folder / "provider" / "jobs" / job["id"] / "work" / "left").exists, 40
    )


async def test_a_broken_response_is_not_passed_as_complete(
    provider: Served, browser: Browser
) -> None:
    _, url = await running_application(provider, browser)
    with pytest.raises(httpx.RemoteProtocolError):
        await browser.get(f"{url}broken")


async def test_the_browser_retries_until_the_application_listens(
    provider: Served, browser: Browser
) -> None:
    job = shell_job("while ! test -e go; do sleep 0.1; done; exec sleep 300")
    job["status"]["resolvedApplication"]["application"]["web"] = {"port": 8731}
    await start(provider, job)
    address = (await open_session(provider, job, "WEB"))["redirectClientTo"]
    url = str(httpx.URL(address).join((await browser.get(address)).headers["location"]))
    answer = await browser.get(url)
    assert (answer.status_code, answer.headers["refresh"]) == (503, "2")
    assert answer.json()["why"] == "The application does not answer yet; please wait."
    cookie = {"Cookie": f"ucloud-session={browser.cookies['ucloud-session']}"}
    with pytest.raises(InvalidStatus) as rejected:
        async with connect_websocket(f"ws{url[4:]}echo", additional_headers=cookie):
            pass
    assert rejected.value.response.status_code == 503


async def test_each_rank_has_its_own_address(provider: Served, browser: Browser) -> None:
    if not Networks(provider.settings).is_separate:
        pytest.skip(
            "The replicas share this machine's network here, and cannot both have the port."
        )
    job = web_job(replicas=2)
    await start(provider, job)
    url = await open_application(provider, browser, job, 1)
    assert "/1/" in url
    assert (await browser.get(url)).json()["rank"] == "1"


async def test_a_session_ends_with_its_job(provider: Served, browser: Browser) -> None:
    job, url = await running_application(provider, browser)
    await provider.call("terminate", job)
    await provider.end_of(job)
    answer = await browser.get(url)
    assert (answer.status_code, answer.json()["why"]) == (404, "The job does not run any more.")


async def test_an_application_without_web_pages_has_no_web_session(provider: Served) -> None:
    job = shell_job("exec sleep 300")
    await start(provider, job)
    for kind in ("WEB", "VNC"):
        answer = await provider.call(
            "interactiveSession", {"job": job, "rank": 0, "sessionType": kind}
        )
        assert (answer.status_code, answer.json()["errorCode"]) == (
            400,
            "FEATURE_NOT_SUPPORTED_BY_PROVIDER",
        )
        assert answer.json()["why"] == f"The application a@1 has no session of type {kind}."


async def test_a_public_link_opens_rank_0_while_its_job_runs(
    provider: Served,
) -> None:
    job = web_job()
    job["status"]["resolvedLinks"] = {"link-1": LINK}
    await start(provider, job)
    async with httpx.AsyncClient(
        base_url=provider.url, headers={"Host": f"{LINK.upper()}:443"}
    ) as visitor:

        async def responds() -> bool:
            return (await visitor.get("/")).status_code == 200

        await eventually(responds, 60)
        request = (await visitor.get("/ucloud/local/jobs/retrieveProducts")).json()
        assert (
            request["target"] == "/ucloud/local/jobs/retrieveProducts?"
        )  # the application has the whole host
        assert (await visitor.get("/redirect")).headers["location"] == "/there?x=1"
        await provider.call("terminate", job)
        await provider.end_of(job)
        assert (await visitor.get("/")).status_code == 401


async def test_with_a_web_domain_each_session_has_a_host(tmp_path: Path, browser: Browser) -> None:
    names = {"web_domain": "apps.localhost", "public_url": "https://provider.localhost"}
    async with serving_web_jobs(tmp_path, **names) as provider:
        job = web_job()
        await start(provider, job)
        address = httpx.URL((await open_session(provider, job, "WEB"))["redirectClientTo"])
        host = f"{job['id']}-0.apps.localhost"
        assert (address.scheme, address.host) == ("https", host)
        headers = {"Host": host}
        answer = await browser.get(f"{provider.url}{address.raw_path.decode()}", headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert {"Path=/", "Secure", "HttpOnly"} < {
            word.strip() for word in answer.headers["set-cookie"].split(";")
        }
        headers["Cookie"] = answer.headers["set-cookie"].partition(";")[0]

        async def request() -> dict[str, Any]:
            answer = await browser.get(f"{provider.url}/x", headers=headers)
            return answer.json() if answer.status_code == 200 else {}

        headers_seen = dict((await eventually(request, 60))["headers"])
        assert (headers_seen["host"], headers_seen["x-forwarded-proto"]) == (host, "https")
        assert "x-forwarded-prefix" not in headers_seen
        headers["Host"] = f"{job['id']}-1.apps.localhost"
        assert (await browser.get(f"{provider.url}/x", headers=headers)).status_code == 403
