"""Language models: chat templates, prompts and settings as tensors, answers at once and as they come. No I/O."""
