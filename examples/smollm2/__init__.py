"""A run on a real pretrained model, SmolLM2-135M-Instruct, obtained from the Python package index alone."""
