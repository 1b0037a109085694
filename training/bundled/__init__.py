"""What the bundled model is trained on: signs, texts, teacher, tokenizer; and the users it is tested on.

Examples are drawn while `training/psi.py` trains (`examples.py`): there is no data file.
"""
