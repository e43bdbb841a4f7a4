"""Renderers of blocks and tables: Markdown, LaTeX, the terminal, and files."""
