"""The protocol `as_published`: what published scripts do, with every number it makes marked."""
