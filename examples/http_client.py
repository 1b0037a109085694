"""A client of `pgenrm serve`: remember a choice, rerank, watch an evaluation.

Run: pgenrm serve --no-keys, then: python examples/http_client.py http://127.0.0.1:8000
"""

import json
import os
import sys

import httpx

QUESTION = "How do I cook rice?"
ANSWERS = [
    "Rice is such a joy! Let me tell you about my favourite kinds...",
    "One part rice, two parts water, 12 minutes.",
]
# With keys: `pgenrm keys add TENANT` prints one.
headers = {"Authorization": f"Bearer {os.environ.get('PGENRM_KEY', 'none')}"}

with httpx.Client(base_url=sys.argv[1], headers=headers, timeout=120) as client:
    pair = {
        "query": "How do I boil an egg?",
        "chosen": "Eight minutes.",
        "rejected": "Oh, eggs! I love them. It depends on how you like yours...",
    }
    client.post("/v1/users/ada/preferences", json=pair).raise_for_status()

    asked = {"user": "ada", "query": QUESTION, "documents": ANSWERS}
    ranked = client.post("/v2/rerank", json=asked).raise_for_status().json()
    for result in ranked["results"]:
        print(f"{result['relevance_score']:.2f} {ANSWERS[result['index']]}")

    asked = {"user_id": "ada", "query": QUESTION, "candidates": ANSWERS}
    with client.stream("POST", "/v1/score/stream", json=asked) as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                print(data["stage"] if "stage" in data else f"ranking: {data['ranking']}")
