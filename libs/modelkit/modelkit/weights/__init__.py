"""Modules that compute with a model's weights, and need torch (the extra `openledger-modelkit[weights]`).

- `compute`: which device and number type, measured
- `loading`: loads a base model
- `adapter`: publishes, fetches and checks an adapter's tensors
- `lora`: serves several adapters on one base
- `gguf_import`: converts the packaged SmolLM2 into a base model
- `tiny`: makes a random-weight base model for small runs
"""
