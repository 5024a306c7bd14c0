"""Words that code and documents do not use: each thing has the term of its field."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUFFIXES = (
    *(".css", ".example", ".html", ".md", ".mjs", ".py", ".service", ".sh", ".toml", ".yaml"),
    ".yml",
)
INSTEAD = {
    "whoever|nobody|somebody": "the caller, the user, no user",
    "anew": "again",
    "of itself": "by itself, its own",
    "one that": "the name of the thing",
    r"(?<!there\s)is no(?! longer| more)": "is not a",
    "he|him|his": "they, them, their",
    "tell|tells|telling|told|hear|hears|heard": "report, pass, receive",
    "looks? at|looked at|looking at": "poll, observe, read",
    "news|last words?": "event, update, final report",
    "wish|wishes": "flag, request",
    "patience": "timeout",
    "pieces?": "chunk, page",
    "refuse|refuses|refusing|refusals?": "reject, rejection",
    "goodbyes?": "shutdown",
    "surroundings": "references",
    "holdings?": "claim",
    "entrances?": "network attachment",
    "standing": "status, observation",
    "stewards?|stewardship": "orphan collector",
    "ways? in(?! which)": "exec",
    "spill|spills|spilled": "offload",
    "storms?": "fault injection, load test",
    "known gaps?": "limitations",
}
SPACE = r"[\s_#]+"
FORBIDDEN = {
    re.compile(rf"(?<![a-z])(?:{words.replace(' ', SPACE)})(?![a-z])", re.IGNORECASE): term
    for words, term in INSTEAD.items()
}
CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
SKIPPED = (
    "tests/test_words.py",  # the list
    "ucloud_orchestrator/provider/sessions/static/third_party/",  # written by others
)
ALLOWED = {
    "tests/provider/test_networks_without_root.py": "nobody",  # a user of Unix
    "tests/provider/test_slurm.py": "nobody",  # a user of Unix
}


def findings(name: str, text: str) -> list[str]:
    """Return each forbidden word of a file with its line and the term to use."""
    text = CAMEL_CASE.sub("_", text)
    return [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]!r}, not the term: {term}"
        for pattern, term in FORBIDDEN.items()
        for found in pattern.finditer(text)
        if found[0] != ALLOWED.get(name)
    ]


def test_no_forbidden_word() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = [
        finding
        for name in listed.stdout.splitlines()
        if name.endswith(SUFFIXES) and not name.startswith(SKIPPED) and (ROOT / name).is_file()
        for finding in findings(name, (ROOT / name).read_text())
    ]
    assert not found, "\n".join(found)
