"""Label answers by what one person likes, and train a policy on the pairs with TRL's DPO."""

import tempfile

from datasets import load_dataset
from small_policy import ADVICE, listed, make_policy, warm
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from pgenrm_agent import Candidate, EvaluationRequest, PGenRM, PreferencePair, Scaling
from pgenrm_agent.integrations.trl import write_labeled_pairs

QUERIES = list(ADVICE)

with (
    tempfile.TemporaryDirectory() as folder,
    PGenRM(memory=f"{folder}/memory", scaling=Scaling(individual=4, prototype=0, seed=3)) as rm,
):
    make_policy(f"{folder}/policy")
    for query in QUERIES[3:]:
        steps = ADVICE[query]
        rm.remember("ada", PreferencePair(query=query, chosen=listed(steps), rejected=warm(steps)))
    results = rm.score_many(
        [
            EvaluationRequest(
                user_id="ada",
                query=query,
                candidates=[
                    Candidate(id="warm", text=warm(ADVICE[query])),
                    Candidate(id="listed", text=listed(ADVICE[query])),
                ],
            )
            for query in QUERIES[:3]
        ]
    )
    pairs = f"{folder}/pairs.jsonl"
    print(f"pairs: {write_labeled_pairs(pairs, results, min_margin=0.2)}")
    rows = load_dataset("json", data_files=pairs, split="train", cache_dir=f"{folder}/cache")
    trainer = DPOTrainer(
        model=f"{folder}/policy",
        train_dataset=rows.map(  # this policy reads plain text
            lambda row: {
                "prompt": row["prompt"][-1]["content"] + "\n",
                "chosen": row["chosen"][0]["content"],
                "rejected": row["rejected"][0]["content"],
            }
        ),
        args=DPOConfig(
            f"{folder}/run",
            max_steps=10,
            per_device_train_batch_size=3,
            learning_rate=1e-4,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)  # the figures are printed below
    trainer.train()
    margins = [row.get("rewards/margins") for row in trainer.state.log_history][:-1]
    print(f"margin of what they like, first step: {margins[0]:.2f}, last step: {margins[-1]:.2f}")
