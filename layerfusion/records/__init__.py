"""What finished jobs, profiles and searches leave on disk: plain data, read and written."""
