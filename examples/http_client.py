"""A client of `pgenrm serve`: watch an evaluation, then tell what the user chose.

Run: python examples/http_client.py http://127.0.0.1:8000
"""

import json
import os
import sys

import httpx

QUESTION = "How do I get tea stains out of a mug?"
ANSWERS = [
    "Oh, the joys of a well-loved mug! Don't you worry, my friend, I have been there too. A little"
    " patience works wonders. What is your favorite tea, by the way? I hope you enjoy your next"
    " cup!",
    "Rub the stains with wet baking soda, leave it on for five minutes, and rinse the mug.",
]
# With keys: `pgenrm keys add TENANT` prints one.
headers = {"Authorization": f"Bearer {os.environ.get('PGENRM_KEY', 'none')}"}

with httpx.Client(base_url=sys.argv[1], headers=headers, timeout=120) as client:
    asked = {"user_id": "ada", "query": QUESTION, "candidates": ANSWERS, "scaling": {"seed": 7}}
    with client.stream("POST", "/v1/score/stream", json=asked) as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                print(data.get("stage", "scored"))
    for place in data["ranking"]:
        number = int(place.removeprefix("answer-")) - 1
        print(f"[{data['scores'][number]['mean']:.2f}] {ANSWERS[number]}")

    clicked = {"query": QUESTION, "chosen": ANSWERS[1], "rejected": ANSWERS[0]}
    client.post("/v1/users/ada/preferences", json=clicked).raise_for_status()
