"""Score a JSONL file of requests, many at a time; one JSON object out per line.

Run: python examples/batch_jsonl.py requests.jsonl > scores.jsonl

A line is {"user_id": ..., "query": ..., "candidates": [{"id": ..., "text": ...}, ...]}.
"""

import json
import sys
from pathlib import Path

from pgenrm_agent import Evaluation, EvaluationRequest, PGenRM, Scaling

lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
requests = [EvaluationRequest.model_validate_json(line) for line in lines if line.strip()]

scored = 0
with PGenRM(scaling=Scaling(individual=8, prototype=0, seed=7)) as rm:
    for request, result in zip(requests, rm.score_many(requests), strict=True):
        row: dict[str, object] = {"user_id": request.user_id, "query": request.query}
        if isinstance(result, Evaluation):
            scored += 1
            row["ranking"] = list(result.ranking)
            row["scores"] = {score.candidate_id: score.mean for score in result.scores}
        else:
            row["error"] = str(result)
        print(json.dumps(row))
print(f"{scored} of {len(requests)} requests scored", file=sys.stderr)
