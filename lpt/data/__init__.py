"""From a task's files to batches: sources, tasks, templates, few-shot samples, batching."""
