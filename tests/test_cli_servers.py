"""`pgenrm keys`, and what `pgenrm serve` refuses, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pgenrm_agent.integrations.keys import KeyRing


def pgenrm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "pgenrm_agent.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    file = ("--keys", str(tmp_path / "keys.jsonl"))
    key = pgenrm("keys", "add", "acme", *file).stdout.strip()
    ring = KeyRing(tmp_path / "keys.jsonl")
    assert ring.tenant_of(key) == "acme"
    (listed,) = json.loads(pgenrm("keys", "list", "--json", *file).stdout)
    assert listed["tenant"] == "acme"
    assert "digest" not in listed
    assert pgenrm("keys", "revoke", listed["id"], *file).returncode == 0
    assert ring.tenant_of(key) is None
    again = pgenrm("keys", "revoke", listed["id"], *file)
    assert again.returncode == 1
    assert "has no key" in again.stderr


def test_a_server_that_would_answer_nobody_does_not_start(tmp_path: Path) -> None:
    done = pgenrm("serve", "--keys", str(tmp_path / "keys.jsonl"), "--memory", str(tmp_path))
    assert done.returncode == 1
    assert "pgenrm keys add" in done.stderr
    assert "Traceback" not in done.stderr


def test_mcp_is_not_opened_to_other_machines_without_a_key(tmp_path: Path) -> None:
    file = ("--keys", str(tmp_path / "keys.jsonl"))
    open_to_all = pgenrm("mcp", "--http", "--host", "0.0.0.0", *file)
    assert open_to_all.returncode == 1
    assert "--tenant" in open_to_all.stderr
    keyless = pgenrm("mcp", "--http", "--tenant", "acme", *file)
    assert keyless.returncode == 1
    assert "pgenrm keys add acme" in keyless.stderr
    piped = pgenrm("mcp", "--tenant", "acme", *file)
    assert piped.returncode == 2
    assert all("Traceback" not in done.stderr for done in (open_to_all, keyless, piped))
