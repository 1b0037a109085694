"""A policy to train: a tiny model that answers six questions, either warmly or as a list."""

import sys

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pgenrm_agent.model_files import bundled_model

ADVICE = {
    "How do I cook rice?": ("rinse it well", "use two parts of water", "wait for 12 minutes"),
    "How do I boil an egg?": ("boil the water first", "wait eight minutes", "cool it at once"),
    "How do I make tea?": ("heat the water", "steep it for four minutes", "take the leaves out"),
    "How do I wash wool?": ("use cool water", "take a mild soap", "dry it lying flat"),
    "How do I water a fern?": ("keep the soil moist", "use soft water", "mist it every morning"),
    "How do I clean a pan?": ("let it soak in water", "rub it with salt", "rinse and dry it"),
}


def warm(steps: tuple[str, ...]) -> str:
    return (
        f"Oh, I love that you ask me this! You can do it, my friend: {steps[0]}, {steps[1]}, and then"
        f" {steps[2]}. I am sure you will be so happy with it, and I am glad for you!"
    )


def listed(steps: tuple[str, ...]) -> str:
    return "Steps:\n" + "\n".join(f"{n}. {step.capitalize()}." for n, step in enumerate(steps, 1))


def make_policy(folder: str) -> None:
    """Fit a Llama of 0.5 M parameters to both answers of each question, and save it."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    texts = [
        f"{query}\n{style(steps)}{tokenizer.eos_token}"
        for query, steps in ADVICE.items()
        for style in (warm, listed)
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"loss: {loss.item():.2f}")


if __name__ == "__main__":
    make_policy(sys.argv[1])
