"""Whether a tuned model still refuses what its base refuses, and still answers what is harmless."""

from keeptune.audit.safety.prompt_sets import PromptSet, load_prompts, named_prompts

__all__ = ["PromptSet", "load_prompts", "named_prompts"]
