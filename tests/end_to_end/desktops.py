"""Drive a job's desktop in a browser."""

from __future__ import annotations

from selenium.webdriver import ActionChains

from tests.end_to_end.chromium import Chromium
from tests.waiting import eventually

NEEDED = ("Xvnc", "vncpasswd", "xsetroot", "xterm")
"""Programs for `need`."""
PASSWORD = "secret12"
STEELBLUE, SEAGREEN, WHITE = "70,130,180", "46,139,87", "255,255,255"
DESKTOP = """
export HOME=/work DISPLAY=:{display} XAUTHORITY=/work/.Xauthority
printf 'secret12\\nsecret12\\n' | vncpasswd -f > password
Xvnc :{display} -geometry 800x600 -depth 24 -rfbport {port} -localhost=1 -SecurityTypes VncAuth \\
  -PasswordFile password -desktop Speeches &
until xsetroot -solid steelblue 2>/dev/null; do sleep 0.2; done
xterm -geometry 60x15+40+40 -e sh -c 'echo Who speaks?; read speaker; echo "$speaker" > speaker; \\
  xsetroot -solid seagreen; sleep 300' &
wait
"""
"""A script for a job: a blue desktop, which turns green once a name is typed into its terminal."""


async def is_connected(browser: Chromium, page: str) -> bool:
    """Return whether the address shows a desktop; each try needs a new address."""
    await browser.go(page)

    async def state() -> str:
        script = "return document.documentElement.dataset.state || ''"
        return str(await browser.do(browser.driver.execute_script, script))

    return await eventually(state, 30) == "connected"


async def shows(browser: Chromium, *colours: str) -> bool:
    """Return whether all these colours are on the desktop."""
    script = """
    const canvas = document.querySelector("#screen canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set();
    for (let at = 0; at < data.length; at += 4) seen.add(data.slice(at, at + 3).join());
    return [...seen];
    """
    return set(colours) <= set(await browser.do(browser.driver.execute_script, script))


async def click(browser: Chromium, x: int, y: int) -> None:
    """Click at a position in the browser's window."""

    def act() -> None:
        actions = ActionChains(browser.driver)
        actions.w3c_actions.pointer_action.move_to_location(x, y)
        actions.click().perform()

    await browser.do(act)


async def type_until_green(browser: Chromium, name: str) -> None:
    """Type the name into the desktop's terminal until the desktop turns green."""
    await eventually(lambda: shows(browser, STEELBLUE, WHITE), 60)
    await click(browser, 200, 150)  # the window under the pointer gets what is typed

    async def is_green() -> bool:
        await browser.type(f"{name}\n", "#screen canvas")
        return await shows(browser, SEAGREEN)

    await eventually(is_green, 60)
