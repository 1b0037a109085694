"""A chain as the bundled model writes it, and one as a large model does."""

from __future__ import annotations

import pytest

SMALL = """## Part 1: Analysis
### Persona
[1 chosen] length 2, lists 3: substance 2, structure 3, warmth 3, caution 0
[1 rejected] plain: substance 0, structure 0, warmth 3, caution 0
Pair 1: substance +2, structure +3, warmth 0, caution 0
Tally: substance +2 = +2
Tally: structure +3 = +3
Strength: 5
In this how-to question this person wants clear structure, then thoroughness.
### Criteria
1. Clear structure (60%): structure +3
2. Thoroughness (40%): substance +2
## Part 2: Scoring
[response 1] length 2: substance 2, structure 0, warmth 3, caution 0
[response 2] length 1, lists 3: substance 1, structure 3, warmth 3, caution 0
<JSON_START>
{"rationale": "A. Clear structure 60%, Thoroughness 40%. B. Response 1: Clear structure 1, Thoroughness 8. Response 2: Clear structure 10, Thoroughness 3.", "better_response": {"response_1": 4, "response_2": 7}}
<JSON_END>"""

LARGE = """Here is my evaluation.

## Part 1: Analysis

### Persona
A careful reader who double-checks claims and dislikes padding.

### Criteria
1. **Accuracy** (50%): they turned down a wrong answer twice.
2. **Brevity** – 30 %: they chose the shorter one.
- Tone: 20% (a friendly voice)

## Part 2: Scoring
<JSON_START>
{
  "rationale": "A. Accuracy 50%, Brevity 30%, Tone 20%.
B. Response 1: Accuracy: 8/10, Brevity: 6, Tone: 7.
   Response 2: Accuracy: 4/10, Brevity: 9, Tone: 7.",
  "better_response": {"response_1": "7.2", "response_2": "6.1"}
}
<JSON_END>
I hope this helps!"""


@pytest.fixture
def small() -> str:
    return SMALL


@pytest.fixture
def large() -> str:
    return LARGE
