"""What pages print: found, run in order, and put back; and the picture of an evaluation."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, PreferencePair, Scaling, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain
from studies.printed.pages import blocks_of, printed_of, put
from studies.printed.picture import alternative_text, draw
from studies.printed.rules import same, same_shape
from studies.printed.run import BlockError, outputs
from studies.printed.study import renew

PAGE = """\
# A page

<!-- saved as words.txt -->
```json
["two", "words"]
```

```python
import json
from pathlib import Path

words = json.loads(Path("words.txt").read_text())
print(len(words))
```

```text
old
```

Then, in the same session:

```python
print(*words)
Path("left.txt").write_text("left behind")
```

```text
old
```

```sh
echo "before" > earlier.txt
pip install nothing-of-the-kind
cat left.txt earlier.txt
```

```text
old
```

<!-- not run: nobody is there -->
```sh
no-such-command
```

```console
$ echo one \\
    two
old
$ cat earlier.txt
...
$ echo "error: on purpose"; exit 3
error: old
```

```sh
echo '{"best": "a", "seed": 7, "id": "0123"}'
```

Some of it:

<!-- fields: best, seed -->
```json
{}
```
"""


def test_a_page_is_run_in_order_and_shows_what_it_prints() -> None:
    renewed = renew(PAGE)
    assert (renewed.outputs, renewed.changed) == (5, 5)
    texts = [printed.shown.text for printed in printed_of(blocks_of(renewed.text))]
    assert texts == [
        "2\n",
        "two words\n",
        "left behindbefore\n",
        '$ echo one \\\n    two\none two\n$ cat earlier.txt\n...\n$ echo "error: on purpose"; exit 3\n'
        "error: on purpose\n",
        '{\n  "best": "a",\n  "seed": 7\n}\n',
    ]
    assert renewed.text.count("old") == 0
    assert renew(renewed.text).changed == 0


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("```python\nprint(1)\nraise ValueError('no such luck')\n```", "no such luck"),
        ("```python\nexit()\n```", "SystemExit"),
        ("```python\nimport os; os._exit(3)\n```", "Python ended"),
        ("```sh\necho fine\nfalse\necho fine\n```", "exit code 1"),
        ("```sh\nno-such-command | cat\n```", "no-such-command"),
        ("```console\n$ false\n```", "exit code 1"),
        ("<!-- goes on running: http://127.0.0.1:8000/ -->\n```sh\necho died\n```", "died"),
        ("```sh\necho no JSON\n```\n\n<!-- fields: best -->\n```json\n{}\n```", "no JSON"),
        ("<!-- draws: map.svg as map.svg -->\n```sh\ntrue\n```", "map.svg"),
    ],
)
def test_a_block_that_fails_is_named(block: str, why: str) -> None:
    with pytest.raises(BlockError, match=rf"(?s)line \d+: .*{why}"):
        outputs(f"# A page\n\n{block}\n")


def test_a_server_goes_on_running_on_a_port_that_is_free() -> None:
    page = (
        "<!-- goes on running: http://127.0.0.1:8000/ -->\n"
        "```python\nfrom http.server import HTTPServer, SimpleHTTPRequestHandler\n"
        'HTTPServer(("127.0.0.1", 8000), SimpleHTTPRequestHandler).serve_forever()\n```\n\n'
        "```sh\necho here > file; curl -s http://127.0.0.1:8000/file; echo http://127.0.0.1:8000/\n"
        "```\n\n```text\n```\n"
    )
    assert list(outputs(page).texts.values()) == ["here\nhttp://127.0.0.1:8000/\n"]


def test_what_needs_a_variable_or_takes_long_can_be_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (
        "<!-- needs PGENRM_RESPONSES: the answers -->\n```sh\necho data\n```\n\n```text\n```\n\n"
        "<!-- slow: an hour -->\n```sh\necho slow\n```\n\n```text\n```\n"
    )
    monkeypatch.delenv("PGENRM_RESPONSES", raising=False)
    assert list(outputs(page).texts.values()) == ["slow\n"]
    monkeypatch.setenv("PGENRM_RESPONSES", "/data")
    assert list(outputs(page, slow=False).texts.values()) == ["data\n"]


def test_a_reader_has_no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_MEMORY", "/elsewhere")
    page = '```sh\necho "${PGENRM_MEMORY:-none}" $PGENRM_SEED; ls examples/score.py\n```\n\n```text\n```\n'
    assert list(outputs(page).texts.values()) == ["none 7\nexamples/score.py\n"]


def test_an_output_without_a_command_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2: no block before this output"):
        list(printed_of(blocks_of("```text\nfrom nowhere\n```\n")))


def test_blocks_are_put_where_they_were() -> None:
    page = "a\n```text\nx\n```\nb\n```text\ny\n```\n"
    first, second = blocks_of(page)
    assert put(page, {second.start: "long\ner\n", first.start: ""}) == (
        "a\n```text\n```\nb\n```text\nlong\ner\n```\n"
    )


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("49f19993  recall, 0 tokens", "e27a6f82  recall, 0 tokens"),
        ("in 78.9 s, seed 1", "in 3.25 s, seed 1"),
        ("version 20261123T181353238591-9db359: 9", "version 20261128T090000000001-ffffff: 9"),
        ("built 2026-11-23T18:13:53+00:00 with", "built 2026-11-28T08:00:01+00:00 with"),
        ("│ seconds a question │ 285.81 │", "│ seconds a question │ 3.5    │"),
    ],
)
def test_ids_and_times_are_no_news(shown: str, printed: str) -> None:
    assert same(shown, printed)
    assert not same(shown, printed.replace("0", "00") + " more")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("8.0 of 10: Simmer", "7.9 of 10: Simmer"),
        ("answer-2: 8.0 ± 0.2, best with 88%", "answer-2: 8.1 ± 0.3, best with 9%"),
        ("persona: wants brevity.", "persona: wants numbers."),
        ("20% Brevity\n80% Formal tone", "100% Formal tone"),
        ("│ rubric   │ 37% Brevity │\n│          │ wording │", "│ rubric │ 75% Friendly │"),
        ("│ 0 │ 12    │ brevity, task │", "│ 0 │ 1     │               │\n│ 1 │ 9 │ tone │"),
        ("┏━━━┓\n┃ a ┃\n│ 1.25 │", "┏━━┓\n┃ a ┃\n│ 10.5 │"),
    ],
)
def test_numbers_and_personas_depend_on_the_machine(shown: str, printed: str) -> None:
    assert not same(shown, printed)
    assert same_shape(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("plain > chatty", "chatty > plain"),
        ("answer-2: 8.0", "answer-1: 8.0"),
        ('{"ranking": ["plain", "steps"]}', '{"ranking": ["steps", "plain"]}'),
        ("8.0 of 10: Simmer", "8.0 of 10: Rice"),
        ("recall\naggregate", "recall"),
    ],
)
def test_which_comes_first_does_not(shown: str, printed: str) -> None:
    assert not same_shape(shown, printed)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    choice = PreferencePair(query="How?", chosen="So.", rejected="<No & no>")
    known = UserSignals(user_id="ada", history=(choice,))
    chains = [write_chain([9, 3]), write_chain([8, 4])]
    with PGenRM(engine=ScriptedEngine(chains)) as rm:
        return rm.score(
            "ada",
            'Why "<b>"?',
            ["First & <foremost>, " + "and so on " * 30, "Second\x07\ufffe."],
            signals=known,
            scaling=Scaling(individual=2, prototype=0, seed=1),
        )


def test_the_picture_shows_what_was_found(evaluation: Evaluation) -> None:
    picture = ElementTree.fromstring(draw(evaluation, "Which & why?", "Ada < Ben"))
    texts = ["".join(element.itertext()) for element in picture.iter() if "text" in element.tag]
    shown = "\n".join(texts)
    assert texts[:2] == ["Which & why?", "Ada < Ben"]
    assert "First & <foremost>, and so on" in texts[2]
    for name in evaluation.ranking:
        score = evaluation.score_of(name)
        assert f"{score.mean:.1f} ± {score.standard_error:.1f}" in shown
        assert f"best with {100 * (score.probability_best or 0):.0f} %" in shown
    assert evaluation.chains[0].persona.text[:30] in shown
    assert "the mean of 2 evaluation chains, from 1 past choice, seed 1." in shown
    bars = [float(e.attrib["width"]) for e in picture.iter() if e.attrib.get("height") == "16"]
    assert bars[0] == bars[2] > bars[1] > bars[3]


def test_the_picture_is_told_in_words(evaluation: Evaluation) -> None:
    words = alternative_text(evaluation)
    assert "of 10 for “First & <foremost>, and so on" in words
    assert words.index("First") < words.index("Second")


def test_the_command_takes_pages_by_their_names() -> None:
    from studies.printed.__main__ import _chosen

    assert list(_chosen(["README", "judge", "how-to/index.md"])) == [
        "README.md",
        "docs/how-to/judge.md",
        "docs/how-to/index.md",
    ]
    assert "docs/tutorial.md" in _chosen([])
    assert not any("notebook" in page for page in _chosen([]))
    for name in ("index", "nowhere", ""):
        with pytest.raises(Exception, match="no single page"):
            _chosen([name])


def test_the_folder_of_a_page_is_gone_afterwards(tmp_path: Path) -> None:
    page = f"```sh\npwd > {tmp_path}/where\n```\n"
    outputs(page)
    assert not Path((tmp_path / "where").read_text().strip()).exists()
