"""What runs inside the sandbox (see `octavo.tasks.sandbox`). Standard library only: nothing else is there."""
