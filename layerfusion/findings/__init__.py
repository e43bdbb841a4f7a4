"""What finished jobs, profiles and searches say: read from a folder, grouped, compared, named."""
