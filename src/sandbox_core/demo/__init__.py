"""`sandbox-core demo`: an agent repairs a small Python project in a sandbox, as a workflow."""
