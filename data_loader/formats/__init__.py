"""Foreign files, read as if a stranger had written them: plain arrays or a refusal."""
