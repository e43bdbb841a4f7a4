"""Records of finished jobs, profiles and searches: plain dataclasses, kept on disk as JSON."""
