"""Base models, adapters and prompts by digest, for every service that names or runs a model.

Without torch:

- `prompt`: record -> prompt and completion -> tokens
- `base_model`: a base model's manifest; publishing and unpacking its files
- `adapter`: a LoRA adapter's manifest and configuration, and what is refused
- `training_manifest`: what a model version was trained on

With torch, installed by the extra `openledger-modelkit[weights]`: everything in `modelkit.weights`.
"""
