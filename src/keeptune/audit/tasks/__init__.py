"""What a tuned model still answers right: multiple choice in any of the published layouts, and tasks of lm-eval."""
