"""The bundled model's world: attributes, simulated users, teacher, tokenizer, model card."""
