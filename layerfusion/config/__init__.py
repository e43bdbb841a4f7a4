"""Every setting of a job or a command: its type, its default, its meaning and its checks."""
