"""What the control plane and `finetune` agree on: the files in a job's folder, and the commands that Ray runs.

Both programs import this package, and `finetune` imports nothing else of trainer. It needs neither torch nor Ray.

- `files`: `job.json`, `result.json` and the commands that read and write them
- `progress`: progress lines while a job runs
- `failure`: the reason why a job failed
- `spec`: the values of a training run
- `evaluation`: what an evaluation is asked to do and what it returns
- `base_models`: the registry of base models, and the import of one
- `ray_token`: the token of a local Ray head
"""
