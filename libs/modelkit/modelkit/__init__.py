"""Base models, adapters and prompts by digest, for every service that runs a model.

- `compute`: which device and number type, measured
- `base_model`: manifest, materialise, load
- `gguf_import`: the packaged SmolLM2 becomes a base model
- `tiny`: a random-weight base model for small runs
- `adapter`: publish, fetch and check LoRA adapters
- `prompt`: record -> prompt and completion -> tokens
- `lora`: several adapters on one base, for serving

Importing a submodule imports torch: services that run no model in their own process import none of them.
"""
