"""Train a policy on what one user likes: GRPO, with the reward model as TRL's reward function."""

import tempfile
from statistics import fmean

from datasets import Dataset
from small_policy import ADVICE, listed, make_policy, warm
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from pgenrm_agent import PGenRM, PreferencePair, Scaling, as_reward_func

QUERIES = list(ADVICE)
STEPS = 6

with (
    tempfile.TemporaryDirectory() as folder,
    PGenRM(memory=f"{folder}/memory", scaling=Scaling(individual=2, prototype=0, seed=3)) as rm,
):
    make_policy(f"{folder}/policy")
    for query in QUERIES[3:]:  # Ada wants lists; the policy is trained on the other questions
        steps = ADVICE[query]
        rm.remember("ada", PreferencePair(query=query, chosen=listed(steps), rejected=warm(steps)))
    trainer = GRPOTrainer(
        model=f"{folder}/policy",
        reward_funcs=as_reward_func(rm),
        train_dataset=Dataset.from_list(
            [{"prompt": f"{query}\n", "user_id": "ada"} for query in QUERIES[:3]]
        ),
        args=GRPOConfig(
            output_dir=f"{folder}/run",
            max_steps=STEPS,
            per_device_train_batch_size=8,
            num_generations=8,  # fewer, and a step follows their luck
            max_completion_length=70,
            learning_rate=5e-4,  # twice that overshoots: neither lists nor warm answers
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
        ),
    )
    trainer.remove_callback(PrinterCallback)  # the figures are printed below
    trainer.train()
    # None: no answer of that step could be scored.
    curve = [row.get("reward") for row in trainer.state.log_history if "reward" in row]
    halves = curve[: STEPS // 2], curve[STEPS // 2 :]
    first, second = (fmean(reward for reward in half if reward is not None) for half in halves)
    print(f"reward, first half: {first:.2f}")
    print(f"reward, second half: {second:.2f}")
